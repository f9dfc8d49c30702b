"""The contract that every family of pictures fulfils, on tiny generated trees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_makers import make_tar, make_zip
from conftest import make_picture, make_tree
from containers import pngs, write_lmdb, write_parquet
from PIL import Image

import datasets
from datasets import Label, LayoutError, Record, csv_file, folder
from datasets._images import Draw, PictureDataset, UnreadablePicture, read_bytes

REAL, FAKE = Label.REAL, Label.FAKE


@dataclass
class Example:
    """A tiny data set: what `records` must list, and roots in which there is nothing to list."""

    root: Path
    labels: dict[str, Label]
    splits: dict[str, set[str]]
    layout: str  # words of the expected layout that an error must contain
    empty: list[Path] = field(default_factory=list)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_picture(len(path.name), fake=False, size=(8, 8)).save(path)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def folder_example(tmp_path: Path) -> Example:
    labels = {
        "train/real/b.png": REAL,
        "train/real/a.jpg": REAL,
        "train/fake/gan/a.png": FAKE,
        "val/real/a.png": REAL,
        "val/fake/z.png": FAKE,
    }
    for key in labels:
        touch(tmp_path / "data" / key)
    splits = {s: {k for k in labels if k.startswith(s)} for s in ("train", "val")}
    (tmp_path / "nothing").mkdir()
    write(touch(tmp_path / "texts" / "real" / "a.png").with_suffix(".txt"), "no picture")
    (tmp_path / "texts" / "real" / "a.png").unlink()
    empty = [tmp_path / "missing", tmp_path / "nothing", tmp_path / "texts"]
    return Example(tmp_path / "data", labels, splits, "real/… and fake/<generator>/…", empty)


def csv_example(tmp_path: Path) -> Example:
    labels = {"p/b.png": REAL, "p/a.png": FAKE, "p/c d.png": FAKE, "q.png": REAL}
    for key in labels:
        touch(tmp_path / key)
    lines = ["image,class,split", "p/b.png,0,train", "p/a.png,1,train"]
    lines += ["q.png,0,val", "p/c d.png,1.0,val", ""]
    root = write(tmp_path / "list.csv", "\n".join(lines))
    splits = {"train": {"p/b.png", "p/a.png"}, "val": {"q.png", "p/c d.png"}}
    empty = [tmp_path / "missing.csv", write(tmp_path / "empty.csv", "")]
    return Example(root, labels, splits, "the column image (and", empty)


def archive_example(
    tmp_path: Path,
    suffix: str,
    write_archive: Callable[[Path, dict[str, bytes]], Path],
    layout: str,
) -> Example:
    labels = {"train/real/b.png": REAL, "train/fake/gan/a.png": FAKE, "val/real/a.png": REAL}
    labels |= {"val/fake/ü z.png": FAKE}
    root = write_archive(tmp_path / f"data{suffix}", pngs(list(labels)))
    splits = {s: {k for k in labels if k.startswith(s)} for s in ("train", "val")}
    empty = [tmp_path / f"missing{suffix}", write_archive(tmp_path / f"empty{suffix}", {})]
    return Example(root, labels, splits, layout, empty)


def lmdb_example(tmp_path: Path) -> Example:
    return archive_example(tmp_path, ".lmdb", write_lmdb, "real/… and fake/<generator>/…")


def parquet_example(tmp_path: Path) -> Example:
    def write_archive(path: Path, files: dict[str, bytes]) -> Path:
        return write_parquet(path, list(files.items()))

    return archive_example(tmp_path, ".parquet", write_archive, "the column image")


def tar_example(tmp_path: Path) -> Example:
    return archive_example(tmp_path, ".tar", make_tar, "real/ and fake/<generator>/")


def zip_example(tmp_path: Path) -> Example:
    return archive_example(tmp_path, ".zip", make_zip, "real/… and fake/<generator>/…")


BUILDERS: dict[str, Callable[[Path], Example]] = {
    "csv_file": csv_example,
    "folder": folder_example,
    "lmdb_file": lmdb_example,
    "parquet_file": parquet_example,
    "tar_shards": tar_example,
    "zip_file": zip_example,
}


# Benchmarks have a contract of their own: test_families.py.
@pytest.fixture(params=sorted({*datasets.available()} - {*datasets.benchmarks()}))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def example(name: str, tmp_path: Path) -> Example:
    if name not in BUILDERS:
        pytest.fail(f"data set {name!r} has no tiny example: add its builder to BUILDERS")
    return BUILDERS[name](tmp_path)


# --- the contract


def test_lists_every_picture_once_and_sorted(name: str, example: Example) -> None:
    found = datasets.load(name).records(example.root)
    assert [record.key for record in found] == sorted(example.labels)
    assert {record.key: record.label for record in found} == example.labels
    for record in found:
        assert isinstance(record, Record)
        assert isinstance(record.label, Label)
        assert record.path.is_file()
        assert record.member or record.path.as_posix().endswith(record.key)
        assert bool(record.generator) == (record.label == FAKE)


def test_is_pure(name: str, example: Example) -> None:
    def content() -> list[Path]:
        return sorted(example.root.parent.rglob("*"))

    before = content()
    records = datasets.load(name).records
    assert records(example.root) == records(str(example.root))
    assert content() == before


def test_splits_are_parts_of_the_whole(name: str, example: Example) -> None:
    records = datasets.load(name).records
    whole = {record.key: record for record in records(example.root)}
    for split, keys in example.splits.items():
        part = records(example.root, split)
        assert {record.key for record in part} == keys
        assert [record.key for record in part] == sorted(keys)
        assert all(whole[record.key] == record for record in part)
    with pytest.raises(LayoutError, match="no-such-split"):
        records(example.root, "no-such-split")


def test_errors_name_the_place_and_the_layout(name: str, example: Example) -> None:
    assert example.empty
    for root in example.empty:
        with pytest.raises(LayoutError) as caught:
            datasets.load(name).records(root)
        message = str(caught.value)
        assert str(root) in message
        assert example.layout in message
        assert "expected" in message
        assert "\n" not in message


def test_states_layout_and_licence(name: str) -> None:
    module = datasets.load(name)
    assert "Licence" in (module.__doc__ or "")
    assert "Raises" in (module.records.__doc__ or "")


def test_unknown_family_lists_the_choices() -> None:
    with pytest.raises(LayoutError, match=", ".join(datasets.available())):
        datasets.load("no-such-family")


def test_open_path_tells_folder_and_csv_apart(tmp_path: Path) -> None:
    tree = folder_example(tmp_path / "a")
    listing = csv_example(tmp_path / "b")
    assert datasets.open_path(tree.root) == folder.records(tree.root)
    assert datasets.open_path(listing.root, "val") == csv_file.records(listing.root, "val")
    with pytest.raises(LayoutError, match=r"expected a folder or a \.csv file, or one of \.tar"):
        datasets.open_path(tree.root / "train/real/b.png")


# --- folder


def described(root: Path, split: str | None = None) -> dict[str, tuple[Label | None, str, str]]:
    found = folder.records(root, split)
    return {r.key: (r.label, r.source, r.generator) for r in found}


@pytest.mark.parametrize(
    "pictures",
    [
        {
            "gan/0_real/a.png": (REAL, "gan", ""),
            "gan/1_fake/a.png": (FAKE, "gan", "gan"),
            "dm/cat/0_real/b.png": (REAL, "dm/cat", ""),
            "dm/cat/1_fake/b.png": (FAKE, "dm/cat", "dm/cat"),
        },
        {
            "Nature/a.png": (REAL, "", ""),
            "AI/sd14/x/a.png": (FAKE, "", "sd14"),
            "AI/b.png": (FAKE, "", "fake"),
            "AI/adm/c.png": (FAKE, "", "adm"),
        },
        {  # the name of a split is no generator
            "train/real/a.png": (REAL, "", ""),
            "train/fake/a.png": (FAKE, "", "fake"),
            "val/gan/0_real/a.png": (REAL, "gan", ""),
            "val/gan/1_fake/a.png": (FAKE, "gan", "gan"),
        },
    ],
)
def test_folders_state_source_and_generator(
    tmp_path: Path, pictures: dict[str, tuple[Label, str, str]]
) -> None:
    for key in pictures:
        touch(tmp_path / key)
    assert described(tmp_path) == pictures
    for split in {"train", "val"} & {key.split("/")[0] for key in pictures}:
        expected = {key: row for key, row in pictures.items() if key.startswith(split)}
        assert described(tmp_path, split) == expected


def test_folder_takes_every_spelling_of_a_picture_name(tmp_path: Path) -> None:
    taken = ["UPPER.JPG", "Mixed.JpEg", "two.dots.png", "a.tar.webp", "sp ace.png", "naïve 图.png"]
    taken += ["line\nbreak.png", 'comma, "quote".png']
    left = [".hidden.png", "._mac.jpg", "notes.txt", "png", "archive.png.zip", ".cache/a.png"]
    for key in taken + left:
        path = tmp_path / "real" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert {record.path.name for record in folder.records(tmp_path)} == set(taken)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_folder_takes_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / "real" / name).write_bytes(b"x")
    except OSError:
        pytest.skip("the file system takes UTF-8 names alone")
    assert [record.key for record in folder.records(tmp_path)] == [f"real/{name}"]


def test_folder_without_labels(tmp_path: Path) -> None:
    touch(tmp_path / "holiday" / "a.png")
    touch(tmp_path / "fake" / "b.png")
    found = folder.records(tmp_path, labelled=False)
    assert [(r.key, r.label) for r in found] == [("fake/b.png", FAKE), ("holiday/a.png", None)]
    with pytest.raises(LayoutError, match=r"found 'holiday/a\.png' below neither"):
        folder.records(tmp_path)


def test_missing_split_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "real" / "a.png")
    with pytest.raises(LayoutError, match=r"test: expected .*; found train"):
        folder.records(tmp_path, "test")


# --- CSV


def csv_of(tmp_path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    return write(tmp_path / "list.csv", "\n".join(lines) + "\n", encoding)


@pytest.mark.parametrize("value", ["2", "real", "fake", "-1", "0.5", "nan"])
def test_csv_class_is_0_or_1(tmp_path: Path, value: str) -> None:
    file = csv_of(tmp_path, "image,class", "a.png,0", f"b.png,{value}")
    with pytest.raises(LayoutError, match=rf"expected class 0 or 1; found '{value}' at 'b\.png'"):
        csv_file.records(file)


def test_csv_class_is_required_where_labels_are(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "image,class", "a.png,0", "b.png,", "c.png, 1 ", "d.png")
    with pytest.raises(LayoutError, match=r"expected a class for every picture; none at 'b\.png'"):
        csv_file.records(file)
    found = csv_file.records(file, labelled=False)
    assert [record.label for record in found] == [REAL, None, FAKE, None]
    with pytest.raises(LayoutError, match="expected a column class; found image"):
        csv_file.records(csv_of(tmp_path, "image", "a.png"))


@pytest.mark.parametrize(
    "path", ["x/../../a.png", "/etc/../a.png", "..\\a.png", "x\\..\\a.png", "..", ""]
)
def test_csv_paths_stay_inside(tmp_path: Path, path: str) -> None:
    file = csv_of(tmp_path, "image,class", f"{path},0")
    with pytest.raises(LayoutError, match="absolute path") as caught:
        csv_file.records(file)
    assert repr(path) in str(caught.value)


def test_csv_names_a_picture_once(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "image,class,split", "a.png,0,train", "b.png,0,val", "a.png,0,val")
    with pytest.raises(LayoutError, match=r"found 'a\.png' twice"):
        csv_file.records(file)
    assert [record.key for record in csv_file.records(file, "val")] == ["a.png", "b.png"]


def test_csv_without_its_columns(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"expected the column image .*; found path, class"):
        csv_file.records(csv_of(tmp_path, "path,class", "a.png,0"))
    with pytest.raises(LayoutError, match="expected a column split; found image, class"):
        csv_file.records(csv_of(tmp_path, "image,class", "a.png,0"), "train")
    with pytest.raises(LayoutError, match="expected rows; found none"):
        csv_file.records(csv_of(tmp_path, "image,class"))


def test_csv_root_is_where_paths_start(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    file = csv_of(tmp_path / "lists", "image,class", "x/a.png,0")
    assert csv_file.records(file)[0].path == tmp_path / "lists" / "x" / "a.png"
    found = csv_file.records(file, csv_root=tmp_path / "pictures")
    assert [(r.key, r.path) for r in found] == [("x/a.png", tmp_path / "pictures" / "x" / "a.png")]


@pytest.mark.parametrize("subdir", [False, True])
def test_csv_of_pictures_in_an_lmdb(tmp_path: Path, subdir: bool) -> None:
    """As SPAI's storage has them: the keys are what the column `image` says."""
    files = pngs(["set/a.png", "set/b.png", "ü/c.png", "other.png"])
    place = write_lmdb(tmp_path / "db.lmdb", files, subdir)
    rows = ("set/a.png,0,test", "ü/c.png,1,test", "./set/b.png,1,val", "gone.png,1,test")
    file = csv_of(tmp_path, "image,class,split", *rows)
    found = datasets.open_path(file, "test", csv_root=place)
    data = place / "data.mdb" if subdir else place
    assert [(r.key, r.path, r.label) for r in found] == [
        ("gone.png", data, FAKE),
        ("set/a.png", data, REAL),
        ("ü/c.png", data, FAKE),
    ]
    assert [read_bytes(r) for r in found[1:]] == [files["set/a.png"], files["ü/c.png"]]
    with pytest.raises(UnreadablePicture, match="no such key in the LMDB"):
        read_bytes(found[0])
    [other] = csv_file.records(file, "val", csv_root=place)
    assert (other.key, read_bytes(other)) == ("set/b.png", files["set/b.png"])


def test_csv_names_longer_than_a_key_can_be(tmp_path: Path) -> None:
    place = write_lmdb(tmp_path / "db.lmdb", pngs(["a.png"]))
    file = csv_of(tmp_path, "image,class", "a.png,0", f"{'x' * 600}.png,1")
    [_, long] = csv_file.records(file, csv_root=place)
    with pytest.raises(UnreadablePicture, match="no such key in the LMDB"):
        read_bytes(long)


def test_csv_root_is_the_lmdb_of_its_pictures(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "image,class", "a.png,0")
    place = write_lmdb(tmp_path / "db.lmdb", pngs(["set/a.png"]))
    wrong = r"db\.lmdb: expected the keys that .+ names, such as 'a\.png'; .+ 'set/a\.png'"
    with pytest.raises(LayoutError, match=wrong):
        csv_file.records(file, csv_root=place)
    with pytest.raises(LayoutError, match="found none"):
        csv_file.records(file, csv_root=write_lmdb(tmp_path / "empty.lmdb", {}))
    with pytest.raises(LayoutError, match=r"no\.lmdb: expected an LMDB; found none"):
        csv_file.records(file, csv_root=write(tmp_path / "no.lmdb", "text"))
    with pytest.raises(LayoutError, match=r"list\.csv: expected a folder, or an LMDB"):
        csv_file.records(file, csv_root=file)


def test_csv_generator_and_source(tmp_path: Path) -> None:
    file = csv_of(
        tmp_path,
        "image,class,generator,source",
        "a.png,1,sd14,coco",
        "b.png,1,,coco",
        "c.png,0,camera,coco",
    )
    found = [(r.generator, r.source) for r in csv_file.records(file)]
    assert found == [("sd14", "coco"), ("fake", "coco"), ("", "coco")]


# --- records to items


def draw(image: Image.Image, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    return int(rng.integers(1 << 30)), image.size


def test_randomness_of_scoring_is_the_same_for_every_picture(tree: Path) -> None:
    dataset = PictureDataset(folder.records(tree), draw)
    values = {item.value[0] for item in (dataset[i] for i in range(len(dataset)))}
    assert len(values) == 1
    assert dataset[0].index == 0
    assert (dataset[0].width, dataset[0].height) == dataset[0].value[1] == (72, 64)


def test_randomness_of_training_depends_on_seed_epoch_key_and_draw(tree: Path) -> None:
    records = folder.records(tree)
    order = [(0, 0), (1, 0), (0, 1)]

    def values(
        records: list[Record], order: Sequence[tuple[int, int]], seed: int, epoch: int
    ) -> Any:
        dataset = PictureDataset(records, draw, seed=seed)
        return [dataset[Draw(index, epoch, count)].value[0] for index, count in order]

    first = values(records, order, 0, 0)
    assert len(set(first)) == 3, "each picture and each repetition draws anew"
    assert values(records, order, 0, 0) == first
    assert set(first).isdisjoint(values(records, order, 0, 1))
    assert set(first).isdisjoint(values(records, order, 1, 0))
    turned = values([records[1], records[0]], [(0, 0), (1, 0)], 0, 0)
    assert turned == [first[1], first[0]], "the place does not matter"


def test_a_moved_data_set_gives_the_same_items(tmp_path: Path) -> None:
    items = []
    for place in ("a", "somewhere else"):
        records = folder.records(make_tree(tmp_path / place, count=1))
        dataset = PictureDataset(records, draw)
        items.append([dataset[Draw(i, 3)] for i in range(len(dataset))])
    assert items[0] == items[1]


def test_unreadable_picture_is_an_item_with_its_error(tree: Path) -> None:
    (tree / "real" / "000.jpg").write_text("no picture", encoding="utf-8")
    records = folder.records(tree)
    items = [PictureDataset(records, draw)[i] for i in range(len(records))]
    broken = [item for item in items if item.value is None]
    assert [records[item.index].key for item in broken] == ["real/000.jpg"]
    assert broken[0].error == "not a picture in any known format"
    assert all(bool(item.error) == (item.value is None) for item in items)


# --- names in other spellings, and errors that say what is there


@pytest.mark.parametrize("other", ["s\\c.png", "./s/c.png", "s//c.png", "s/./c.png"])
def test_csv_knows_a_picture_in_any_spelling(tmp_path: Path, other: str) -> None:
    file = csv_of(tmp_path, "image,class", f"{other},1")
    record = csv_file.records(file)[0]
    assert (record.key, record.path) == ("s/c.png", tmp_path / "s" / "c.png")
    file = csv_of(tmp_path, "image,class", f"{other},1", "s/c.png,0")
    with pytest.raises(LayoutError, match=r"found 's/c\.png' twice"):
        csv_file.records(file)


def test_csv_with_blanks_and_splits_in_other_words(tmp_path: Path) -> None:
    file = csv_of(tmp_path, " image , class, split", "a.png,0, Train", "b.png,1 ,valid ")
    assert [r.key for r in csv_file.records(file, "train")] == ["a.png"]
    assert [(r.key, r.label) for r in csv_file.records(file, "val")] == [("b.png", FAKE)]
    assert csv_file.contents(file).splits() == {"train", "val"}


def test_a_path_to_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"nope: expected a folder or .*; found no such file or"):
        datasets.open_path(tmp_path / "nope")


def test_folder_says_what_is_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"expected pictures in real/.*; found a file$"):
        folder.records(touch(tmp_path / "a.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="empty: expected pictures; found an empty folder"):
        folder.records(tmp_path / "empty", labelled=False)
