"""The families that are lists of pictures: Fake2M and MPBench, SPAI's CSV files, the LDM set."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from trees import LDM_FOLDERS, Tree, described, found, write_tree, wrong

import datasets
from datasets import Label, LayoutError
from datasets import spai as spai_family

REAL, FAKE = Label.REAL, Label.FAKE
IF = "ImageData/val/IF-CC95K/IF-ddim-25-15K"


# --- Fake2M, MPBench


def mpbench(tmp_path: Path, *lines: str, encoding: str = "utf-8") -> Tree:
    """A miniature whose list of IF-CC95K has these lines."""
    tree = write_tree("mpbench", tmp_path)
    file = tree.root / "MetaData" / "val" / "IF-CC95K.csv"
    file.write_text("\n".join(lines) + "\n", encoding=encoding)
    return tree


def of_if(tree: Tree) -> dict[str, tuple[Label | None, str, str]]:
    rows = described(found("mpbench", tree))
    return {key: row for key, row in rows.items() if "IF-CC95K" in key}


def test_label_0_of_the_lists_is_synthetic(tmp_path: Path) -> None:
    tree = mpbench(tmp_path, f"{IF}/00000.png 0", f"{IF}/real one.png 1", "")
    assert of_if(tree) == {
        f"{IF}/00000.png": (FAKE, "", "IF-ddim-25-15K"),
        f"{IF}/real one.png": (REAL, "", ""),
    }


@pytest.mark.parametrize("start", ["ImageData/val/IF-CC95K/", "val/IF-CC95K/", "IF-CC95K/", ""])
@pytest.mark.parametrize("first", ["00000.png", "missing.png"])
def test_paths_may_start_from_any_folder(tmp_path: Path, start: str, first: str) -> None:
    names = (first, "lost/at sea.png")
    lines = [f"./{start}IF-ddim-25-15K/{name} 0" for name in names]
    tree = mpbench(tmp_path, "\ufeff" + lines[0], "", lines[1] + " \r")
    assert set(of_if(tree)) == {f"{IF}/{name}" for name in names}


def test_a_list_is_matched_by_its_paths_and_not_by_its_name(tmp_path: Path) -> None:
    tree = write_tree("mpbench", tmp_path)
    folder = tree.root / "MetaData" / "val"
    (folder / "IF-CC95K.csv").rename(folder / "._swap")
    (folder / "cogview2-22K.csv").rename(folder / "IF-CC95K.csv")
    (folder / "._swap").rename(folder / "cogview2-22K.CSV")
    (folder / "._cogview2-22K.csv").write_bytes(b"\x00\x05\x16\x07")  # of a Mac's archive
    assert described(found("mpbench", tree)) == tree.pictures


@pytest.mark.parametrize(
    "line",
    [
        "path label", f"{IF}/a.png", f"{IF}/a.png,0", f"{IF}/a.png 2", "0", f"{IF}/ 0",
        "../a.png 0", f"{IF}/../../../a.png 0", "/etc/a.png 0", "..\\a.png 0", "ImageData/a.png 0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 30])
def test_wrong_lines_are_told(tmp_path: Path, line: str, place: int) -> None:
    lines = [f"{IF}/{number}.png 0" for number in range(40)]
    lines.insert(place, line)
    message = wrong("mpbench", mpbench(tmp_path, *lines))
    assert "IF-CC95K.csv" in message and "expected" in message
    assert repr(line) in message or repr(line.removesuffix(" 0")) in message


def test_a_list_in_another_encoding_is_told(tmp_path: Path) -> None:
    tree = mpbench(tmp_path, f"{IF}/é.png 0", encoding="latin-1")
    assert "IF-CC95K.csv: expected a list in UTF-8" in wrong("mpbench", tree)


def test_lists_of_what_is_not_there_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = write_tree("mpbench", tmp_path)
    list_80k = tree.root / "MetaData" / "val" / "stylegan3-80K.csv"
    list_80k.write_text("train/stylegan3-80K/stylegan3-r-afhqv2-512x512/0.png 0\n")
    assert described(found("mpbench", tree)) == tree.pictures
    assert f"{list_80k}: left out, its pictures are not in" in caplog.text
    for file in list_80k.parent.iterdir():
        file.write_text("somewhere/else/0.png 0\n")
    message = wrong("mpbench", tree)
    assert "the pictures of no list there: IF-CC95K.csv, " in message
    assert "paths that start from" in message


def test_sets_without_a_list_are_all_synthetic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = write_tree("mpbench", tmp_path)
    (tree.root / "MetaData" / "val" / "IF-CC95K.csv").unlink()
    assert described(found("mpbench", tree)) == tree.pictures
    assert "IF-CC95K: in no list; all its pictures are taken as synthetic" in caplog.text


def test_lists_may_overlap_but_not_contradict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = f"{IF}/00000.png"
    tree = mpbench(tmp_path, f"{line} 0", f"{IF}/./00000.png 0")
    assert set(of_if(tree)) == {line}
    assert "1 pictures are listed twice" in caplog.text
    tree = mpbench(tmp_path / "2", f"{line} 0", f"{line} 1")
    assert f"expected one label for each picture; found both at '{line}'" in wrong("mpbench", tree)


def test_reals_are_the_users(tmp_path: Path) -> None:
    tree = write_tree("mpbench", tmp_path)
    tree.locations = {}
    assert {r.label for r in found("mpbench", tree)} == {FAKE}
    for named in ("/data/cc3m", "=x", "cc3m=", "a/b=x", "a=x,a=y", "a=x,,b=y", "ImageData=x"):
        message = wrong("mpbench", tree, locations={"reals": named})
        assert "data.reals: expected NAME=PATH,NAME=PATH" in message and repr(named) in message
    message = wrong("mpbench", tree, locations={"reals": f"cc3m={tmp_path / 'nowhere'}"})
    assert "real pictures of cc3m" in message and "nowhere" in message


# --- SPAI


def spai(tmp_path: Path, name: str, *lines: str) -> Tree:
    """A miniature with one more CSV."""
    tree = write_tree("spai", tmp_path)
    (tree.root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tree


def test_spai_takes_other_names_where_their_kind_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = spai(tmp_path, "fake_my_own.csv", "image", "a b.png")
    (tree.root / "scores.csv").write_text("x")
    rows = described(found("spai", tree))
    assert rows == tree.pictures | {"fake_my_own/a b.png": (FAKE, "", "my_own")}
    assert "scores.csv: neither fake_… nor real_…" in caplog.text


@pytest.mark.parametrize(
    ("name", "lines", "expected"),
    [
        ("real_x.csv", ["image,class", "a.png,1"], "expected class 0, as its name says; found '1'"),
        ("fake_x.csv", ["image,class", "a.png,0"], "expected class 1, as its name says; found '0'"),
        ("fake_x.csv", ["image,class", "a.png,fake"], "found 'fake' at 'a.png'"),
        ("fake_x.csv", ["image", "../a.png"], "expected paths that stay inside"),
        ("fake_x.csv", ["image", "a.png", "./a.png"], "'fake_x/a.png' twice"),
        ("fake_x.csv", ["path,class", "a.png,1"], "expected the column image"),
        ("sd14.csv", ["image", "a.png"], "expected one CSV for sd14; found fake_sd14.csv and sd14"),
    ],
)
def test_spai_tells_what_is_wrong(
    tmp_path: Path, name: str, lines: list[str], expected: str
) -> None:
    message = wrong("spai", spai(tmp_path, name, *lines))
    assert name.removesuffix(".csv") in message and expected in message


def test_spai_takes_the_published_pictures_from_its_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("fake_flux", "real_coco", "real_raise")
    listed = {key for name in kept for key in spai_family.listed_keys()[name]}
    first = sorted(listed)[0]
    for key in listed - {first}:
        path = tmp_path / key.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "flux" / "not listed.png").touch()
    rows = spai_family.records(tmp_path, None)
    assert {record.key for record in rows} == listed - {first}
    assert {r.source for r in rows} == {"", "coco", "raise"}
    assert "fake_flux: 1 of its 1000 published pictures are missing" in caplog.text
    assert "fake_mjv61: 638 of its 638" in caplog.text
    some = spai_family.records(tmp_path, "test", sources=["raise"])
    assert {record.source for record in some} == {"", "raise"}
    with pytest.raises(LayoutError, match="expected the split test; found 'train'"):
        spai_family.records(tmp_path, "train")


def test_spai_wants_a_split_column_for_a_split(tmp_path: Path) -> None:
    tree = spai(tmp_path, "fake_x.csv", "image,class", "a.png,1")
    assert "expected a column split; found image, class" in wrong("spai", tree, "test")


@pytest.mark.parametrize(("kind", "what"), [("real", "real"), ("fake", "synthetic")])
def test_spai_wants_both_kinds(tmp_path: Path, kind: str, what: str) -> None:
    tree = write_tree("spai", tmp_path)
    for file in tree.root.glob(f"{kind}_*.csv"):
        file.unlink()
    assert f"no {what} pictures" in wrong("spai", tree)


# --- the latent diffusion training set


def test_ldm_without_lsun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = write_tree("ldm", tmp_path)
    del tree.locations["lsun"]
    rows = described(found("ldm", tree))
    assert rows == {k: row for k, row in tree.pictures.items() if not k.startswith("lsun/")}
    assert "without data.lsun, its real pictures are left out" in caplog.text
    message = wrong("ldm", tree, locations={})
    assert "neither data.coco nor data.lsun" in message and "real_coco.txt" in message


def test_ldm_lists_what_is_missing_but_wants_something(tmp_path: Path) -> None:
    tree = write_tree("ldm", tmp_path)
    for key in sorted(tree.splits["train"]):
        if key.startswith("coco/") and "v2" in key:
            tree.files[key].unlink()
    assert described(found("ldm", tree)) == tree.pictures
    message = wrong("ldm", tree, locations={"coco": str(tmp_path / "nowhere")})
    assert "nowhere: expected the pictures that" in message and "real_coco.txt lists" in message


def test_ldm_leaves_copies_of_the_reals_out(tmp_path: Path) -> None:
    tree = write_tree("ldm", tmp_path)
    train = tree.root / "latent_diffusion_trainingset" / "train"
    shutil.copytree(train / LDM_FOLDERS[0], train / "real_coco")
    assert described(found("ldm", tree)) == tree.pictures


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("real_coco.txt", "../x.jpg\n", "expected paths that stay inside the data"),
        ("real_lsun.txt", "cat_/etc/x.jpg\n../a_b.jpg\n", "expected paths that stay inside"),
        ("real_coco.txt", "train00000.jpg\n" * 2 + "valx.jpg\n", ""),
        ("real_coco.txt", "val00000.jpg\n", "'coco/val00000.jpg' twice"),
        ("real_coco.txt", "x" * 300 + ".jpg\n", "expected the pictures that"),
        ("real_lsun.txt", None, "no list real_lsun.txt: No such file"),
        ("real_lsun.txt", b"\xff\xfe\n", "no list real_lsun.txt: it is not UTF-8"),
    ],
)
def test_ldm_lists(tmp_path: Path, name: str, text: str | bytes | None, expected: str) -> None:
    tree = write_tree("ldm", tmp_path)
    file = tree.root / "latent_diffusion_trainingset" / "train" / name
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    if expected:
        assert expected in wrong("ldm", tree)
    else:
        coco = [r.key for r in found("ldm", tree, "train") if r.key.startswith("coco/")]
        assert coco == ["coco/train00000.jpg", "coco/valx.jpg"]


# --- in the wild


def test_in_the_wild_says_what_it_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = write_tree("in_the_wild", tmp_path)
    (tree.root / "Flux\nand more").mkdir()
    assert described(found("in_the_wild", tree)) == tree.pictures
    assert "expected one of Civitai, DALL-E 3" in caplog.text
    for folder in list(tree.root.iterdir()):
        if folder.name[0] != "F":
            shutil.rmtree(folder)
    message = wrong("in_the_wild", tree)
    assert message.endswith(r"found Flux\nand more")
    assert datasets.load("in_the_wild").LAYOUT in message


# --- lists and CSV files in other states


@pytest.mark.parametrize("start", ["", "val/IF-CC95K/"])
@pytest.mark.parametrize("there", [0, 250, 499])
def test_a_list_of_which_one_folder_is_there(tmp_path: Path, start: str, there: int) -> None:
    """A download in part: the rest keeps the labels of the list."""
    lines = [f"{start}lost{number % 7}/{number}.png 0" for number in range(500)]
    lines[there] = f"{start}IF-ddim-25-15K/anything.png 1"
    rows = of_if(mpbench(tmp_path, *lines))
    assert rows[f"{IF}/anything.png"] == (REAL, "", "") and len(rows) == 500


def test_a_list_of_names_alone_is_of_the_set_it_is_called_after(tmp_path: Path) -> None:
    tree = write_tree("mpbench", tmp_path)
    file = tree.root / "MetaData/val/Midjourneyv5-5K.csv"
    lines = [f"lost{number}.png 0" for number in range(5000)]
    lines[4990] = "00000.png 1"
    file.write_text("\n".join(lines))
    rows = described(found("mpbench", tree))
    assert rows["ImageData/val/Midjourneyv5-5K/00000.png"] == (REAL, "", "")


def test_spai_takes_names_in_any_spelling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = write_tree("spai", tmp_path)
    for old, new in (
        ("real_coco", "Real_COCO"),
        ("fake_sd14", "fake_SD1.4"),
        ("fake_dalle2", "DALLE2"),
    ):
        (tree.root / f"{old}.csv").rename(tree.root / f"{new}.csv")
    (tree.root / "fake_My Own.csv").write_text("image,class,split\nown.png,1, Test\n")
    records = found("spai", tree)
    assert {r.generator for r in records} == {"", "sd14", "dalle2", "My Own"}
    assert {r.source for r in records} == {"", "coco", "raise"}
    assert not caplog.text
    assert "fake_My Own/own.png" in {r.key for r in found("spai", tree, "test")}
    shutil.copy(tree.root / "DALLE2.csv", tree.root / "fake_dalle2.csv")
    assert "expected one CSV for dalle2" in wrong("spai", tree)
