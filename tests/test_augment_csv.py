"""Augmented splits: which files they become, that these are the same again, and what is refused."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, in_process, script
from conftest import ROOT, make_picture
from PIL import Image

import datasets
from datasets import Label, Record
from datasets._images import open_picture
from detectors._spai_options import SpaiOptions
from detectors.spai import ViewsTransform
from engine.runtime import files
from scripts import augment_csv
from scripts._views import VIEW, view_name

ODD = ["ünï中.png", "a, b.png", 'say "x".png', "two\nlines.png", " space .png", "-.png", "x" * 200]
Row = tuple[str, ...]
DONE = "augmented, decoded as data.decoding=published"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_process(script(capsys, "augment_csv.py: ", augment_csv.main))


def write(root: Path, rows: list[Row], *more: str, pictures: bool = True) -> Path:
    """A CSV with rows of image, class, split and `more` columns, and the pictures it names."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (name, label, *_) in enumerate(rows):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pictures:
            make_picture(number, fake=label == "1", size=(90, 70)).save(path, "PNG")
    file = root / "set.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("image", "class", "split", *more), *rows])
    return file


def some_rows(count: int = 3) -> list[Row]:
    rows = [(f"{n}/{i}.png", n, "val") for n in "01" for i in range(count)]
    return [("train/a.png", "0", "train"), *rows, ("train/b.png", "1", "train")]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def content(folder: Path) -> dict[str, bytes]:
    """The PNGs and tables of a run by name."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".png", ".csv")}


def pngs(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix == ".png")


# --- names


def test_names_tell_class_and_picture_and_never_collide() -> None:
    keys = ["a/x.png", "b/x.png", "a_x.png", "a x.png", "a/x.jpg", "a\tx.png", "A/x.png", "é", "e"]
    keys += [*ODD, "d/" * 500 + "x.png", "中" * 300, "...", "~/:*?<>|"]
    names = [
        view_name(Record(key, Path(key), Label(fake)), view)
        for key in keys for fake in (0, 1) for view in (0, 1)
    ]  # fmt: skip
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert len(os.fsencode(name)) <= 200
        assert name.isprintable() and not set(name) & set('/\\:*?"<>|\n ')
        assert VIEW.fullmatch(name)
    assert view_name(Record("gan/x 1.png", Path(), Label.FAKE), 2).startswith("fake_gan_x_1_")
    assert view_name(Record("ünï中.png", Path(), Label.REAL), 0).startswith("real_ünï中_")
    elsewhere = Record("gan/0001.jpeg", Path("elsewhere"), Label.FAKE)
    assert view_name(elsewhere, 0) == "fake_gan_0001_445434392cc38ab2_0.png"


# --- what is written


def test_rows_become_views_and_other_splits_stay(cli: Cli, tmp_path: Path) -> None:
    rows = [
        ("train/a.png", "1", "train", "gan", "hi, there"), ("v/b.png", "0", "val", "", "2"),
        ("v/./c.png", "1.0", "Validation", "ldm", ""), ("gone.png", "", "test", "", ""),
    ]  # fmt: skip
    file = write(tmp_path / "set", rows, "generator", "note")
    (tmp_path / "set/gone.png").unlink()
    done = cli(file, "--output", tmp_path / "set/out")
    assert (done.status, done.out) == (0, f"{tmp_path / 'set/out/augmented.csv'}\n")
    assert done.err == (
        f"augment_csv.py: val 1 real, 1 synthetic {DONE}; 2 rows of other splits kept; paths "
        f"start from {tmp_path / 'set'}: give it as --csv_root\n"
    )
    found = table(tmp_path / "set/out/augmented.csv")
    assert list(found[0]) == ["image", "class", "split", "generator", "note"]
    assert [tuple(row.values())[1:] for row in found] == [row[1:] for row in rows]
    assert [row["image"] for row in found][::3] == ["train/a.png", "gone.png"]
    views = [Path(row["image"]) for row in found[1:3]]
    assert [str(view.parent) for view in views] == ["out", "out"]
    assert sorted(view.name for view in views) == pngs(tmp_path / "set/out")
    assert views[0].name.startswith("real_v_b_") and views[1].name.startswith("fake_v_c_")
    with Image.open(tmp_path / "set" / views[0]) as view:
        assert (view.format, view.mode, view.size) == ("PNG", "RGB", (224, 224))


def test_the_table_is_a_data_set_wherever_the_folder_is(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "pictures", some_rows())
    for output, start in (("pictures/out", "pictures"), ("far/out", "."), (".", ".")):
        done = cli(file, "--output", tmp_path / output)
        assert done.status == 0, done.err
        start_folder = (tmp_path / start).resolve()
        if start == output:
            assert "--csv_root" not in done.err
        else:
            assert done.err.endswith(f"start from {start_folder}: give it as --csv_root\n")
        found = datasets.contents(tmp_path / output / "augmented.csv", start_folder)
        for split, count in (("train", 2), ("val", 6)):
            records = found.records(split)
            assert len(records) == count
            assert {open_picture(r.path).size for r in records} == {
                (90, 70) if split == "train" else (224, 224)
            }
        (tmp_path / output / "augmented.csv").unlink()


def test_a_split_alone_needs_no_root(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "lists", [("a.png", "0", "val")], pictures=False)
    write(tmp_path / "pictures", [("a.png", "0", "val")])
    out = tmp_path / "deep/out"
    assert "expected readable pictures" in cli(file, "--output", tmp_path / "none").complaint
    done = cli(file, "--output", out, "--csv_root", tmp_path / "pictures")
    assert done.status == 0, done.err
    assert done.err == f"augment_csv.py: val 1 real, 0 synthetic {DONE}\n"
    [record] = datasets.open_path(out / "augmented.csv", "val")
    assert record.path.is_file() and record.path.parent == out


def test_views_are_those_of_the_training(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path, [("d/a.png", "1", "val"), ("d/b.png", "0", "test")])
    out = tmp_path / "out"
    assert cli(file, "--output", out, "--views", 3, "--seed", 7).status == 0
    rows = [row for row in table(out / "augmented.csv") if row["split"] == "val"]
    assert len(rows) == len(pngs(out)) == 3
    original = open_picture(tmp_path / "d/a.png")
    for number, row in enumerate(rows):
        rng = np.random.default_rng((7, number, zlib.crc32(b"d/a.png")))
        with Image.open(tmp_path / row["image"]) as view:
            assert np.array_equal(view, ViewsTransform(SpaiOptions()).view(original, rng))


def test_same_seed_same_files(cli: Cli, tmp_path: Path) -> None:
    rows = some_rows(3)
    file = write(tmp_path, rows)
    first = tmp_path / "a"
    assert cli(file, "--output", first, "--workers", 0).status == 0
    assert cli(file, "--output", tmp_path / "b", "--workers", 2).status == 0
    assert cli(file, "--output", tmp_path / "c", "--seed", 1).status == 0
    write(tmp_path, rows[::-1], pictures=False)
    assert cli(file, "--output", tmp_path / "d", "--views", 2).status == 0

    def views(name: str) -> dict[str, bytes]:
        return {k: v for k, v in content(tmp_path / name).items() if k.endswith(".png")}

    assert views("a") == views("b")
    assert len(views("a")) == len(set(views("a").values())) == 6
    assert views("a").items() <= views("d").items()
    assert views("a").keys() == views("c").keys()
    assert not set(views("a").values()) & set(views("c").values())


def test_names_and_shapes_of_any_kind(cli: Cli, tmp_path: Path) -> None:
    sizes = [(1, 1), (1, 3000), (3000, 1), (223, 225)]
    names = [*(f"{number}.png" for number in range(len(sizes))), *ODD]
    file = write(tmp_path / "in", [(name, "1", "val") for name in names])
    for name, size in zip(names, sizes, strict=False):
        Image.new("L", size).save(tmp_path / "in" / name)
    assert cli(file, "--output", tmp_path / "out").status == 0
    assert len(datasets.open_path(tmp_path / "out/augmented.csv")) == len(names)
    views = [Image.open(tmp_path / "out" / name).size for name in pngs(tmp_path / "out")]
    assert views == [(224, 224)] * len(names)


# --- numbers and formats of one's own


def test_the_augmentation_has_numbers_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    file, out = write(tmp_path, [("d/a.png", "1", "val")]), tmp_path / "out"
    (tmp_path / "own.yaml").write_text("spai: {aug_flip: 1.0, aug_blur: 0.0}\n")
    use = (file, "--output", out, "--config", tmp_path / "own.yaml", "--set", "spai.aug_noise=1")
    assert cli(*use, "spai.aug_rotate=0.0").status == 0
    options = SpaiOptions(aug_flip=1.0, aug_blur=0.0, aug_noise=1.0, aug_rotate=0.0)
    rng = np.random.default_rng((0, 0, zlib.crc32(b"d/a.png")))
    [name] = pngs(out)
    with Image.open(out / name) as view:
        wanted = ViewsTransform(options).view(open_picture(tmp_path / "d/a.png"), rng)
        assert np.array_equal(view, wanted)
    assert "augmentation.aug_rotate" in cli(*use, "--resume").complaint
    for words, said in (("train.lr=1", "spai.aug_..."), ("spai.aug_blur=2", "spai.aug_blur")):
        assert said in cli(*use, words, "--overwrite").complaint


def mixed(root: Path) -> Path:
    """Real JPEGs and synthetic PNGs, WebPs and one that nobody writes, in folders."""
    names = ["real/0.JPG", "real/1.jpeg", "fake/0.png", "fake/x/0.webp", "fake/0.gif"]
    rows = [(name, str(int("fake" in name)), "val") for name in names] + [("t/0.png", "1", "test")]
    file = write(root, rows, pictures=False)
    for number, (name, *_) in enumerate(rows):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make_picture(number, fake=True, size=(90, 70)).save(root / name)
    return file


def test_names_and_formats_are_kept(cli: Cli, tmp_path: Path) -> None:
    """Which a line tells of; same seed, same files."""
    file, out = mixed(tmp_path / "in"), tmp_path / "out"
    use = (file, "--output", out, "--format", "original")
    done = cli(*use)
    assert done.status == 1  # of the GIF
    assert "real 2 JPEG; synthetic 1 PNG, 1 WEBP: " in done.err and "--format png" in done.err
    [bad] = table(out / "bad_files.csv")
    assert bad["key"] == "fake/0.gif" and "'.gif'" in bad["error"]
    images = [row["image"] for row in table(out / "augmented.csv")]
    kept = ["real/0.JPG", "real/1.jpeg", "fake/0.png", "fake/x/0.webp"]
    assert images == [*(f"out/{name}" for name in kept), "in/t/0.png"]
    for name, form in zip(kept, ("JPEG", "JPEG", "PNG", "WEBP"), strict=True):
        with Image.open(out / name) as view:
            assert (view.format, view.size) == (form, (224, 224))
    assert cli(file, "--output", tmp_path / "views", "--set", "data.decoding=upright").status == 0
    [name] = [n for n in pngs(tmp_path / "views") if n.startswith("fake_fake_0_")][:1]
    with Image.open(out / "fake/x/0.webp") as view, Image.open(out / "fake/0.png") as png:
        names = [n for n in pngs(tmp_path / "views") if n.startswith("fake_fake_x_0_")]
        assert np.array_equal(view, Image.open(tmp_path / "views" / names[0]))
        assert png.mode == "RGB"

    before = {name: (out / name).read_bytes() for name in kept}
    (out / "real/.0.JPG.123.part").write_bytes(b"half")
    (out / "fake/0.png").unlink()
    assert cli(*use, "--resume").status == 1
    assert {name: (out / name).read_bytes() for name in kept} == before
    assert not list(out.rglob("*.part"))
    assert cli(*use, "--overwrite").status == 1
    assert {name: (out / name).read_bytes() for name in kept} == before
    assert "format" in cli(file, "--output", out, "--resume").complaint


def test_pictures_are_never_taken_for_views_of_them(cli: Cli, tmp_path: Path) -> None:
    file = mixed(tmp_path / "in")
    mixed(tmp_path / "other")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    for output in ("in", "link", "other"):
        for more in ((), ("--overwrite",), ("--resume",)):
            use = ("--format", "original", *more)
            assert "fake/0.gif" in cli(file, "--output", tmp_path / output, *use).complaint
    outside = write(tmp_path / "list", [(f"{tmp_path}/in/fake/0.png", "1", "val")], pictures=False)
    use = (outside, "--output", tmp_path / "out", "--format", "original")
    assert "--csv_root" in cli(*use).complaint
    assert "--views" in cli(*use, "--views", 2).complaint
    after = {p: p.read_bytes() for p in before}
    assert after == before


# --- pictures that cannot be read


def test_unreadable_pictures_are_named_and_left_out(cli: Cli, tmp_path: Path) -> None:
    rows = [(name, "1", "val") for name in ("a.png", "two\nlines.png", "gone.png", "z.png")]
    file, out = write(tmp_path / "in", rows), tmp_path / "out"
    (tmp_path / "in/two\nlines.png").write_bytes(b"no picture")
    (tmp_path / "in/gone.png").unlink()
    done = cli(file, "--output", out, "--views", 2)
    assert (done.status, done.out) == (1, f"{out / 'augmented.csv'}\n")
    assert done.err == (
        f"augment_csv.py: val 0 real, 2 synthetic {DONE}\n"
        "augment_csv.py: 2 pictures could not be read: gone.png (no such file), "
        "two\\nlines.png (not a picture in any known format)\n"
    )
    assert [(row["key"], row["error"]) for row in table(out / "bad_files.csv")] == [
        ("gone.png", "no such file"), ("two\nlines.png", "not a picture in any known format")
    ]  # fmt: skip
    assert len(table(out / "augmented.csv")) == len(pngs(out)) == 4

    write(tmp_path / "in", rows)
    done = cli(file, "--output", out, "--views", 2, "--resume")
    assert (done.status, len(pngs(out))) == (0, 8)
    assert not (out / "bad_files.csv").exists()


def test_nothing_to_augment_is_no_result(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in", [("a.png", "1", "val")], pictures=False)
    complaint = cli(file, "--output", tmp_path / "out").complaint
    assert f"found none of 1: see {tmp_path / 'out/bad_files.csv'}" in complaint
    assert table(tmp_path / "out/bad_files.csv")[0]["error"] == "no such file"
    assert not (tmp_path / "out/augmented.csv").exists()


# --- interruptions


def interrupt(patch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Raises an error in place of the rename of a view after so many."""
    original, calls = files.replace_file, 0

    def counted(temporary: Path, final: Path) -> None:
        nonlocal calls
        calls += final.suffix == ".png"
        if calls > after:
            raise error
        original(temporary, final)

    patch.setattr(files, "replace_file", counted)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "augment_csv.py: interrupted"),
        (OSError(28, "No space left on device"), 2, "No space left on device: "),
    ],
)
def test_an_interrupted_run_goes_on(
    cli: Cli, tmp_path: Path, error: BaseException, status: int, said: str
) -> None:
    # Without rows of other splits the tables do not name their folders.
    file, out = write(tmp_path / "in", some_rows(4)[1:-1]), tmp_path / "out"
    assert cli(file, "--output", tmp_path / "whole").status == 0
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 3, error)
        done = cli(file, "--output", out)
    assert (done.status, done.out) == (status, "")
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert len(content(out)) == 3
    assert not list(out.glob(".*.part"))
    assert "add --resume" in cli(file, "--output", out).complaint

    before = {name: (out / name).stat().st_mtime_ns for name in pngs(out)}
    (out / f".{pngs(out)[0]}.123.part").write_bytes(b"half")
    assert cli(file, "--output", out, "--resume").status == 0
    assert content(out) == content(tmp_path / "whole")
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert not list(out.glob(".*.part"))


def test_another_run_is_not_gone_on_with(cli: Cli, tmp_path: Path) -> None:
    """But replaced when asked, all of it, and nothing else that is there."""
    file, out = write(tmp_path / "in", some_rows()), tmp_path / "out"
    out.mkdir()
    mine = ("mine.png", "real_life.png", "notes.csv")
    for name in mine:
        (out / name).write_text("mine")
    assert cli(file, "--output", out).status == 0
    write(tmp_path / "in", some_rows(2))
    for change in ((), ("--seed", 1), ("--views", 2), ("--split", "train")):
        before = content(out)
        complaint = cli(file, "--output", out, "--resume", *change).complaint
        assert complaint.startswith("augment_csv.py: --resume: the run in ")
        assert content(out) == before
        done = cli(file, "--output", out, "--overwrite", *change)
        assert done.status == 0, done.err
        views = {Path(row["image"]).name for row in table(out / "augmented.csv")}
        assert set(pngs(out)) <= views | set(mine)  # none of the earlier run's is left
    assert {(out / name).read_text() for name in mine} == {"mine"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on(cli: Cli, tmp_path: Path, number: signal.Signals) -> None:
    file, out = write(tmp_path / "in", some_rows(100)[1:-1]), tmp_path / "out"
    program = [sys.executable, str(ROOT / "scripts/augment_csv.py")]
    command = [*program, str(file), "--output", str(out), "--workers", "2"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out.is_dir() and len(pngs(out)) > 5):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    err = child.communicate(timeout=60)[1]
    assert child.returncode == (130 if number == signal.SIGINT else -number)
    assert err.strip() == ("augment_csv.py: interrupted" if number == signal.SIGINT else "")
    assert cli(file, "--output", out, "--resume").status == 0
    assert cli(file, "--output", tmp_path / "whole").status == 0
    assert content(out) == content(tmp_path / "whole")


# --- what is refused


def test_wrong_flags_are_named(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in", some_rows(1), pictures=False)
    for flags in (
        ("--views", 0), ("--views", 101), ("--seed", -1), ("--workers", -1), ("--split", " "),
        ("--split", "heldout"), ("--csv_root", "/no/where"), ("--resume", "--overwrite"),
    ):  # fmt: skip
        complaint = cli(file, "--output", tmp_path / "out", *flags).complaint
        assert str(flags[0]).strip("-") in complaint and str(flags[1]).strip() in complaint
        assert not (tmp_path / "out").exists()


def test_wrong_tables_are_refused(cli: Cli, tmp_path: Path) -> None:
    for text, message in (
        ("", "found an empty file"),
        ("image,class\na.png,1\n", "a column split; found image, class"),
        ("image,split\na.png,val\n", "a column class; found image, split"),
        ("image,class,split\na.png,2,val\n", "found '2' at 'a.png'"),
        ("image,class,split\na.png,,val\n", "a class for every picture"),
        ("image,class,split\na.png,1,val\n/../a.png,1,train\n", "found '/../a.png'"),
        ("image,class,split\na.png,1,val\na.png,1,val\n", "found 'a.png' twice"),
    ):
        (tmp_path / "set.csv").write_text(text)
        assert message in cli(tmp_path / "set.csv", "--output", tmp_path / "out").complaint
        assert not (tmp_path / "out").exists()


def test_pictures_are_not_written_beside_their_originals(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in", some_rows())
    for folder in ("in/0", "in/train"):
        assert "expected another folder than" in cli(file, "--output", tmp_path / folder).complaint
    (tmp_path / "link").symlink_to(tmp_path / "in/1")
    assert "expected another folder" in cli(file, "--output", tmp_path / "link").complaint
    out = tmp_path / "in/out"
    assert cli(file, "--output", out).status == 0
    again = cli(
        out / "augmented.csv", "--csv_root", tmp_path / "in", "--output", out, "--overwrite"
    )
    assert "expected another folder" in again.complaint
    assert len(pngs(out)) == 6


def test_folders_that_a_csv_cannot_name(cli: Cli, tmp_path: Path) -> None:
    file = write(tmp_path / "in", some_rows())
    for name in ("in/a\\b", os.fsdecode(b"in/a\xff")):
        complaint = cli(file, "--output", tmp_path / name).complaint
        assert "expected a path in UTF-8 without backslashes" in complaint
        assert not (tmp_path / name).exists()
    assert cli(file, "--output", tmp_path / "in/set.csv").complaint.endswith("found a file")
    assert "expected a CSV file" in cli(tmp_path, "--output", tmp_path / "x").complaint
