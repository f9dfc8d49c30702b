"""SPAI's evaluation: a CSV of pictures per generator and one per source of real pictures.

Published with 13 generators and five sources; every generator is measured against every source.
Licence: see the pages of the pictures' own sets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ._layout import FAKE, REAL, begin, canonical, check_sources, files, in_order, unexpected
from ._paths import relative, split_named
from ._record import Label, LayoutError, Record
from .csv_file import LABELS, read_rows

GENERATORS = (
    "dalle2", "dalle3", "firefly", "flux", "gigagan", "glide", "mjv5", "mjv61", "sd13", "sd14",
    "sd2", "sd3", "sdxl",
)  # fmt: skip
SOURCES = ("coco", "fodb", "imagenet", "openimages", "raise")
LAYOUT = (
    "fake_<generator>.csv and real_<source>.csv with the columns image, class, split "
    "(without the prefix for the published names, as in sd14.csv and coco.csv)"
)
SPLITS = ("train", "val", "test")
PARTS: tuple[str, ...] = ()
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
    found: dict[tuple[Label, str], Path] = {}
    for file in files(root, ".csv"):
        kind = _kind(file.stem)
        if kind is None:
            log.warning("%s: neither fake_… nor real_… nor a published name; left out", file)
        elif kind in found:
            raise LayoutError(
                f"{root}: expected one CSV for {kind[1]}; found {found[kind].name} and {file.name}"
            )
        else:
            found[kind] = file
    return found


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
        path = relative(row["image"], file)
        yield Record(f"{file.stem}/{path}", file.parent / path, label, source, generator)


def records(
    root: Path,
    split: str | None = None,
    parts: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures that the CSV files in `root` name, by paths relative to it.

    Fakes have source '', reals the name of their CSV. A key begins with the CSV's name, because two
    may name the same picture. `sources`: the reals of these only, and all fakes.

    Raises:
        LayoutError: no CSV of fakes or of reals, one that is wrong, a class that is not the file's,
            a picture named twice or outside `root`, or an unknown source, split or part.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, parts, PARTS)
    tables = _tables(root)
    if not tables:
        raise unexpected(root, LAYOUT)
    check_sources(sources, (name for label, name in tables if label == REAL))
    found: list[Record] = []
    for (label, name), file in tables.items():
        if label == FAKE or not sources or name in sources:
            found += _rows(file, label, name, split)
    return in_order(found, root, LAYOUT)
