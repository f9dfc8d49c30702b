"""Which pictures a run takes: splits, held-out pictures, parts."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_makers import make_tar, make_zip
from conftest import make_picture, train_and_val
from containers import pngs

from datasets import Label, LayoutError, Record
from datasets._splits import check_both, hold_out, select
from engine.cli.arguments import listed
from engine.config import DataOptions

OPTIONS = DataOptions(val_fraction=0.2)


def pictures_of(generator: str, count: int, source: str = "") -> list[Record]:
    label = Label.FAKE if generator else Label.REAL
    keys = [f"{generator or 'real'}/{source}{i:03}.png" for i in range(count)]
    return [Record(key, Path(key), label, source, generator) for key in keys]


RECORDS = sorted(
    pictures_of("", 50) + pictures_of("gan", 20) + pictures_of("sd", 7) + pictures_of("rare", 1),
    key=lambda record: record.key,
)


def touch(root: Path, *keys: str) -> None:
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        make_picture(0, fake=False, size=(8, 8)).save(root / key)


def counts(records: list[Record]) -> dict[str, int]:
    return dict(Counter(record.generator or "real" for record in records))


# --- held-out pictures


def test_hold_out_takes_its_share_of_every_generator() -> None:
    train, val = hold_out(RECORDS, 0.2)
    assert counts(val) == {"real": 10, "gan": 4, "sd": 1}
    assert counts(train) == {"real": 40, "gan": 16, "sd": 6, "rare": 1}
    assert {r.key for r in train}.isdisjoint(r.key for r in val)
    assert sorted(train + val, key=lambda r: r.key) == RECORDS
    for found in (train, val):
        assert found == sorted(found, key=lambda r: r.key)


def test_hold_out_depends_on_keys_alone() -> None:
    """Other generators, or another order, move no picture from one side to the other."""
    _, val = hold_out(RECORDS, 0.2)
    _, more = hold_out([*RECORDS[::-1], *pictures_of("new", 30)], 0.2)
    assert [r for r in more if r.generator != "new"] == val
    gan = [r.key for r in val if r.generator == "gan"]
    assert gan != [r.key for r in pictures_of("gan", 4)], "not merely the first ones"


def test_hold_out_keeps_something_to_train_on() -> None:
    train, val = hold_out(pictures_of("", 2) + pictures_of("gan", 2), 0.99)
    assert counts(train) == counts(val) == {"real": 1, "gan": 1}


def test_splits_that_the_csv_names_are_taken(tmp_path: Path) -> None:
    lines = ["image,class,split"]
    lines += [f"{s}{c}.png,{c},{s}" for s in ("fit", "check", "test") for c in (0, 1)]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    options = DataOptions(train_split="fit", val_split="check")
    train, val, _ = train_and_val(tmp_path / "list.csv", options)
    assert [r.key for r in train] == ["fit0.png", "fit1.png"]
    assert [r.key for r in val] == ["check0.png", "check1.png"]


def in_splits(folder: Path, kind: str, *splits: str) -> tuple[Path, list[str]]:
    """A folder, or a CSV with a last picture of no split, of three real and three synthetic
    pictures a split; and the keys of these."""
    keys = [f"{s}/{c}/{i}.png" for s in splits for c in ("real", "fake") for i in "abc"]
    if kind == "folder":
        touch(folder, *keys)
        return folder, keys
    rows = [f"{key},{int('fake' in key)},{key.split('/')[0]}" for key in keys]
    path = folder / "list.csv"
    path.write_text("\n".join(["image,class,split", *rows, "real/x.png,0,"]), encoding="utf-8")
    return path, keys


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_test_pictures_are_never_trained_on(tmp_path: Path, kind: str) -> None:
    """Without val, the train split alone is divided."""
    path, keys = in_splits(tmp_path, kind, "train", "test")
    train, val, how = train_and_val(path, OPTIONS)
    assert {r.key for r in train + val} == {key for key in keys if key.startswith("train")}
    assert "split train" in how


def test_without_splits_every_generator_is_divided(tree: Path) -> None:
    train, val, how = train_and_val(tree, DataOptions(val_fraction=0.34))
    assert counts(val) == {"real": 4, "gan": 2, "diffusion": 2}
    assert counts(train) == {"real": 8, "gan": 4, "diffusion": 4}
    assert "0.34 of every generator" in how


def test_both_classes_are_needed(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "real/b.png", "fake/a.png")
    train, val, _ = train_and_val(tmp_path, OPTIONS)
    check_both(tmp_path, "training", train)
    found = "expected real and synthetic pictures for validation; found 1 real and 0 synthetic: so"
    with pytest.raises(LayoutError, match=found):
        check_both(tmp_path, "validation", val, ": so")


def damaged_tar(root: Path) -> Path:
    names = [f"{s}/{c}/a.png" for s in ("train", "val") for c in ("real", "fake")]
    path = make_tar(root / "data.tar", pngs(names))
    path.write_bytes(path.read_bytes().rstrip(b"\0"))
    return path


def folder_with_a_link(root: Path) -> Path:
    touch(root, *(f"{s}/{c}/a.png" for s in ("train", "val") for c in ("real", "fake")))
    (root / "link").symlink_to(root / "train")
    return root


def folder_with_an_archive(root: Path) -> Path:
    touch(root, *(f"{s}/{c}/a.png" for s in ("train", "val") for c in ("real", "fake")))
    make_zip(root / "more.zip", pngs(["real/a.png"]))
    return root


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (damaged_tar, "cut off or damaged"),
        (folder_with_a_link, "a link to a folder"),
        (folder_with_an_archive, "1 archives beside"),
    ],
)
def test_what_is_left_out_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], Path], said: str
) -> None:
    train, val, _ = train_and_val(make(tmp_path), OPTIONS)
    assert len(train) == len(val) == 2
    [line] = caplog.messages
    assert said in line


# --- parts


def test_names_of_a_flag() -> None:
    assert listed(" b ,,a,b") == ["b", "a"]


@pytest.mark.parametrize("text", ["", ",", " ", ", ,"])
def test_a_flag_that_names_nothing_is_not_everything(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected names with commas between"):
        listed(text)


MIXED = pictures_of("", 3, "coco") + pictures_of("", 3, "flickr") + pictures_of("gan", 3, "coco")
MIXED += pictures_of("sd", 3, "coco") + pictures_of("sd", 3, "flickr")


def test_generators_keep_the_reals() -> None:
    assert counts(select(MIXED, generators=["gan"])) == {"real": 6, "gan": 3}


def test_sources_keep_both_classes() -> None:
    found = select(MIXED, sources=["flickr"])
    assert {r.source for r in found} == {"flickr"}
    assert counts(found) == {"real": 3, "sd": 3}


def test_limit_counts_per_generator_and_source() -> None:
    found = select(MIXED, limit=2)
    assert Counter((r.source, r.generator) for r in found) == Counter(
        {("coco", ""): 2, ("flickr", ""): 2, ("coco", "gan"): 2, ("coco", "sd"): 2,
         ("flickr", "sd"): 2}
    )  # fmt: skip
    assert found == [r for r in MIXED if r in found], "in their order"
    assert select(MIXED, limit=100) == MIXED


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(LayoutError, match="--generators: no dalle; found gan, sd"):
        select(MIXED, generators=["gan", "dalle"])
    with pytest.raises(LayoutError, match="--sources: no mscoco; found coco, flickr"):
        select(MIXED, sources=["mscoco"])


def test_a_choice_that_leaves_nothing_is_an_error() -> None:
    fakes = [r for r in MIXED if r.generator]
    with pytest.raises(LayoutError, match="leaves none"):
        select(fakes, generators=["gan"], sources=["flickr"])


# --- splits in other words and places

SPELLED = {
    "Train/{}/a.png Val/{}/a.png test/{}/a.png": ("Train", "Val"),
    "train/{}/a.png valid/{}/a.png test/{}/a.png": ("train", "valid"),
    "TRAIN/{}/a.png Validation/{}/a.png": ("TRAIN", "Validation"),
    "train/gan/{}/a.png val/gan/{}/a.png": ("train", "val"),
    "gan/train/{}/a.png gan/val/{}/a.png gan/test/{}/a.png": ("train", "val"),
    "a/gan/train/{}/a.png a/gan/VALID/{}/a.png": ("train", "VALID"),
    "{}/train/a.png {}/val/a.png": ("train", "val"),
}


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar", ".csv"])
@pytest.mark.parametrize("keys", SPELLED)
def test_splits_in_any_words_and_place(tmp_path: Path, keys: str, suffix: str) -> None:
    files = [key.format(kind) for key in keys.split() for kind in ("nature", "ai")]
    named = SPELLED[keys]
    data = tmp_path / f"data{suffix}"
    if suffix == ".csv":
        rows = [(key, next(p for p in key.split("/") if split_like(p))) for key in files]
        lines = [f"{key},{int('ai' in key.split('/'))}, {split} ,gan" for key, split in rows]
        data.write_text("\n".join(["image,class,split,generator", *lines]))
    elif suffix:
        {".zip": make_zip, ".tar": make_tar}[suffix](data, pngs(files))
    else:
        touch(data, *files)
    train, val, how = train_and_val(data, OPTIONS)
    assert {next(p for p in r.key.split("/") if p in named) for r in train} == {named[0]}
    assert {next(p for p in r.key.split("/") if p in named) for r in val} == {named[1]}
    assert len(train) == len(val) == 2 and "splits train and val" in how
    for record in (*train, *val):
        words = {*record.source.split("/"), *record.generator.split("/")}
        assert not any(map(split_like, words))


def split_like(word: str) -> bool:
    return word.lower() in ("train", "val", "valid", "validation", "test")


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    """LSUN has it, and ForenSynths is sorted by the classes of LSUN."""
    keys = [
        f"progan/{c}/{k}/{n}.png" for c in ("cat", "train") for k in ("real", "fake") for n in "ab"
    ]
    touch(tmp_path, *keys)
    train, val, how = train_and_val(tmp_path, OPTIONS)
    assert {r.key for r in train + val} == set(keys) and "held out" in how
    assert {r.source for r in train + val} == {"progan/cat", "progan/train"}


def test_a_split_of_validation_is_asked_for_in_either_word(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/a.png" for s in ("fit", "valid") for c in ("real", "fake")))
    options = DataOptions(train_split="fit", val_split="validation")
    train, val, _ = train_and_val(tmp_path, options)
    assert {r.key for r in train} == {"fit/real/a.png", "fit/fake/a.png"}
    assert {r.key for r in val} == {"valid/real/a.png", "valid/fake/a.png"}


# --- one split for both, and splits that are not there


def test_one_split_serves_both(tmp_path: Path) -> None:
    keys = [f"{s}/{c}/{i}.png" for s in ("train", "val") for c in ("real", "fake") for i in "abcd"]
    touch(tmp_path, *keys)
    train, val, how = train_and_val(tmp_path, DataOptions(train_split="val", val_split="valid"))
    assert train == val
    assert {r.key for r in train} == {key for key in keys if key.startswith("val")}
    assert "both to train on and to choose by" in how
    halves = DataOptions(train_split="val", val_split="val", leak_free=True)
    train, val, how = train_and_val(tmp_path, halves)
    assert counts(train) == counts(val) == {"real": 2, "fake": 2}
    assert {r.key for r in train}.isdisjoint(r.key for r in val)
    assert "0.5 of every generator of split val" in how


def test_without_splits_one_split_for_both_is_divided_too(tree: Path) -> None:
    both = {"train_split": "val", "val_split": "val"}
    train, val, _ = train_and_val(tree, DataOptions(**both))
    assert len(val) < len(train)
    train, val, _ = train_and_val(tree, DataOptions(**both, leak_free=True))
    assert len(val) == len(train) == 12


def test_held_out_leaves_the_val_split_alone(tmp_path: Path) -> None:
    keys = [f"{s}/{c}/{i}.png" for s in ("train", "val") for c in ("real", "fake") for i in "abcd"]
    touch(tmp_path, *keys)
    train, val, how = train_and_val(tmp_path, DataOptions(val_split="held_out"))
    assert {r.key for r in train + val} == {key for key in keys if key.startswith("train")}
    assert "held out" in how


@pytest.mark.parametrize(
    ("there", "options", "said"),
    [
        ("val test", {}, "a split train; found no such one beside val"),
        ("train test", {"train_split": "val", "val_split": "val"}, "beside test, train"),
        ("train val", {"train_split": "fit"}, "a split fit; found no such one beside"),
        ("train val", {"val_split": "chek"}, "a split chek.*held_out"),
        ("train", {"val_split": "chek"}, "a split chek.*held_out"),
    ],
)
def test_a_missing_split_is_named(
    tmp_path: Path, there: str, options: dict[str, str], said: str
) -> None:
    touch(tmp_path, *(f"{s}/{c}/a.png" for s in there.split() for c in ("real", "fake")))
    with pytest.raises(LayoutError, match=said):
        train_and_val(tmp_path, DataOptions(**options))


@pytest.mark.parametrize("named", ["test", "Testing", "test val", "validation test"])
@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_what_is_for_testing_is_not_trained_on_for_want_of_other_pictures(
    tmp_path: Path, kind: str, named: str
) -> None:
    path, _ = in_splits(tmp_path, kind, *named.split())
    with pytest.raises(LayoutError, match="expected a split train; found no such one beside"):
        train_and_val(path, OPTIONS)
