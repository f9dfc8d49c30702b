"""Which pictures a run takes: splits, held-out pictures, parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from conftest import make_picture

from datasets import Label, LayoutError, Record
from engine.config import DataOptions
from engine.listing import hold_out, part, train_and_val

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


def test_splits_that_the_folder_names_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{c}/a.png" for s in ("train", "val", "test") for c in ("real", "fake")))
    train, val, how = train_and_val(tmp_path, OPTIONS)
    assert [r.key for r in train] == ["train/fake/a.png", "train/real/a.png"]
    assert [r.key for r in val] == ["val/fake/a.png", "val/real/a.png"]
    assert "splits train and val" in how


def test_splits_that_the_csv_names_are_taken(tmp_path: Path) -> None:
    lines = ["image,class,split"]
    lines += [f"{s}{c}.png,{c},{s}" for s in ("fit", "check", "test") for c in (0, 1)]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    options = DataOptions(train_split="fit", val_split="check")
    train, val, _ = train_and_val(tmp_path / "list.csv", options)
    assert [r.key for r in train] == ["fit0.png", "fit1.png"]
    assert [r.key for r in val] == ["check0.png", "check1.png"]


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_test_pictures_are_never_trained_on(tmp_path: Path, kind: str) -> None:
    """Without val, the train split alone is divided."""
    keys = [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("real", "fake") for i in "abc"]
    path = tmp_path
    if kind == "folder":
        touch(tmp_path, *keys)
    else:
        rows = [f"{key},{int('fake' in key)},{key.split('/')[0]}" for key in keys]
        path = tmp_path / "list.csv"
        path.write_text("\n".join(["image,class,split", *rows]), encoding="utf-8")
    train, val, how = train_and_val(path, OPTIONS)
    assert {r.key for r in train + val} == {key for key in keys if key.startswith("train")}
    assert "split train" in how


def test_without_splits_every_generator_is_divided(tree: Path) -> None:
    train, val, how = train_and_val(tree, DataOptions(val_fraction=0.34))
    assert counts(val) == {"real": 4, "gan": 2, "diffusion": 2}
    assert counts(train) == {"real": 8, "gan": 4, "diffusion": 4}
    assert "0.34 of every generator" in how


def test_both_classes_are_needed(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "real/b.png")
    with pytest.raises(LayoutError, match="expected real and synthetic pictures for training"):
        train_and_val(tmp_path, OPTIONS)
    touch(tmp_path, "fake/a.png")
    with pytest.raises(LayoutError, match="expected real and synthetic pictures for validation"):
        train_and_val(tmp_path, OPTIONS)


def test_data_is_a_folder_or_a_csv(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"expected a folder or a \.csv file, .*; found neither"):
        train_and_val(tmp_path / "missing", OPTIONS)


# --- parts


MIXED = pictures_of("", 3, "coco") + pictures_of("", 3, "flickr") + pictures_of("gan", 3, "coco")
MIXED += pictures_of("sd", 3, "coco") + pictures_of("sd", 3, "flickr")


def test_generators_keep_the_reals() -> None:
    assert counts(part(MIXED, generators=["gan"])) == {"real": 6, "gan": 3}


def test_sources_keep_both_classes() -> None:
    found = part(MIXED, sources=["flickr"])
    assert {r.source for r in found} == {"flickr"}
    assert counts(found) == {"real": 3, "sd": 3}


def test_limit_counts_per_generator_and_source() -> None:
    found = part(MIXED, limit=2)
    assert Counter((r.source, r.generator) for r in found) == Counter(
        {("coco", ""): 2, ("flickr", ""): 2, ("coco", "gan"): 2, ("coco", "sd"): 2,
         ("flickr", "sd"): 2}
    )  # fmt: skip
    assert found == [r for r in MIXED if r in found], "in their order"
    assert part(MIXED, limit=100) == MIXED


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(LayoutError, match="--generators: no dalle; found gan, sd"):
        part(MIXED, generators=["gan", "dalle"])
    with pytest.raises(LayoutError, match="--sources: no mscoco; found coco, flickr"):
        part(MIXED, sources=["mscoco"])


def test_a_choice_that_leaves_nothing_is_an_error() -> None:
    fakes = [r for r in MIXED if r.generator]
    with pytest.raises(LayoutError, match="leaves none"):
        part(fakes, generators=["gan"], sources=["flickr"])
