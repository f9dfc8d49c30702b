"""scores.csv: any name survives it, and an interrupted run goes on as if nothing had been."""

from __future__ import annotations

import os
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from engine.config import ConfigError
from engine.runtime import table_writer
from engine.runtime.table_writer import TableWriter
from engine.scoring.table import COLUMNS, ScoreRow, read_table

NAMES = [
    "plain.png",
    "comma, and space.png",
    'a "quoted" name.png',
    '"',
    "new\nline.png",
    "\n",
    'quote"\n"newline.png',
    "carriage\rreturn.png",
    "both\r\n.png",
    "naïve 图片.png",
    os.fsdecode(b"not utf-8 \xff\xfe.png"),
    "",
    "' =1+1;\t#.png",
]


def row_of(name: str, number: int = 0) -> ScoreRow:
    return ScoreRow(name, "coco", "sd1,4", 1, -0.25 * number, 0.5, "", "none", 640, 480)


ROWS = [row_of(name, number) for number, name in enumerate(NAMES)]
ROWS[4] = replace(
    ROWS[4], logit=None, score=None, error='broken: "x"\nat 3', width=None, label=None
)


def append(path: Path, rows: list[ScoreRow], resume: bool = True) -> None:
    """Adds the rows that the table does not hold yet, one at a time, as a run does."""
    with TableWriter(path, COLUMNS, ("key", "degradation"), resume) as writer:
        for row in rows:
            if (row.key, row.degradation) not in writer.done:
                writer.append([astuple(row)])


def test_every_name_survives(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    append(path, ROWS)
    assert read_table(path) == ROWS


def test_resume_after_truncation_at_every_byte_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand times would be slow
    path = tmp_path / "scores.csv"
    append(path, ROWS)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        append(path, ROWS)
        assert path.read_bytes() == whole, f"cut at byte {size}"


def test_resume_after_a_torn_last_block(tmp_path: Path) -> None:
    """What a power cut leaves: the length is there, the bytes are not."""
    path = tmp_path / "scores.csv"
    append(path, ROWS[:2])
    start = path.stat().st_size
    append(path, ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + b"\0" * 40)
    append(path, ROWS)
    assert path.read_bytes() == whole


def test_resume_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    append(path, ROWS[:5])
    with TableWriter(path, COLUMNS, ("key", "degradation"), resume=True) as writer:
        assert writer.done == {(row.key, "none") for row in ROWS[:5]}
    assert read_table(path) == ROWS[:5]


def test_the_same_picture_degraded_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    degraded = replace(ROWS[0], degradation="jpeg:90")
    append(path, [ROWS[0]])
    append(path, [ROWS[0], degraded])
    assert read_table(path) == [ROWS[0], degraded]


def test_without_resume_the_table_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    append(path, ROWS)
    append(path, ROWS[:1], resume=False)
    assert read_table(path) == ROWS[:1]


@pytest.mark.parametrize("content", ["path,score\na.png,0.5\n", "\n", '"a"b,c\n', "\x00\x00\n"])
def test_another_file_is_not_resumed(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="expected"):
        append(path, ROWS)
    assert path.read_text(encoding="utf-8") == content, "the file must stay as it was"


def test_other_columns_are_named_when_reading(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("path,score\na.png,0.5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"expected the columns key, .* found path, score"):
        read_table(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="found an empty file"):
        read_table(path)


def test_rows_reach_the_disk_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    monkeypatch.setattr(table_writer, "FLUSH_SECONDS", 0.0)
    writer = TableWriter(path, COLUMNS, ("key",), resume=False)
    writer.append([astuple(ROWS[0])])
    assert read_table(path) == ROWS[:1], "before it is closed"
    writer.close()


def test_rows_that_come_slowly_are_on_the_disk_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(table_writer.time, "monotonic", lambda: now)
    path = tmp_path / "scores.csv"
    with TableWriter(path, COLUMNS, ("key",), resume=False) as writer:
        for seconds, lines in ((1.0, 0), (8.0, 3), (1.0, 3), (9.0, 5)):
            now += seconds
            writer.append([astuple(row_of(f"{now}.png"))])
            assert path.read_bytes().count(b"\n") == lines


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"-0.25", b"-0.2x5", "could not convert string to float"),
        (b",1,", b",7,", "expected the label 0 or 1, found '7'"),
        (b",640,480,", b",640,", "expected 11 values, found 10"),
        (b"b,coco", b"a,coco", "expected each picture once, found 'a' again"),
        (b"b,coco", b'"b"c,coco', "expected after"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, old: bytes, new: bytes, complaint: str) -> None:
    path = tmp_path / "scores.csv"
    append(path, [row_of("a"), row_of("b", 1)])
    before, after = path.read_bytes().rsplit(b"\n", 2)[:2]
    assert old in after
    path.write_bytes(before + b"\n" + after.replace(old, new, 1) + b"\n")
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
