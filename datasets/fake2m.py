"""Fake2M, the training set of Sentry-Image: synthetic pictures; the reals are the user's.

Lists have a path, a space and a label on each line, 0 = synthetic; copies of the set differ in the
folder that the paths start from. MPBench, the validation set, is laid out alike: mpbench.py.
Licence: see the set's own page.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from ._layout import (
    FAKE,
    REAL,
    begin,
    check_sources,
    elsewhere,
    files,
    groups,
    in_order,
    is_file,
    is_folder,
    subfolders,
    unexpected,
)
from ._paths import relative
from ._record import LayoutError, Record, walk_folders


def layout_of(split: str) -> str:
    """What a split of the two sets should look like."""
    return (
        f"ImageData/{split}/<set>/<sub set>/* and optionally lists MetaData/{split}/*.csv of lines "
        "`path label`, 0 = synthetic (real pictures by --set data.reals=NAME=DIR,NAME=DIR)"
    )


LAYOUT = layout_of("train")
SPLITS = ("train",)
LOCATIONS = ("reals",)
SYNTHETIC = "0"
LABELS = {SYNTHETIC: FAKE, "1": REAL}
ROWS, PLACES = 64, 1024  # at least so many rows and folders tell where the paths of a list start
Row = tuple[int, str, str]
log = logging.getLogger(__name__)


def _rows(file: Path) -> Iterator[Row]:
    """Line number, path and label of each line: the last space is what parts them.

    Raises:
        LayoutError: the file is not UTF-8 text, or a line has no label.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                path, _, label = line.rstrip().rpartition(" ")
                if label in LABELS and path:
                    yield number, path, label
                elif line.strip():
                    raise LayoutError(
                        f"{file}, line {number}: expected `path label`, label 0 (synthetic) or 1; "
                        f"found {line.strip()[:200]!r}"
                    )
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{file}: expected a list in UTF-8; found {error}") from error


def _spread(rows: Sequence[Row], count: int) -> Sequence[Row]:
    """Between `count` and twice as many rows, or all, at even distances."""
    return rows[:: max(1, len(rows) // count)]


def _sample(rows: Sequence[Row]) -> list[Row]:
    """Rows from all over a list and from its folders: a copy may have any part of its pictures."""
    folders: dict[str, Row] = {}
    for row in rows:
        folders.setdefault(row[1].replace("\\", "/").rpartition("/")[0], row)
    return [*_spread(rows, ROWS), *_spread(list(folders.values()), PLACES)]


def _start(file: Path, sample: Sequence[Row], root: Path, base: str) -> str | None:
    """The folder below `root` from which the paths of a list start, with a slash behind.

    Copies differ in it, so that it is where most of the sample is found, or else where its folders
    are. None where neither is: those pictures are not there.
    """
    sets = [folder.name for folder in subfolders(root / base)]
    sets.sort(key=lambda name: name != file.stem)
    starts = ["", "ImageData/", base, *(f"{base}{name}/" for name in sets)]
    paths = [relative(path, file) for _, path, _ in sample]

    def files(start: str) -> int:
        return sum(is_file(root / (start + p)) for p in paths if (start + p).startswith(base))

    def folders(start: str) -> int:
        own = start == f"{base}{file.stem}/"  # of a list of names alone, its own name tells the set
        there = [start + p for p in paths if (start + p).startswith(base) and ("/" in p or own)]
        return sum(is_folder((root / p).parent) for p in there)

    for count in (files, folders):
        counts = {start: count(start) for start in starts}
        if any(counts.values()):
            return max(starts, key=counts.__getitem__)
    return None


def _generator_of(folder: str) -> str:
    """The sub set, or the set where it has none, of a folder ImageData/<split>/<set>/<sub set>/…"""
    return (folder.split("/")[3:4] or folder.split("/")[2:3])[0]


def _listed(file: Path, rows: Iterable[Row], start: str, root: Path, base: str) -> list[Record]:
    """The records of a list, whether or not their pictures are on disk.

    Raises:
        LayoutError: a path that leads out of `base`, or to no set in it.
    """
    # Folders are few and pictures a million: what only the folder decides is found once.
    known: dict[str, tuple[str, Path, str]] = {}
    records: list[Record] = []
    for number, path, label in rows:
        folder, _, name = path.replace("\\", "/").rpartition("/")
        if folder not in known:
            below = (start + relative(path, file)).rpartition("/")[0]
            if not below.startswith(base):
                raise LayoutError(
                    f"{file}, line {number}: expected a picture below {base}<set>/; found {path!r}"
                )
            known[folder] = f"{below}/", root / below, _generator_of(below)
        prefix, parent, generator = known[folder]
        if name in ("", ".", ".."):
            raise LayoutError(f"{file}, line {number}: expected a picture's path; found {path!r}")
        maker = generator if label == SYNTHETIC else ""
        records.append(Record(prefix + name, parent / name, LABELS[label], "", maker))
    return records


def _read(file: Path, root: Path, base: str) -> list[Record] | None:
    """The pictures that a list names, with their keys from `root`; None when they are not there.

    Args:
        file: the list.
        root: the folder of the set.
        base: the folder below `root` that they must lie in, with a slash behind.

    Raises:
        LayoutError: a line that is wrong, or a path that leads out of `base`.
    """
    # Read twice: a million rows are not kept beside the records that are made of them.
    start = _start(file, _sample(list(_rows(file))), root, base)
    return None if start is None else _listed(file, _rows(file), start, root, base)


def _by_lists(root: Path, split: str, layout: str) -> list[Record]:
    """What the lists of a split name, sorted. A list whose pictures are not there is left out.

    Raises:
        LayoutError: none of the lists has pictures there, or two contradict one another.
    """
    base = f"ImageData/{split}/"
    folder = root / "MetaData" / split
    lists = files(folder, ".csv") if is_folder(folder) else []
    records: list[Record] = []
    for file in lists:
        rows = _read(file, root, base)
        if rows is None:
            log.warning("%s: left out, its pictures are not in %s", file, root / base)
        else:
            records += rows
    if lists and not records:
        raise unexpected(
            root,
            f"{layout}, with paths that start from {root}, ImageData/, {base} or a set in it",
            f"the pictures of no list there: {', '.join(file.name for file in lists)}",
        )
    return _once(records, root)


def _once(records: list[Record], root: Path) -> list[Record]:
    """Each picture once, sorted: lists may overlap. Raises LayoutError where labels differ."""
    records.sort(key=attrgetter("key"))
    for record, following in pairwise(records):
        if record.key == following.key and record.label != following.label:
            raise LayoutError(
                f"{root}: expected one label for each picture; found both at {record.key!r}"
            )
    distinct = list({record.key: record for record in reversed(records)}.values())[::-1]
    if len(distinct) < len(records):
        log.warning("%s: %d pictures are listed twice", root, len(records) - len(distinct))
    return distinct


def _by_folders(root: Path, split: str, listed: set[str], lists: bool) -> list[Record]:
    """The pictures of the sets that no list names, all synthetic."""
    records: list[Record] = []
    for folder in groups(root / "ImageData" / split):
        if folder.name in listed:
            continue
        if lists:
            log.warning("%s: in no list; all its pictures are taken as synthetic", folder)
        for parent, names in walk_folders(folder):
            below = parent.relative_to(root).as_posix()
            generator = _generator_of(below)
            records += [Record(f"{below}/{n}", parent / n, FAKE, "", generator) for n in names]
    return records


def _reals(named: str) -> list[Record]:
    """The user's real pictures, from NAME=PATH,NAME=PATH. Raises LayoutError."""
    places: dict[str, str] = {}
    for word in named.split(","):
        name, _, path = word.strip().partition("=")
        if not name or not path or "/" in name or name in (*places, "ImageData"):
            raise LayoutError(f"data.reals: expected NAME=PATH,NAME=PATH; found {named!r}")
        places[name] = path
    return [record for name, path in places.items() for record in elsewhere(name, path)]


def records_of(split: str, root: Path, locations: Mapping[str, str]) -> list[Record]:
    """The pictures of a split of either set, and the user's reals."""
    layout = layout_of(split)
    if not is_folder(root / "ImageData" / split):
        raise unexpected(root, layout)
    rows = _by_lists(root, split, layout)
    sets = {record.key.split("/", 3)[2] for record in rows}
    rows += _by_folders(root, split, sets, bool(rows))
    if "reals" in locations:
        rows += _reals(locations["reals"])
    return in_order(rows, root, layout, needed=[FAKE])


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures by their metadata, sorted by key; sets without any by their folders.

    `generator` is the sub set's folder, or the set's where it has none. All reals are one pool
    (source ''): those of `locations["reals"]`, NAME=PATH,NAME=PATH, of the keys
    `<name>/<path within>`, and those that lists give label 1. Without reals the fakes are listed
    alone. Pictures that are listed but missing are listed here too: their rows carry the error.

    Raises:
        LayoutError: no pictures, a list that is wrong or leads out of the data, or a source, an
            unknown split or an unknown location.
    """
    root, given = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    check_sources(sources, ())
    return records_of("train", root, given)
