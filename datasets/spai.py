"""SPAI's evaluation: 13 generators, each measured against five sources of real pictures.

The published sets are listed by name in data/lists/, so a folder laid out as SPAI's own `data/`
holds exactly the pictures of its figures. A folder with a CSV per generator and one per source is
read as these say instead. Licence: see the pages of the pictures' own sets.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ._csv import LABELS
from ._layout import (
    FAKE,
    REAL,
    begin,
    canonical,
    check_sources,
    files,
    in_order,
    is_file,
    unexpected,
)
from ._paths import split_named
from ._published_lists import published_rows
from ._record import Label, LayoutError, Record
from .csv_file import path_in, read_rows

GENERATORS = (
    "dalle2", "dalle3", "firefly", "flux", "gigagan", "glide", "mjv5", "mjv61", "sd13", "sd14",
    "sd2", "sd3", "sdxl",
)  # fmt: skip
SOURCES = ("coco", "fodb", "imagenet", "openimages", "raise")
LAYOUT = (
    "the folders of SPAI's data/ (synthbuster/<generator>/, gigagan/, flux/, stable-diffusion-3/, "
    "midjourney-v6.1/, COCO/test2017/, FODB/, ImageNet/, OpenImagesDataset/test/, RAISE-1k/tiff/), "
    "or fake_<generator>.csv and real_<source>.csv with the columns image, class, split "
    "(without the prefix for the published names, as in sd14.csv and coco.csv)"
)
LIST = "spai_eval"
LISTED_SPLIT = "test"  # of all pictures of the list
SPLITS = ("train", "val", "test")
LOCATIONS: tuple[str, ...] = ()
PREFIXES = {"fake_": FAKE, "real_": REAL}
log = logging.getLogger(__name__)


def _kind(stem: str) -> tuple[Label, str] | None:
    """What a CSV of that name holds: fakes of a generator, or reals of a source."""
    known = {FAKE: GENERATORS, REAL: SOURCES}
    for prefix, label in PREFIXES.items():
        name = stem[len(prefix) :]
        if stem.casefold().startswith(prefix) and name:
            return label, canonical(name, known[label]) or name
    for label, names in known.items():
        if name := canonical(stem, names) or "":
            return label, name
    return None


def _tables(root: Path) -> dict[tuple[Label, str], Path]:
    """The CSV of each generator and source. Raises LayoutError for two of one."""
    tables: dict[tuple[Label, str], Path] = {}
    for file in files(root, ".csv"):
        kind = _kind(file.stem)
        if kind is None:
            log.warning("%s: neither fake_… nor real_… nor a published name; left out", file)
        elif kind in tables:
            raise LayoutError(
                f"{root}: expected one CSV for {kind[1]}; found {tables[kind].name} and {file.name}"
            )
        else:
            tables[kind] = file
    return tables


def _rows(file: Path, label: Label, name: str, split: str | None) -> Iterator[Record]:
    """The pictures of one CSV; each row's class must be that of the file."""
    columns, rows = read_rows(file)
    if split and "split" not in columns:
        raise unexpected(file, "a column split", ", ".join(columns))
    source, generator = ("", name) if label == FAKE else (name, "")
    for row in rows:
        if split and split_named(row["split"]) != split:
            continue
        value = row.get("class", "").strip()
        if LABELS.get(value, "other") not in (None, label):
            raise LayoutError(
                f"{file}: expected class {int(label)}, as its name says; "
                f"found {value!r} at {row['image']!r}"
            )
        path = path_in(row["image"], file, file.parent)
        yield Record(
            f"{file.stem}/{path.lstrip('/')}", file.parent / path, label, source, generator
        )


def listed_keys() -> dict[str, frozenset[str]]:
    """Keys of the published pictures by set (`fake_<generator>`, `real_<source>`), as `records`
    gives them for a folder laid out as SPAI's `data/`."""
    keys: dict[str, set[str]] = {}
    for name, image, _ in published_rows(LIST):
        keys.setdefault(name, set()).add(f"{name}/{image}")
    return {name: frozenset(found) for name, found in keys.items()}


def published_share(records: Sequence[Record]) -> dict[str, float]:
    """Share of the published pictures of each generator and source that the records have, in
    [0, 1], by its name."""
    here = {record.key for record in records}
    return {
        name.partition("_")[2]: len(keys & here) / len(keys) for name, keys in listed_keys().items()
    }


def _listed(root: Path, sources: Sequence[str]) -> list[Record]:
    """The published pictures that lie below `root`; what is missing of each set is logged."""
    records: list[Record] = []
    whole: Counter[str] = Counter()
    missing: dict[str, list[str]] = {}
    for name, image, value in published_rows(LIST):
        label, owner = LABELS[value], name.partition("_")[2]
        if label == REAL and sources and owner not in sources:
            continue
        whole[name] += 1
        path = root / image
        if is_file(path):
            pair = ("", owner) if label == FAKE else (owner, "")
            records.append(Record(f"{name}/{image}", path, label, *pair))
        else:
            missing.setdefault(name, []).append(image)
    # Where nothing is there at all, the error that follows says what was expected.
    for name, images in missing.items() if records else ():
        log.warning(
            "%s: %d of its %d published pictures are missing, the first is %s",
            name, len(images), whole[name], images[0],
        )  # fmt: skip
    return records


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures that the CSV files in `root` name, by paths relative to it; where there
    are no CSV files, the published pictures that lie below `root`, all of the split test.

    Fakes have source '', reals the name of their set. A key begins with the set's name (that of the
    CSV), because two may name the same picture. `sources`: the reals of these only, and all fakes.

    Raises:
        LayoutError: no fakes or no reals, a CSV that is wrong, a class that is not the file's,
            a picture named twice or outside `root`, or an unknown source, split or location.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    tables = _tables(root)
    if not tables:
        if split not in (None, LISTED_SPLIT):
            raise LayoutError(f"{root}: expected the split {LISTED_SPLIT}; found {split!r}")
        check_sources(sources, SOURCES)
        return in_order(_listed(root, sources), root, LAYOUT)
    check_sources(sources, (name for label, name in tables if label == REAL))
    rows: list[Record] = []
    for (label, name), file in tables.items():
        if label == FAKE or not sources or name in sources:
            rows += _rows(file, label, name, split)
    return in_order(rows, root, LAYOUT)
