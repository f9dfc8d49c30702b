"""The benchmark families: one contract for all, then what is each one's own."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import make_picture
from trees import WRITERS, Tree, complaint, described, found, write_tree, wrong

import datasets
from datasets import Label
from datasets._images import PictureDataset
from engine.evaluation import benchmark

REAL, FAKE = Label.REAL, Label.FAKE
SOURCES = {
    "aigcdetect": "ADM", "cospy_bench": "cc3m", "genimage": "sdv4", "spai": "coco",
}  # fmt: skip


@pytest.fixture(params=datasets.benchmarks())
def family(request: pytest.FixtureRequest) -> str:
    if request.param not in WRITERS:
        pytest.fail(f"benchmark {request.param!r} has no miniature: add its writer to trees.py")
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "nested"])
def written(request: pytest.FixtureRequest, family: str, tmp_path: Path) -> Tree:
    return write_tree(family, tmp_path, nested=request.param)


@pytest.fixture
def plain(family: str, tmp_path: Path) -> Tree:
    return write_tree(family, tmp_path)


# --- the contract


def test_lists_each_picture_once_sorted_and_described(family: str, written: Tree) -> None:
    records = found(family, written)
    keys = [record.key for record in records]
    assert keys == sorted(set(keys)) and all("\\" not in key for key in keys)
    assert described(records) == written.pictures
    assert {r.key: r.path.resolve() for r in records} == written.files
    assert all(isinstance(r.label, Label) and not r.member for r in records)
    assert all(bool(r.generator) == (r.label == FAKE) for r in records)


def test_is_pure_and_takes_any_spelling_of_its_root(
    family: str, written: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(written.root.parent.rglob("*"))
    records = found(family, written)
    load = datasets.load(family).records
    assert load(str(written.root), None, written.locations) == records
    monkeypatch.chdir(written.root.parent)
    assert described(load(Path("set"), None, written.locations)) == written.pictures
    assert sorted(written.root.parent.rglob("*")) == before


def test_splits_are_parts_of_the_whole(family: str, written: Tree) -> None:
    module = datasets.load(family)
    assert written.splits.keys() <= set(module.SPLITS) and bool(written.splits) == bool(
        module.SPLITS
    )
    whole = {record.key: record for record in found(family, written)}
    for split, keys in written.splits.items():
        part = found(family, written, split)
        assert [record.key for record in part] == sorted(keys)
        assert all(whole[record.key] == record for record in part)


def test_unknown_splits_parts_and_sources_are_refused(family: str, plain: Tree) -> None:
    module = datasets.load(family)
    assert "Licence" in module.__doc__ and "Raises" in module.records.__doc__
    message = wrong(family, plain, "no-such-split")
    assert "no-such-split" in message and all(split in message for split in module.SPLITS)
    message = wrong(family, plain, locations=plain.locations | {"nowhere": "x"})
    assert "data.nowhere" in message and all(f"data.{part}" in message for part in module.LOCATIONS)
    message = wrong(family, plain, sources=("no-such-source",))
    known = {record.source for record in found(family, plain)} - {""}
    assert "--sources: no no-such-source" in message and all(name in message for name in known)


def test_sources_choose(family: str, plain: Tree) -> None:
    if family not in SOURCES:
        assert {record.source for record in found(family, plain)} == {""}
        return
    name = SOURCES[family]
    chosen = {key: row for key, row in plain.pictures.items() if row[1] in ("", name)}
    assert described(found(family, plain, sources=(name,))) == chosen
    assert 0 < len(chosen) < len(plain.pictures)


@pytest.mark.parametrize("kind", ["missing", "empty", "a file", "texts", "loose pictures", "other"])
def test_wrong_roots_are_told_with_the_layout(family: str, plain: Tree, kind: str) -> None:
    root = plain.root.parent / "wrong"
    if kind == "a file":
        root.write_text("x")
    elif kind != "missing":
        root.mkdir()
    if kind == "texts":
        (root / "notes.txt").write_text("x")
    elif kind == "loose pictures":
        make_picture(0, False, (8, 8)).save(root / "loose.png")
    elif kind == "other":
        write_tree("in_the_wild" if family != "in_the_wild" else "cnndet", root)
        root = root / "set"
    # Without data an unknown source is not what is wrong.
    sources = (SOURCES[family],) if family in SOURCES and kind != "other" else ()
    message = complaint(datasets.load(family).records, root, None, plain.locations, sources)
    assert message.startswith(str(root)) and "expected" in message
    assert datasets.load(family).LAYOUT in message
    shown = {
        "missing": "no such file or directory", "empty": "an empty folder", "a file": "a file",
        "texts": "notes.txt", "loose pictures": "loose.png",
    }  # fmt: skip
    assert shown.get(kind, "found") in message.partition("found")[2] or kind == "other"


def test_corrupt_pictures_are_listed_and_become_errors(family: str, written: Tree) -> None:
    keys = [key for key, row in written.pictures.items() if row[0] == FAKE][:2]
    written.files[keys[0]].write_bytes(b"")
    written.files[keys[1]].write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    records = found(family, written)
    assert described(records) == written.pictures

    def side(image: object, rng: np.random.Generator) -> int:
        return 1

    items = [PictureDataset(records, side)[i] for i in range(len(records))]
    broken = {written.files[records[item.index].key]: item.error for item in items if item.error}
    assert set(broken) == {written.files[key] for key in keys}
    assert broken[written.files[keys[0]]] == "the file is empty"


def test_hidden_files_and_links_to_folders_are_left_out(
    family: str, plain: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    key = next(key for key, row in plain.pictures.items() if row[0] == FAKE)
    folder = plain.files[key].parent
    shutil.copy(plain.files[key], folder / "._hidden.png")
    (folder / "linked").symlink_to(plain.root, target_is_directory=True)
    assert described(found(family, plain)) == plain.pictures
    by_csv = family == "spai" or (plain.root / "MetaData").exists()
    assert by_csv or "linked: a link to a folder, left out" in caplog.text


def test_a_folder_that_cannot_be_read_is_told(
    family: str, plain: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert "ermission denied" in wrong(family, plain)


@pytest.mark.parametrize("nested", [False, True])
def test_names_are_those_of_the_benchmark_files(family: str, tmp_path: Path, nested: bool) -> None:
    tree = write_tree(family, tmp_path, nested=nested)
    known = benchmark.load(family)
    records = [r for r in found(family, tree) if r.generator != "mine"]
    if known.generators:
        assert {r.generator for r in records} - {""} <= set(known.generators)
    if known.sources:
        assert {r.source for r in records} - {""} <= set(known.sources)


# --- Co-Spy-Bench


def cospy(tmp_path: Path, nested: bool = False) -> Tree:
    return write_tree("cospy_bench", tmp_path, nested=nested)


def test_cospy_wants_the_reals_of_the_wanted_sources_alone(tmp_path: Path) -> None:
    tree = cospy(tmp_path)
    shutil.rmtree(tree.root / "mscoco2017")
    records = found("cospy_bench", tree, sources=("cc3m", "sbu"))
    assert {record.source for record in records} == {"cc3m", "sbu"}
    message = wrong("cospy_bench", tree)
    assert "real pictures of mscoco" in message and "--set data.mscoco=DIR" in message
    assert "mscoco2017/val2017" in message
    (tree.root / "mscoco2017" / "val2017").mkdir(parents=True)
    assert "real pictures of mscoco" in wrong("cospy_bench", tree, sources=("mscoco",))


@pytest.mark.parametrize("inner", ["", "val2017", "mscoco2017/val2017"])
def test_cospy_goes_down_to_val2017(tmp_path: Path, inner: str) -> None:
    tree = cospy(tmp_path)
    reals = tree.elsewhere / inner
    reals.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(tree.root / "mscoco2017" / "val2017", reals)
    if inner:
        shutil.copytree(reals, reals.parent / "train2017")
    tree.locations = {"mscoco": str(tree.elsewhere)}
    keys = [r.key for r in found("cospy_bench", tree, sources=("mscoco",)) if r.label == REAL]
    assert keys == ["mscoco/00000.jpg", "mscoco/00001.v2.JPG"]


def test_cospy_finds_the_reals_of_its_training_set(tmp_path: Path) -> None:
    tree = cospy(tmp_path)
    root = tmp_path / "data" / "test" / "Co-Spy-Bench"
    beside = tmp_path / "data" / "train" / "sd-v1_4" / "mscoco2017"
    beside.parent.mkdir(parents=True)
    shutil.move(tree.root / "mscoco2017", beside)
    root.parent.mkdir()
    tree.root = Path(shutil.move(tree.root, root))
    reals = [r for r in found("cospy_bench", tree, sources=("mscoco",)) if r.label == REAL]
    assert [r.key for r in reals] == ["mscoco/00000.jpg", "mscoco/00001.v2.JPG"]
    assert all(r.path.is_file() for r in reals)


def test_cospy_takes_reals_from_archives_and_csv_files(tmp_path: Path) -> None:
    tree = cospy(tmp_path)
    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as archive:
        for year in ("train2017", "val2017"):
            for name in ("a.jpg", "b.jpg"):
                archive.write(next(iter(tree.files.values())), f"mscoco2017/{year}/{name}")
    (tmp_path / "flickr.csv").write_text("image\nset/flickr30k/00000.jpg\n", encoding="utf-8")
    tree.locations = {"mscoco": str(tmp_path / "coco.zip"), "flickr": str(tmp_path / "flickr.csv")}
    reals = [r for r in found("cospy_bench", tree) if r.label == REAL]
    coco = [(r.key, bool(r.member)) for r in reals if r.source == "mscoco"]
    assert [key for key, _ in coco] == [f"mscoco/mscoco2017/val2017/{n}.jpg" for n in "ab"]
    assert all(member for _, member in coco)
    flickr = [r for r in reals if r.source == "flickr"]
    assert [(r.key, r.path) for r in flickr] == [
        ("flickr/set/flickr30k/00000.jpg", tree.root / "flickr30k" / "00000.jpg")
    ]


def test_cospy_reals_are_not_labelled_synthetic(tmp_path: Path) -> None:
    tree = cospy(tmp_path)
    (tmp_path / "list.csv").write_text("image,class\na.jpg,0\nb.jpg,1\n")
    message = wrong("cospy_bench", tree, locations={"flickr": str(tmp_path / "list.csv")})
    assert "real pictures of flickr" in message and "'b.jpg'" in message
    message = wrong("cospy_bench", tree, locations={"flickr": str(tmp_path / "nowhere")})
    assert "real pictures of flickr" in message and "nowhere" in message


def test_cospy_tells_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = cospy(tmp_path)
    for folder in ("laion/mine", "mscoco/mine"):
        (tree.root / "synthetic" / folder).mkdir(parents=True)
    (tree.root / "synthetic/mscoco/mine/images.tar.gz").write_bytes(b"x")
    shutil.copy(next(iter(tree.files.values())), tree.root / "synthetic/sbu/grid.png")
    shutil.rmtree(tree.root / "synthetic" / "cc3m")
    assert {r.source for r in found("cospy_bench", tree)} == {"mscoco", "flickr", "textcaps", "sbu"}
    assert "laion: expected one of mscoco, flickr" in caplog.text
    assert "mine: no pictures; found images.tar.gz" in caplog.text
    assert "sbu: 1 pictures beside the folders, left out" in caplog.text
    (tree.root / "synthetic" / "MSCOCO").mkdir()
    message = wrong("cospy_bench", tree)
    assert "expected mscoco once; found" in message and "MSCOCO and" in message


# --- AIGCDetectionBenchMark, CNNDet


@pytest.mark.parametrize("family", ["aigcdetect", "cnndet", "genimage"])
def test_pictures_of_neither_class_are_refused(family: str, tmp_path: Path) -> None:
    tree = write_tree(family, tmp_path)
    file = next(iter(tree.files.values()))
    stray = file.parent.parent / "other" / "x.png"
    stray.parent.mkdir()
    shutil.copy(file, stray)
    assert f"{stray.relative_to(tree.root).as_posix()!r} below neither" in wrong(family, tree)


def test_cnndet_may_have_one_split(tmp_path: Path) -> None:
    tree = write_tree("cnndet", tmp_path)
    shutil.rmtree(tree.root / "train")
    assert {r.key for r in found("cnndet", tree)} == tree.splits["val"]
    assert "found val" in wrong("cnndet", tree, "train")


# --- DRCT-2M


@pytest.mark.parametrize("nested", [False, True])
def test_drct_splits_train2017_nine_to_one(tmp_path: Path, nested: bool) -> None:
    tree = write_tree("drct2m", tmp_path, count=20, nested=nested)
    train, val = (found("drct2m", tree, f"drct_{split}") for split in ("train", "val"))
    assert {r.key for r in train} | {r.key for r in val} == tree.splits["train"]
    assert not {r.key for r in train} & {r.key for r in val}
    assert set(Counter((r.label, r.generator) for r in val).values()) == {2}
    held = {g: [r.path.stem for r in val if r.generator == g] for g in {r.generator for r in val}}
    assert len(held) == 3 and len({tuple(sorted(names)) for names in held.values()}) == 1
    assert found("drct2m", tree, "drct_val") == val
    # The documented seed: these are held out for good.
    assert held[""] == ["00005", "00011"]


def test_drct_takes_generators_of_any_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = write_tree("drct2m", tmp_path)
    shutil.copytree(tree.root / "sdxl-turbo" / "val2017", tree.root / "my_own" / "val2017")
    (tree.root / "annotations").mkdir()
    assert "my_own" in {r.generator for r in found("drct2m", tree, "test")}
    assert "my_own" not in {r.generator for r in found("drct2m", tree, "train")}
    assert "my_own: expected train2017/; found val2017" in caplog.text
    assert "annotations: expected train2017/ or val2017/; left out" in caplog.text


@pytest.mark.parametrize("nested", [False, True])
def test_drct_wants_its_reals(tmp_path: Path, nested: bool) -> None:
    tree = write_tree("drct2m", tmp_path, nested=nested)
    shutil.rmtree((tree.elsewhere if nested else tree.root) / "mscoco2017" / "val2017")
    assert "expected val2017/ with the real pictures" in wrong("drct2m", tree, "test")
    shutil.rmtree((tree.elsewhere if nested else tree.root) / "mscoco2017")
    assert datasets.load("drct2m").LAYOUT in wrong("drct2m", tree, "train")


# --- GenImage


def test_genimage_wants_each_subset_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = write_tree("genimage", tmp_path)
    shutil.rmtree(tree.root / "imagenet_glide" / "val")
    (tree.root / "downloads").mkdir()
    there = {r.source for r in found("genimage", tree, "val")}
    assert there == {"adm", "biggan", "midjourney", "sdv4", "sdv5", "vqdm", "wukong"}
    assert "imagenet_glide: expected val/; found train" in caplog.text
    assert "downloads: expected a subset with train or val; left out" in caplog.text
    assert "<subset>/{train,val}" in wrong("genimage", tree, "val", sources=("glide",))
    shutil.copytree(tree.root / "imagenet_ai_0508_adm", tree.root / "ADM")
    assert "expected adm once" in wrong("genimage", tree)


# --- one class alone, spellings, levels, links


@pytest.mark.parametrize(
    ("family", "folder", "kind", "others"),
    [
        ("aigcdetect", "test/ADM", "0_real", "mine,progan"),
        ("aigcdetect", "test/ADM", "1_fake", "mine,progan"),
        ("genimage", "imagenet_glide/val", "nature", "adm,biggan,midjourney"),
    ],
)
def test_a_generator_without_one_class_is_refused(
    family: str, folder: str, kind: str, others: str, tmp_path: Path
) -> None:
    tree = write_tree(family, tmp_path)
    shutil.rmtree(tree.root / folder / kind)
    message = wrong(family, tree)
    what = "synthetic" if kind == "1_fake" else "real"
    assert f"{tree.root / folder}: expected real and synthetic pictures; found no {what}" in message
    assert f"or leave it out by --sources {others}" in message
    assert found(family, tree, sources=tuple(others.split(",")))
    if family == "genimage":
        assert described(found(family, tree, "train")).keys() == tree.splits["train"]


@pytest.mark.parametrize(
    ("family", "one", "other", "name"),
    [
        ("aigcdetect", "test/ADM", "test/adm", "ADM"),
        ("drct2m", "sdxl-turbo", "sdxl_turbo", "sdxl-turbo"),
        ("in_the_wild", "DALL-E 3", "dalle3", "DALL-E 3"),
    ],
)
def test_two_spellings_of_one_generator_are_refused(
    family: str, one: str, other: str, name: str, tmp_path: Path
) -> None:
    tree = write_tree(family, tmp_path)
    shutil.copytree(tree.root / one, tree.root / other)
    message = wrong(family, tree)
    assert f"expected {name} once; found" in message
    assert str(tree.root / one) in message and str(tree.root / other) in message


def test_aigcdetect_as_its_archive_unpacks(tmp_path: Path) -> None:
    tree = write_tree("aigcdetect", tmp_path)
    (tree.root / "test").rename(tree.root / "test_set")
    rows = {key.replace("test/", "test_set/", 1): row for key, row in tree.pictures.items()}
    assert described(found("aigcdetect", tree)) == rows


@pytest.mark.parametrize("inner", ["test", "test_set", ""])
def test_aigcdetect_from_above_is_refused(inner: str, tmp_path: Path) -> None:
    tree = write_tree("aigcdetect", tmp_path / "above")
    place = tree.root / inner if inner else tree.root.parent / "flat"
    (tree.root / "test").rename(place)
    if not inner:
        shutil.rmtree(tree.root)
    tree.root = tree.root.parent
    message = wrong("aigcdetect", tree)
    assert "(ADM, progan)" in message and datasets.load("aigcdetect").LAYOUT in message


@pytest.mark.parametrize(
    ("family", "place"),
    [
        ("cospy_bench", "mscoco2017"), ("cospy_bench", "mscoco2017/val2017"),
        ("cospy_bench", "real_image_examples"), ("cospy_bench", "synthetic"),
        ("cospy_bench", "synthetic/mscoco"), ("cnndet", "train"), ("genimage", "imagenet_glide"),
        ("genimage", "imagenet_glide/train"), ("drct2m", "mscoco2017"), ("drct2m", "sdxl-turbo"),
        ("drct2m", "sdxl-turbo/val2017"), ("aigcdetect", "test"), ("aigcdetect", "test/ADM"),
        ("in_the_wild", "Lexica"), ("ldm", "latent_diffusion_trainingset"),
        ("ldm", "latent_diffusion_trainingset/train"),
    ],
)  # fmt: skip
def test_links_are_followed_where_the_layout_has_a_name(
    family: str, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = write_tree(family, tmp_path)
    shutil.move(tree.root / place, tmp_path / "target")
    (tree.root / place).symlink_to(tmp_path / "target", target_is_directory=True)
    assert described(found(family, tree)) == tree.pictures
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("family", "place"), [("cospy_bench", "synthetic/mscoco/mine"), ("aigcdetect", "test/other")]
)
def test_links_are_left_out_where_any_name_would_do(
    family: str, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = write_tree(family, tmp_path)
    (tree.root / place).symlink_to(tree.root, target_is_directory=True)
    assert described(found(family, tree)) == tree.pictures
    assert f"{tree.root / place}: a link to a folder, left out" in caplog.text


def test_a_link_in_a_circle_is_no_folder(tmp_path: Path) -> None:
    tree = write_tree("cnndet", tmp_path)
    (tree.root / "progan_train").symlink_to("progan_train")
    assert described(found("cnndet", tree)) == tree.pictures


@pytest.mark.parametrize(
    ("family", "empty"),
    [
        ("cospy_bench", "flickr-annotations"),
        ("cnndet", "TRAIN"),
        ("genimage", "imagenet_glide/TRAIN"),
    ],
)
def test_an_empty_folder_hides_no_other(family: str, empty: str, tmp_path: Path) -> None:
    tree = write_tree(family, tmp_path)
    (tree.root / empty).mkdir()
    assert described(found(family, tree)) == tree.pictures
    if family == "cospy_bench":  # which looks in two places
        tree.write(f"{empty}/notes.txt", "x")
        assert described(found(family, tree)) == tree.pictures


def test_cospy_never_takes_fakes_for_reals(tmp_path: Path) -> None:
    """Where the fakes' folders lie at the top, that of flickr is called as the reals' may be."""
    tree = cospy(tmp_path)
    for folder in (tree.root / "synthetic").iterdir():
        folder.rename(tree.root / folder.name)
    (tree.root / "synthetic").rmdir()
    flickr = [r for r in found("cospy_bench", tree, sources=("flickr",)) if r.label == REAL]
    assert {r.key.split("/")[0] for r in flickr} == {"flickr30k"}
    shutil.rmtree(tree.root / "flickr30k")
    message = wrong("cospy_bench", tree, sources=("flickr",))
    assert "found cc3m, flickr, mscoco, mscoco2017, real_image_examples" in message
