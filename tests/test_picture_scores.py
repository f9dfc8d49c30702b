"""Scores of pictures that others computed: how pictures are told, sorted and summed up."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import script
from conftest import make_picture

from datasets import LayoutError, Record
from engine.reporting.picture_scores import PictureScores, distributions
from scripts import contact_sheet


def record(key: str) -> Record:
    return Record(key, Path(key))


def scores(folder: Path, *texts: str) -> PictureScores:
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"{number}.csv")
        files[-1].write_text(text)
    return PictureScores(files)


def test_pictures_are_told_by_the_ends_of_their_paths(tmp_path: Path) -> None:
    table = scores(
        tmp_path,
        "path,quality,label\n/gpfs/train/IF/a.png,0.9,x\n/gpfs/train/SD/a.png,0.2,y\n",
        "Image,score,extra\nIF\\b.png,0.5,1\nc.png,-1,2\n",
    )
    keys = {"ImageData/IF/a.png": 0.9, "SD/a.png": 0.2, "x/IF/b.png": 0.5, "y/c.png": -1.0}
    assert {key: table.score(record(key)) for key in keys} == keys
    for unknown in ("other/a.png", "d.png"):  # two rows could mean the first
        assert table.score(record(unknown)) is None
    names = ["y/c.png", "d.png", "SD/a.png", "ImageData/IF/a.png"]
    order = table.by_score([record(name) for name in names])
    assert [r.key for r in order] == ["ImageData/IF/a.png", "SD/a.png", "y/c.png", "d.png"]
    assert [r.key for r in PictureScores([]).by_score(map(record, names))] == names


@pytest.mark.parametrize(
    ("text", "named"),
    [("a,b\n1,2\n", "path"), ("path\na\n", "numbers"), ("path,p,q\na,1,2\n", "found 2")],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(LayoutError, match=named):
        scores(tmp_path, text)


def test_distributions_are_drawn() -> None:
    assert distributions({"a": [1.0, 2.0, 3.0], "none": [], "$b$": [2.0]})[1:4] == b"PNG"


def test_sheets_are_sorted_by_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        (tmp_path / "set" / "fake" / "gan").mkdir(parents=True, exist_ok=True)
        make_picture(number, True).save(tmp_path / "set" / "fake" / "gan" / f"{number}.png")
    (tmp_path / "set" / "real").mkdir()
    make_picture(9, False).save(tmp_path / "set" / "real" / "r.png")
    table = tmp_path / "scores.csv"
    table.write_text("image,clip_iqa\nx/gan/0.png,0.25\nx/gan/2.png,0.75\n")
    run = script(capsys, "contact_sheet.py: ", contact_sheet.main)
    draw = ("--data", tmp_path / "set", "--workers", 0, "--size", 32, "--scores", table)
    done = run(*draw, "--output", tmp_path / "sheets")
    assert done.status == 0, done.err
    page = (tmp_path / "sheets" / "index.html").read_text()
    captions = ["2.png</b>0.75, 72 x 64", "0.png</b>0.25, 72 x 64", "1.png</b>72 x 64"]
    places = [page.index(caption) for caption in captions]
    assert places == sorted(places)
    assert (tmp_path / "sheets" / "scores.png").read_bytes()[1:4] == b"PNG"
    assert "scores.png" in run(*draw, "--output", tmp_path / "sheets").complaint
    table.write_text("image,clip_iqa\nelse.png,0.25\n")
    assert "found none" in run(*draw, "--output", tmp_path / "other").complaint
