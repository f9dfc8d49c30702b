"""What an evaluation says about odd tables, and the list of training pictures beside weights."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from datasets import Record
from datasets._images import digest
from engine.evaluation.hints import hints
from engine.evaluation.metrics import evaluate_rows
from engine.scoring import trained_on
from engine.scoring.table import ScoreRow


def row(label: int, logit: float, key: str, content: str = "") -> ScoreRow:
    name = digest((content or key).encode())
    return ScoreRow(key, "", "g" if label else "", label, logit, 0.5, "", "none", 8, 8, name)


def said(rows: list[ScoreRow], trained: set[str] | frozenset[str] = frozenset()) -> list[str]:
    return list(hints(rows, evaluate_rows(rows, 0.5, 0), trained))


def table(sign: int, n: int = 50) -> list[ScoreRow]:
    return [
        row(label, sign * (2.0 * label - 1), f"{label}/{i}") for label in (0, 1) for i in range(n)
    ]


def test_an_ordinary_table_has_no_hints() -> None:
    assert said(table(1)) == []


@pytest.mark.parametrize(("n", "told"), [(50, True), (49, False)])
def test_an_auroc_below_chance_asks_for_the_labels(n: int, told: bool) -> None:
    found = said(table(-1, n))
    assert len(found) == told and all("labels swapped" in each for each in found)


def test_the_same_picture_in_both_classes_is_named() -> None:
    found = said([*table(1), row(0, -1.0, "a.png", "same"), row(1, 1.0, "b.png", "same")])
    assert len(found) == 1 and "a.png" in found[0] and "b.png" in found[0]
    # Twice in one class is no contradiction.
    assert said([*table(1), row(0, -1.0, "a.png", "same"), row(0, 1.0, "b.png", "same")]) == []


def test_pictures_that_were_trained_on_are_counted_and_the_first_is_named() -> None:
    rows = table(1)
    found = said(rows, {rows[3].digest, rows[60].digest})
    assert len(found) == 1 and "2 of 100" in found[0] and rows[3].key in found[0]


def test_the_list_beside_weights_tells_pictures_by_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    records = [Record(name, tmp_path / name, 0) for name in ("a", "b", "gone")]
    trained_on.write(tmp_path, records)
    found = trained_on.read([tmp_path / "best.safetensors"])
    assert found == {digest(b"a"), digest(b"b")} == trained_on.read([tmp_path])
    first = (tmp_path / trained_on.TRAINED_ON).read_bytes()
    trained_on.write(tmp_path, records[::-1])
    assert (tmp_path / trained_on.TRAINED_ON).read_bytes() == first
    assert trained_on.read([tmp_path / "elsewhere" / "best.safetensors"]) == frozenset()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"abc", mtime=0)[:-4]])
def test_a_damaged_list_is_told_of_and_passed_over(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / trained_on.TRAINED_ON).write_bytes(content)
    assert trained_on.read([tmp_path]) == frozenset()
    assert trained_on.TRAINED_ON in caplog.text
