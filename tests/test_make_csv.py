"""CSV files made of folders: what they name, what they leave out, and what is refused."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from cli_runner import Cli, script

import datasets
from datasets import Label
from datasets._published_lists import published_rows
from scripts import make_csv

NAMED = "image name (matching Raise-1k)"
ODD = ["ünï中.png", "a, b.png", 'say "x".png', "two\nlines.png", "cr\rhere.png", " space .png"]
LDM = [f"latent_diffusion_{name}" for name in ("a", "b", "c", "d", "e", "f", "g")]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "make_csv.py: ", make_csv.main)


def put(folder: Path, *names: str) -> None:
    """Files with the names of pictures: no more than names and sizes is looked at."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def images(file: Path) -> list[str]:
    return [row["image"] for row in table(file)]


# --- any folder


def test_a_labelled_folder(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "set", "real/b.jpg", "real/a.png", "fake/gan/c.png", "notes.txt", "fake/d.webp")
    done = cli("folder", tmp_path / "set", "--output", tmp_path / "set.csv")
    assert (done.status, done.out) == (0, f"{tmp_path / 'set.csv'}\n")
    assert done.err == "make_csv.py: set.csv: test 2 real, 2 synthetic\n"
    assert (tmp_path / "set.csv").read_bytes().decode() == (
        "image,class,split,generator\n"
        "set/fake/d.webp,1,test,fake\n"
        "set/fake/gan/c.png,1,test,gan\n"
        "set/real/a.png,0,test,\n"
        "set/real/b.jpg,0,test,\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.csv"]


def test_the_csv_has_the_records_of_its_folder(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "set"
    put(root, *(f"{s}/{g}/{c}/{n}.png" for s in ("train", "val") for g in ("gan", "ldm")
                for c in ("0_real", "1_fake") for n in range(3)))  # fmt: skip
    assert cli("folder", root, "--output", tmp_path / "set.csv").status == 0
    for split in ("train", "val"):
        wanted = datasets.open_path(root, split)
        found = datasets.open_path(tmp_path / "set.csv", split)
        assert [(r.path, r.label, r.source, r.generator) for r in found] == [
            (r.path, r.label, r.source, r.generator) for r in wanted
        ]


def test_names_of_any_letters_come_back(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "set/fake", *ODD)
    put(tmp_path / "set/real", "plain.png")
    assert cli("folder", tmp_path / "set", "--output", tmp_path / "set.csv").status == 0
    found = datasets.open_path(tmp_path / "set.csv")
    assert {r.path.name for r in found if r.label == Label.FAKE} == set(ODD)
    assert all(r.path.is_file() for r in found)
    assert [r.key for r in found] == images(tmp_path / "set.csv")


def test_a_folder_without_labels_is_given_one(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "set", "a.png", "sub/b.jpg")
    assert "fake/<generator>" in cli("folder", tmp_path / "set", "--output", "x.csv").complaint
    flags = ("folder", tmp_path / "set", "--output", tmp_path / "set.csv", "--overwrite")
    for more, expected in (
        (("fake", "--generator", "mj"), ("1", "mj", "test")),
        (("fake",), ("1", "", "test")),
        (("real", "--split", "held out"), ("0", "", "held out")),
    ):
        assert cli(*flags, "--label", *more).status == 0
        rows = table(tmp_path / "set.csv")
        assert [(r["class"], r.get("generator", ""), r["split"]) for r in rows] == [expected] * 2


def test_a_part_is_drawn_for_validation(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "set", *(f"{g}/{n:02}.png" for g in ("real", "fake/a") for n in range(40)))
    put(tmp_path / "set", "fake/b/0.png", "fake/b/1.png", "fake/c/0.png")

    def drawn(*more: object) -> str:
        out = tmp_path / "set.csv"
        done = cli("folder", tmp_path / "set", "--output", out, "--overwrite",
                   "--val_fraction", 0.1, *more)  # fmt: skip
        assert done.status == 0, done.err
        counts = Counter((row["class"], row["generator"], row["split"]) for row in table(out))
        assert counts == {
            ("0", "", "train"): 36, ("0", "", "val"): 4,
            ("1", "a", "train"): 36, ("1", "a", "val"): 4,
            ("1", "b", "train"): 1, ("1", "b", "val"): 1, ("1", "c", "train"): 1,
        }  # fmt: skip
        return out.read_text()

    assert drawn() == drawn("--seed", 0)
    assert len({drawn("--seed", seed) for seed in range(4)}) == 4


def test_splits_are_folders_or_none(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "set", "train/real/a.png", "fake/b.png")
    out = tmp_path / "set.csv"
    assert "--val_fraction" in cli("folder", tmp_path / "set", "--output", out).complaint
    assert cli("folder", tmp_path / "set", "--output", out, "--split", "val").status == 0
    assert {row["split"] for row in table(out)} == {"val"}


def test_paths_start_inside_the_folder_that_is_named(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "pictures/real", "a.png")
    out = tmp_path / "lists/deep/set.csv"
    refused = cli("folder", tmp_path / "pictures", "--output", out).complaint
    assert "--relative_to" in refused
    assert not out.parent.exists()
    done = cli("folder", tmp_path / "pictures", "--output", out, "--relative_to", tmp_path)
    assert done.status == 0
    assert images(out) == ["pictures/real/a.png"]
    found = datasets.open_path(out, csv_root=tmp_path)
    assert [record.path.is_file() for record in found] == [True]


def test_folders_behind_links_and_dots(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "set/real", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    (tmp_path / "set/real/b.png").symlink_to(tmp_path / "set/real/a.png")
    monkeypatch.chdir(tmp_path / "set/real")
    assert cli("folder", "../../link", "--output", "../../link/../set.csv").status == 0
    assert images(tmp_path / "set.csv") == ["set/real/a.png", "set/real/b.png"]
    assert cli("folder", "..", "--output", "../set.csv").status == 0
    assert images(tmp_path / "set/set.csv") == ["real/a.png", "real/b.png"]


def test_what_cannot_be_a_row_is_left_out_and_named(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "set/fake"
    put(root, "fine.png", "back\\slash.png", os.fsdecode(b"latin-\xe9.png"))
    (root / "empty.png").touch()
    (root / "gone.png").symlink_to(root / "nowhere.png")
    done = cli("folder", tmp_path / "set", "--output", tmp_path / "set.csv")
    assert done.status == 1
    assert images(tmp_path / "set.csv") == ["set/fake/fine.png"]
    assert "4 pictures left out: " in done.err
    for said in (
        "set/fake/back\\slash.png (a backslash in its name)", "set/fake/empty.png (no bytes)",
        "set/fake/gone.png (no such file)", "set/fake/latin-\\udce9.png (a name that is not UTF-8)",
    ):  # fmt: skip
        assert said in done.err
    for number in range(12):
        (root / f"{number:04}.png").touch()
    flags = ("folder", tmp_path / "set", "--output", tmp_path / "set.csv", "--overwrite")
    err = cli(*flags).err
    assert "16 pictures left out: set/fake/0000.png (no bytes), " in err
    assert err.endswith(" and 8 more\n")
    (root / "fine.png").unlink()
    assert "all 16 are left out" in cli(*flags).complaint


def test_files_are_replaced_only_when_asked(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "set/real", "a.png")
    out = tmp_path / "set.csv"
    out.write_text("mine")
    assert "--overwrite" in cli("folder", tmp_path / "set", "--output", out).complaint
    assert out.read_text() == "mine"
    assert cli("folder", tmp_path / "set", "--output", out, "--overwrite").status == 0
    assert images(out) == ["set/real/a.png"]


def test_wrong_flags_are_named_in_a_line(cli: Cli) -> None:
    for flags, named in (
        ("--output set.txt", "--output"),
        ("--output set.csv --split a --val_fraction 0.1", "--split"),
        ("--output set.csv --val_fraction 1", "--val_fraction"),
        ("--output set.csv --val_fraction nan", "--val_fraction"),
        ("--output set.csv --seed 1", "--val_fraction"),
        ("--output set.csv --seed -1 --val_fraction 0.1", "--seed"),
        ("--output set.csv --label real --generator x", "--generator"),
        ("--output set.csv --split", "--split"),
        ("--output set.csv --generator a\x01b", "--generator"),
        ("--output set.csv --relative_to nowhere", "--relative_to"),
        ("", "--output"),
    ):
        done = cli("folder", "set", *flags.split())
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert named in done.err and done.err.startswith("make_csv.py")


def test_folders_that_are_none(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "nowhere", tmp_path / "empty"):
        assert str(folder) in cli("folder", folder, "--output", tmp_path / "x.csv").complaint
    assert not (tmp_path / "x.csv").exists()


# --- the latent diffusion training set


def write_ldm(root: Path, val: str = "val", fakes: int = 4, coco: int = 30, lsun: int = 5) -> Path:
    """The set with `fakes` pictures of each folder and split, and as many reals as stated."""
    for number, split in enumerate(("train", val)):
        folder = root / "latent_diffusion_trainingset" / split
        put(folder, *(f"{name}/{n}.png" for name in LDM for n in range(fakes)))
        put(folder, "real_coco/copy.png")
        names = [f"{100 * number + n:012}.jpg" for n in reversed(range(coco))]
        put(root / "COCO/train2017", *names)
        (folder / "real_coco.txt").write_text("\n".join([*names, names[0], ""]))
        places = [("cat", f"{number}_{n:05}.png") for n in range(lsun)]
        put(root / "progan/train", *(f"{kind}/0_real/{name}" for kind, name in places))
        (folder / "real_lsun.txt").write_text("".join(f"{k}_{n}\r\n" for k, n in places))
    return root


@pytest.mark.parametrize("val", ["val", "valid"])
@pytest.mark.parametrize(("coco", "lsun"), [("COCO", "progan"), ("COCO/train2017", "progan/train")])
def test_ldm_with_and_without_lsun(
    cli: Cli, tmp_path: Path, val: str, coco: str, lsun: str
) -> None:
    root = write_ldm(tmp_path, val)
    flags = ("--coco", root / coco, "--output", tmp_path)
    with_lsun = cli("ldm", root, *flags, "--lsun", root / lsun)
    assert with_lsun.status == 0, with_lsun.err
    inside = cli("ldm", root / "latent_diffusion_trainingset", *flags)
    assert inside.status == 0, inside.err
    whole, part = table(tmp_path / "ldm_train_val.csv"), table(tmp_path / "ldm_coco_train_val.csv")
    assert part == [row for row in whole if row["source"] != "lsun"]
    expected = {("0", "", "lsun"): 5, ("0", "", "coco"): 30} | {("1", n, ""): 4 for n in LDM}
    for split in ("train", "val"):
        rows = [row for row in whole if row["split"] == split]
        assert Counter((r["class"], r["generator"], r["source"]) for r in rows) == expected
    assert "train 35 real, 28 synthetic; val 35 real, 28 synthetic" in with_lsun.err
    records = datasets.open_path(tmp_path / "ldm_train_val.csv")
    assert all(record.path.is_file() for record in records)
    assert [row["image"] for row in whole] == sorted(row["image"] for row in whole)


def write_listed(root: Path, monkeypatch: pytest.MonkeyPatch, valid: str = "valid") -> list[str]:
    """The first two pictures of each class and split of the study's list, which is cut to them."""
    seen: Counter[tuple[str, str]] = Counter()
    chosen = []
    for image, value, split in published_rows("study_reduced"):
        seen[value, split] += 1
        if seen[value, split] <= 2:
            chosen.append((image, value, split))
            put(root, image.replace("/valid/", f"/{valid}/"))
    monkeypatch.setattr(make_csv, "published_rows", lambda name: chosen)
    return [image.replace("/valid/", f"/{valid}/") for image, _, _ in chosen]


def test_the_reduced_set_is_the_studys() -> None:
    counts = Counter((value, split) for _, value, split in published_rows("study_reduced"))
    assert counts == {(v, "train"): 16_198 for v in "01"} | {(v, "val"): 1_799 for v in "01"}


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_the_reduced_set_takes_just_the_listed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid: str
) -> None:
    listed = write_listed(tmp_path, monkeypatch, valid)
    put(tmp_path, "COCO/train2017/other.jpg")
    done = cli("ldm", tmp_path, "--coco", tmp_path / "COCO", "--output", tmp_path,
               "--reduced", "study")  # fmt: skip
    assert done.status == 0, done.err
    rows = table(tmp_path / "ldm_reduced_train_val.csv")
    assert [row["image"] for row in rows] == sorted(listed)
    kinds = [("0", "train", "coco"), ("0", "val", "coco"), ("1", "train", ""), ("1", "val", "")]
    counts = Counter((row["class"], row["split"], row["source"]) for row in rows)
    assert counts == dict.fromkeys(kinds, 2)


def test_a_listed_picture_that_is_missing_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = write_listed(tmp_path, monkeypatch)[0]
    (tmp_path / gone).unlink()
    done = cli("ldm", tmp_path, "--coco", tmp_path / "COCO", "--output", tmp_path,
               "--reduced", "study")  # fmt: skip
    assert "expected the 8 listed pictures; found 1 missing" in done.complaint
    assert gone in done.complaint and not list(tmp_path.glob("*.csv"))


def break_ldm(root: Path, what: str) -> None:
    folder = root / "latent_diffusion_trainingset"
    if what == "a folder":
        (folder / "val" / LDM[6]).rename(folder / "gone")
    elif what == "a picture":
        (root / "COCO/train2017/000000000003.jpg").unlink()
    elif what == "a list":
        (folder / "val/real_coco.txt").unlink()
    elif what == "no val":
        (folder / "val").rename(folder / "test")
    elif what == "shared":
        (folder / "val/real_coco.txt").write_text("000000000003.jpg\n")
    else:
        (folder / "train/real_coco.txt").write_text(what)


def test_a_set_that_is_not_whole_is_refused(cli: Cli, tmp_path: Path) -> None:
    for number, (what, message) in enumerate((
        ("a folder", "expected 7 folders of synthetic pictures in val/; found 6: latent_"),
        ("a picture", "train, coco: expected the 30 listed pictures; found 1 missing, first "
         "'COCO/train2017/000000000003.jpg'"),
        ("a list", "real_coco.txt"),
        ("no val", "found test, train"),
        ("shared", "listed for both, first 'COCO/train2017/000000000003.jpg'"),
        ("../../x.jpg\n", "found '../../x.jpg'"),
        ("/etc/x.jpg\n", "found '/etc/x.jpg'"),
        ("no picture\n", "expected the pictures that"),
        ("\n", "found no real pictures"),
    )):  # fmt: skip
        root = write_ldm(tmp_path / f"{number}", fakes=1)
        break_ldm(root, what)
        assert message in cli("ldm", root, "--coco", root / "COCO", "--output", root).complaint
        assert not list(root.glob("*.csv*"))


def test_the_wrong_folder_is_told_what_was_expected(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path, "pictures/a.png")
    flags = ("ldm", tmp_path, "--coco", tmp_path, "--output", tmp_path)
    assert "expected latent_diffusion_trainingset/" in cli(*flags).complaint
    assert "--lsun" in cli(*flags, "--reduced", "study", "--lsun", tmp_path).err


# --- Synthbuster


@pytest.mark.parametrize("nested", ["", "synthbuster"])
def test_synthbuster_has_a_file_per_source(cli: Cli, tmp_path: Path, nested: str) -> None:
    for name in make_csv.SYNTHBUSTER:
        put(tmp_path / "sb" / nested / name, "b.png", "a.png")
    put(tmp_path / "sb" / nested, "prompts.csv")
    put(tmp_path / "RAISE", "r1.tif")
    put(tmp_path / "own", "deep/o.jpg")
    done = cli("synthbuster", tmp_path / "sb", "--output", tmp_path, "--reals",
               f"raise={tmp_path / 'RAISE'}", f"own={tmp_path / 'own'}")  # fmt: skip
    assert done.status == 0, done.err
    fakes = ["dalle2", "dalle3", "firefly", "glide", "mjv5", "sd13", "sd14", "sd2", "sdxl"]
    written = sorted(path.stem for path in tmp_path.glob("*.csv"))
    assert written == sorted([*(f"fake_{name}" for name in fakes), "real_own", "real_raise"])
    assert sorted(Path(line).stem for line in done.out.splitlines()) == written
    found = datasets.load("spai").records(tmp_path)
    assert {r.generator for r in found if r.label == Label.FAKE} == set(fakes)
    assert {r.source for r in found if r.label == Label.REAL} == {"own", "raise"}
    assert all(r.path.is_file() for r in found)
    below = "/".join(filter(None, ("sb", nested, "stable-diffusion-xl")))
    assert (tmp_path / "fake_sdxl.csv").read_text() == (
        f"image,class,split\n{below}/a.png,1,test\n{below}/b.png,1,test\n"
    )
    assert (tmp_path / "real_own.csv").read_text() == "image,class,split\nown/deep/o.jpg,0,test\n"


def write_synthbuster(root: Path, *names: str, column: str = NAMED) -> None:
    """Synthbuster with prompts for pictures of these names, and RAISE with one picture more."""
    for folder in make_csv.SYNTHBUSTER:
        put(root / "sb" / folder, *(f"{name}.png" for name in names))
    rows = [[name, 'a house, in a "wood"\nby night', "3:2"] for name in names]
    with (root / "sb/prompts.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([[column, "Prompt", "Midjourney aspect ratio"], *rows])
    put(root / "RAISE", "tiff/r9t.tif")


def test_reals_of_raise_are_those_of_the_prompts(cli: Cli, tmp_path: Path) -> None:
    write_synthbuster(tmp_path, "r2t", "r1t", "r3t", "", "r1t")
    put(tmp_path / "RAISE", "tiff/r1t.TIF", "r2t.tiff", "tiff/r3t.tif", "nef/r1t.jpg")
    flags = ("synthbuster", tmp_path / "sb", "--output", tmp_path, "--raise", tmp_path / "RAISE")
    done = cli(*flags)
    assert done.status == 0, done.err
    assert (tmp_path / "real_raise.csv").read_text() == (
        "image,class,split\n"
        "RAISE/r2t.tiff,0,test\nRAISE/tiff/r1t.TIF,0,test\nRAISE/tiff/r3t.tif,0,test\n"
    )
    assert len(list(tmp_path.glob("fake_*.csv"))) == 9
    (tmp_path / "RAISE/tiff/r3t.tif").unlink()
    done = cli(*flags, "--overwrite")
    assert done.status == 1
    assert "1 pictures left out: RAISE/r3t.tif (no such file)" in done.err
    assert images(tmp_path / "real_raise.csv") == ["RAISE/r2t.tiff", "RAISE/tiff/r1t.TIF"]


def test_raise_as_it_is_beside_its_pairs(cli: Cli, tmp_path: Path) -> None:
    """--reals takes all of a folder, even of the same one."""
    write_synthbuster(tmp_path, "r1t")
    put(tmp_path / "RAISE", "r1t.tif")
    folder = tmp_path / "RAISE"
    flags = ("synthbuster", tmp_path / "sb", "--output", tmp_path, "--raise", folder)
    assert cli(*flags, "--reals", f"all={folder}").status == 0
    assert images(tmp_path / "real_raise.csv") == ["RAISE/r1t.tif"]
    assert images(tmp_path / "real_all.csv") == ["RAISE/r1t.tif", "RAISE/tiff/r9t.tif"]
    assert "found raise twice" in cli(*flags, "--reals", f"raise={folder}").complaint


def test_prompts_that_name_no_picture_are_refused(cli: Cli, tmp_path: Path) -> None:
    for names, column, message in (
        (["r1t"], NAMED, "RAISE: expected the TIFFs of RAISE-1k that "),
        (["r9t"], "name", f"prompts.csv: expected a column '{NAMED}'; found name, Prompt"),
        ([""], NAMED, f"prompts.csv: expected names in the column '{NAMED}'; found none"),
        (["../r9t"], NAMED, "found '../r9t'"),
        (["tiff/r9t"], NAMED, "expected names of pictures; found 'tiff/r9t'"),
    ):
        write_synthbuster(tmp_path, "a")
        write_synthbuster(tmp_path, *names, column=column)
        flags = ("synthbuster", tmp_path / "sb", "--output", tmp_path)
        assert message in cli(*flags, "--raise", tmp_path / "RAISE").complaint
        assert not list(tmp_path.glob("*.csv"))


def test_raise_needs_its_prompts_and_each_picture_once(cli: Cli, tmp_path: Path) -> None:
    write_synthbuster(tmp_path, "r9t")
    put(tmp_path / "RAISE", "again/R9T.TIFF")
    flags = ("synthbuster", tmp_path / "sb", "--output", tmp_path, "--raise", tmp_path / "RAISE")
    assert "expected one r9t; found " in cli(*flags).complaint
    (tmp_path / "sb/prompts.csv").write_bytes(b"\xff")
    assert "expected a CSV file in UTF-8" in cli(*flags).complaint
    (tmp_path / "sb/prompts.csv").unlink()
    assert "prompts.csv: expected Synthbuster's list of prompts" in cli(*flags).complaint
    assert "expected a folder" in cli(*flags[:-1], tmp_path / "none").complaint
    assert not list(tmp_path.glob("*.csv"))


def test_synthbuster_that_lacks_something_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    for name in make_csv.SYNTHBUSTER:
        put(tmp_path / "sb" / name, "a.png")
    flags = ("synthbuster", tmp_path / "sb", "--output", tmp_path)
    assert "expected a folder" in cli(*flags, "--reals", f"x={tmp_path / 'none'}").complaint
    assert (cli(*flags, "--reals", "x").status, cli(*flags, "--reals", "a/b=c").status) == (2, 2)
    twice = cli(*flags, "--reals", f"x={tmp_path}", f"x={tmp_path}")
    assert "each name once" in twice.complaint
    (tmp_path / "fake_sd2.csv").write_text("mine")
    assert "fake_sd2.csv: already there" in cli(*flags).complaint
    (tmp_path / "fake_sd2.csv").unlink()
    (tmp_path / "sb/glide/a.png").write_bytes(b"")
    assert "expected pictures" in cli(*flags).complaint
    (tmp_path / "sb/glide").rename(tmp_path / "sb/Glide2")
    complaint = cli(*flags).complaint
    assert "stable-diffusion-xl" in complaint
    assert "found Glide2, dalle2" in complaint
    assert not list(tmp_path.glob("*.csv*"))
