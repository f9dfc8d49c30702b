"""scripts/derive.py: sets of pictures after what they went through, with their CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, script
from conftest import make_picture
from PIL import Image

from engine.scoring import degradations
from scripts import derive


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "derive.py: ", derive.main)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four pictures of three formats, one of them broken, and a CSV with a column of its own."""
    rows = []
    for index, name in enumerate(("a.png", "b.jpg", "sub/a.webp", "sub/broken.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(index, fake=bool(index % 2)).save(path)
        rows.append([name, str(index % 2), f"note {index}"])
    path.write_bytes(path.read_bytes()[:40])
    with (tmp_path / "in" / "set.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "class", "note"], *rows])
    return tmp_path / "in" / "set.csv"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_pictures_are_what_degrade_makes_of_them(run: Cli, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run(table, "--apply", "meme+jpeg:060", "--seed", 3, "--output", output, "--workers", 0)
    assert done.status == 1
    assert done.out.splitlines() == [str(output / "set.csv")]
    rows = read(output / "set.csv")
    assert list(rows[0]) == ["image", "class", "note", "original", "degradation", "seed"]
    assert [row["original"] for row in rows] == ["a.png", "b.jpg", "sub/a.webp"]
    assert {(row["degradation"], row["seed"]) for row in rows} == {("meme+jpeg:60", "3")}
    assert [(row["class"], row["note"]) for row in rows] == [
        ("0", "note 0"), ("1", "note 1"), ("0", "note 2"),
    ]  # fmt: skip
    chain = degradations.parse("meme+jpeg:60")
    assert chain is not None
    for row in rows:
        with Image.open(table.parent / row["original"]) as image:
            expected = chain(image.convert("RGB"), np.random.default_rng(3))
        with Image.open(output / row["image"]) as image:
            assert image.format == "PNG"
            assert image.tobytes() == expected.tobytes()
    [bad] = read(output / "bad_files.csv")
    assert bad["key"] == "set/sub/broken.png"


def test_a_killed_run_goes_on(run: Cli, table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    words = (table, "--apply", "screenshot", "--output", output, "--workers", 0)
    run(*words)
    content = {p: p.read_bytes() for p in output.rglob("*.[pc][ns][gv]")}
    (output / "set" / "b.png").unlink()
    kept = (output / "set" / "a.png").stat().st_mtime_ns
    assert run(*words).status == 2
    assert "seed" in run(*words, "--resume", "--seed", 1).complaint
    assert run(*words, "--resume").status == 1
    assert {p: p.read_bytes() for p in output.rglob("*.[pc][ns][gv]")} == content
    assert (output / "set" / "a.png").stat().st_mtime_ns == kept


def test_who_interrupts_is_told_how_it_goes_on(
    run: Cli, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(derive, "run", interrupted)
    done = run(table, "--apply", "flip", "--output", tmp_path / "out")
    assert done.status != 0 and "--resume" in done.err


@pytest.mark.parametrize("again", ["--resume", "--overwrite"])
def test_originals_are_neither_taken_for_results_nor_deleted(
    run: Cli, tmp_path: Path, again: str
) -> None:
    original = tmp_path / "set" / "a.png"
    original.parent.mkdir()
    make_picture(0, fake=False).save(original)
    content = original.read_bytes()
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "set.csv"
    table.write_text("image,class\na.png,0\n")
    words = (table, "--csv_root", original.parent, "--apply", "flip", "--output", tmp_path, again)
    assert str(original) in run(*words, "--workers", 0).complaint
    assert original.read_bytes() == content


@pytest.mark.parametrize(
    ("form", "formats"),
    [
        ("png", ["PNG", "PNG", "PNG"]),
        ("jpeg:80", ["JPEG", "JPEG", "JPEG"]),
        ("webp:80", ["WEBP", "WEBP", "WEBP"]),
        ("original", ["PNG", "JPEG", "WEBP"]),
    ],
)
def test_formats(run: Cli, table: Path, tmp_path: Path, form: str, formats: list[str]) -> None:
    output = tmp_path / "out"
    run(table, "--apply", "flip", "--format", form, "--output", output, "--workers", 0)
    images = [output / row["image"] for row in read(output / "set.csv")]
    assert [Image.open(io.BytesIO(path.read_bytes())).format for path in images] == formats


def test_folders_and_several_inputs(run: Cli, tree: Path, table: Path, tmp_path: Path) -> None:
    # Pictures whose names differ in their endings alone keep apart, whatever the longer names are.
    for name in ("000.png", "000.jpg.png"):
        make_picture(0, fake=False).save(tree / "real" / name)
    output = tmp_path / "out"
    done = run(tree, table, "--like-study", "filter", "--output", output, "--workers", 0)
    assert done.status == 1
    assert "JPEG before" in done.err
    rows = read(output / "tree.csv")
    assert len({row["image"] for row in rows}) == len(rows) == 26
    assert {row["class"] for row in rows} == {"0", "1"}
    assert {row["generator"] for row in rows} == {"", "gan", "diffusion"}
    assert all((output / row["image"]).suffix == ".jpg" for row in rows)
    assert {row["degradation"] for row in rows} == {"instagram:random"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--output {out}", "--apply"),
        ("--output {out} --apply jpg:5", "--apply: expected"),
        ("--output {out} --apply flip --like-study meme", "--like_study"),
        ("--output {out} --like-study meme --format png", "--format"),
        ("--output {out} --apply flip --format jpeg:101", "--format"),
        ("--output {out} --apply flip --format gif", "--format"),
        ("--output {root} --apply flip", "--output"),
        ("--output {out} --apply flip --split nosuch", "split"),
    ],
)
def test_mistakes_are_one_line(
    run: Cli, table: Path, tmp_path: Path, words: str, named: str
) -> None:
    words = words.format(out=tmp_path / "out", root=table.parent)
    done = run(table, *words.split())
    assert done.status == 2
    assert named in done.err.splitlines()[-1]
    assert not (tmp_path / "out" / "run.json").exists()
