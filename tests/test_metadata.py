"""JSON beside pictures: what is taken of files that somebody else wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets import Label, Record
from engine.config import ConfigError
from engine.scoring import metadata
from engine.scoring.metadata import Values, beside, grouped


def said(folder: Path, *contents: Any) -> dict[str, Values]:
    """What is taken of one JSON file beside each picture."""
    records = []
    for number, content in enumerate(contents):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{number}.json").write_text(text, encoding="utf-8")
        records.append(Record(str(number), folder / f"{number}.png", Label.FAKE, "", "gan"))
    found = beside(records)
    metadata.write(folder, found)
    return found


def test_texts_and_numbers_are_taken_on_one_line(tmp_path: Path) -> None:
    content = {"a\nb": "c\0d\ud800\x1b[2J", "n": 7.5, "t": True, "none": None, "in": {"x": 1}}
    values = {"a b": "c d [2J", "n": "7.5", "t": "true", "in.x": "1"}
    assert said(tmp_path, content) == {"0": values}


@pytest.mark.parametrize("content", ["", "[1]", "3", "[" * 10_000, '{"a": {"b": {"c": 1}}}'])
def test_other_json_says_nothing(tmp_path: Path, content: str) -> None:
    assert said(tmp_path, content) == {}


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV may name pictures of two folders in turn."""
    listed: list[object] = []
    scan = metadata._json_files
    monkeypatch.setattr(metadata, "_json_files", lambda path: listed.append(path) or scan(path))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "all.json").write_text('{"1.png": {"steps": 9}, "x/2.png": {"s": 1}}')
    paths = [tmp_path / folder / f"{n}.png" for n in range(3) for folder in ("a", "b")]
    found = beside([Record(path.as_posix(), path) for path in paths])
    assert sorted(map(dict, found.values()), key=str) == [{"s": "1"}] * 2 + [{"steps": "9"}] * 2
    assert len(listed) == 2


def test_names_and_groups_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MOST_NAMES", 2)
    monkeypatch.setattr(metadata, "MOST_GROUPS", 2)
    found = said(tmp_path, *({"steps": n, "caption": f"{n}", f"rare{n}": 1} for n in range(3)))
    assert metadata.names_of(found) == ["caption", "steps"]
    records = [Record(key, tmp_path / key, Label.FAKE, "", "gan") for key in found]
    with pytest.raises(ConfigError, match="expected 2 groups at most; found 3 of steps"):
        grouped(records, found, ["steps"])
    assert {r.generator for r in grouped(records[:2], found, ["steps"])} == {
        "gan [steps=0]", "gan [steps=1]",
    }  # fmt: skip
