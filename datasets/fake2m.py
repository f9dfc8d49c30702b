"""Fake2M, the training set of Sentry-Image: synthetic pictures; the reals are the user's.

MPBench, its validation set, is laid out alike: mpbench.py. In the lists of both label 0 means
synthetic. Licence: see the set's own page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from ._layout import (
    FAKE,
    begin,
    check_sources,
    elsewhere,
    files,
    groups,
    in_order,
    is_folder,
    unexpected,
)
from ._lists import generator_of, read
from ._record import LayoutError, Record, walk_folders


def layout_of(split: str) -> str:
    """What a split of the two sets should look like."""
    return (
        f"ImageData/{split}/<set>/<sub set>/* and optionally lists MetaData/{split}/*.csv of lines "
        "`path label`, 0 = synthetic (real pictures by --set data.reals=NAME=DIR,NAME=DIR)"
    )


LAYOUT = layout_of("train")
SPLITS = ("train",)
PARTS = ("reals",)
log = logging.getLogger(__name__)


def _by_lists(root: Path, split: str, layout: str) -> list[Record]:
    """What the lists of a split name, sorted. A list whose pictures are not there is left out.

    Raises:
        LayoutError: none of the lists has pictures there, or two contradict one another.
    """
    base = f"ImageData/{split}/"
    folder = root / "MetaData" / split
    lists = files(folder, ".csv") if is_folder(folder) else []
    found: list[Record] = []
    for file in lists:
        rows = read(file, root, base)
        if rows is None:
            log.warning("%s: left out, its pictures are not in %s", file, root / base)
        else:
            found += rows
    if lists and not found:
        raise unexpected(
            root,
            f"{layout}, with paths that start from {root}, ImageData/, {base} or a set in it",
            f"the pictures of no list there: {', '.join(file.name for file in lists)}",
        )
    return _once(found, root)


def _once(records: list[Record], root: Path) -> list[Record]:
    """Each picture once, sorted: lists may overlap. Raises LayoutError where labels differ."""
    records.sort(key=attrgetter("key"))
    for one, other in pairwise(records):
        if one.key == other.key and one.label != other.label:
            raise LayoutError(
                f"{root}: expected one label for each picture; found both at {one.key!r}"
            )
    kept = [b for a, b in pairwise([None, *records]) if b and not (a and a.key == b.key)]
    if len(kept) < len(records):
        log.warning("%s: %d pictures are listed twice", root, len(records) - len(kept))
    return kept


def _by_folders(root: Path, split: str, listed: set[str], lists: bool) -> list[Record]:
    """The pictures of the sets that no list names, all synthetic."""
    found: list[Record] = []
    for folder in groups(root / "ImageData" / split):
        if folder.name in listed:
            continue
        if lists:
            log.warning("%s: in no list; all its pictures are taken as synthetic", folder)
        for place, names in walk_folders(folder):
            below = place.relative_to(root).as_posix()
            generator = generator_of(below)
            found += [Record(f"{below}/{n}", place / n, FAKE, "", generator) for n in names]
    return found


def _reals(named: str) -> list[Record]:
    """The user's real pictures, from NAME=PATH,NAME=PATH. Raises LayoutError."""
    places: dict[str, str] = {}
    for word in named.split(","):
        name, _, path = word.strip().partition("=")
        if not name or not path or "/" in name or name in (*places, "ImageData"):
            raise LayoutError(f"data.reals: expected NAME=PATH,NAME=PATH; found {named!r}")
        places[name] = path
    return [record for name, path in places.items() for record in elsewhere(name, path)]


def records_of(split: str, root: Path, parts: Mapping[str, str]) -> list[Record]:
    """The pictures of a split of either set, and the user's reals."""
    layout = layout_of(split)
    if not is_folder(root / "ImageData" / split):
        raise unexpected(root, layout)
    found = _by_lists(root, split, layout)
    sets = {record.key.split("/", 3)[2] for record in found}
    found += _by_folders(root, split, sets, bool(found))
    if "reals" in parts:
        found += _reals(parts["reals"])
    return in_order(found, root, layout, needed=[FAKE])


def records(
    root: Path,
    split: str | None = None,
    parts: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures by their metadata, sorted by key; sets without any by their folders.

    `generator` is the sub set's folder, or the set's where it has none. All reals are one pool
    (source ''): those of `parts["reals"]`, NAME=PATH,NAME=PATH, with keys `<name>/<path within>`,
    and those that lists give label 1. Without reals the fakes are listed alone. Pictures that are
    listed but missing are listed here too: their rows carry the error.

    Raises:
        LayoutError: no pictures, a list that is wrong or leads out of the data, or a source, an
            unknown split or an unknown part.
    """
    root, given = begin(root, LAYOUT, split, SPLITS, parts, PARTS)
    check_sources(sources, ())
    return records_of("train", root, given)
