"""From what lies in archives to records: names, labels, splits. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ._paths import split_named
from ._record import Label, LayoutError, Record, is_picture
from .csv_file import LABELS
from .folder import FAKE_NAMES, REAL_NAMES, Folders, describe

WORDS = {
    **LABELS,
    **dict.fromkeys(REAL_NAMES, Label.REAL),
    **dict.fromkeys(FAKE_NAMES, Label.FAKE),
}


@dataclass(frozen=True, slots=True)
class Stated:
    """What an archive says of a picture besides its name, as it is written there."""

    label: object = None
    generator: object = None
    source: object = None
    split: object = None


NOTHING = Stated()


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture in an archive. `key`, `path`, `member`: those of its record. `place`: its path,
    the names of archives left out, whose folders may state split, label and generator."""

    key: str
    path: Path
    member: str
    place: str
    stated: Stated = NOTHING


def is_listed(name: str) -> bool:
    """Whether a path in normal form is a picture's, and neither it nor a folder is hidden."""
    return is_picture(name) and not name.startswith(".") and "/." not in name


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, unsorted; links to folders are not followed.

    Raises:
        LayoutError: a folder cannot be read.
    """
    folders = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_dir():
                    yield Path(entry.path)
    except OSError as error:
        raise LayoutError(f"{root}: expected a readable folder; {error.strerror}") from error
    for folder in folders:
        yield from files_below(folder)


def shards(root: Path, suffixes: tuple[str, ...], layout: str) -> list[tuple[Path, str]]:
    """The files below a folder whose names end so, sorted, each with its path from there; of a
    file, the file itself and "". Raises LayoutError when there is none."""
    if root.is_file():
        return [(root, "")]
    files = files_below(root) if root.is_dir() else ()
    found = sorted(path for path in files if path.name.lower().endswith(suffixes))
    if not found:
        raise LayoutError(f"{root}: expected {layout}; found none")
    return [(path, path.relative_to(root).as_posix()) for path in found]


def beside(shard: str, name: str) -> tuple[str, str]:
    """Key and place of what is called `name` in a shard at the path `shard` ("" = the root)."""
    if not shard:
        return name, name
    folder, _, _ = shard.rpartition("/")
    return f"{shard}/{name}", f"{folder}/{name}" if folder else name


def _label(value: object) -> Label | None:
    """0 and 1 as a number or in words, None where nothing is stated. Raises ValueError."""
    text = "" if value is None else str(value).strip().lower()
    if text not in WORDS:
        raise ValueError(f"expected label 0 or 1; found {str(value)[:40]!r}")
    return WORDS[text]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _folder_of(entry: Entry) -> tuple[str, ...]:
    return tuple(entry.place.split("/")[:-1])


def _split_of(entry: Entry, folders: Folders) -> str:
    """The split that is stated, or else that of the folders, or else the leading one."""
    return split_named(_text(entry.stated.split)) or folders.split(_folder_of(entry))


def _record(
    root: Path, entry: Entry, folders: Folders, split: str | None, labelled: bool
) -> Record:
    """What is stated, and what the folders say where nothing is. Raises LayoutError when a label is
    required and another than 0 and 1 is stated."""
    label, source, generator = describe(folders.below(_folder_of(entry), split))
    try:
        stated = _label(entry.stated.label)
    except ValueError as error:
        if labelled:
            raise LayoutError(f"{root}: {error} at {entry.key!r}") from error
        stated, label, source, generator = None, None, "", ""
    if stated not in (None, label):
        label, source, generator = stated, "", "fake" if stated == Label.FAKE else ""
    if label != Label.REAL:
        generator = _text(entry.stated.generator) or generator
    source = _text(entry.stated.source) or source
    return Record(entry.key, entry.path, label, source, generator, entry.member)


class Contents:
    """What one reading of a data set in archives found.

    Args:
        entries: its pictures.
        root: what the user named, for messages.
        layout: what was expected there, for messages.
    """

    def __init__(self, entries: Iterable[Entry], root: Path, layout: str) -> None:
        self._entries = list(entries)
        self._folders = Folders(map(_folder_of, self._entries))
        self._root = root
        self._layout = layout

    def splits(self) -> set[str]:
        """What can be asked for as a split."""
        found = (_split_of(entry, self._folders) for entry in self._entries)
        return {split for split in found if split}

    def records(self, split: str | None = None, labelled: bool = True) -> list[Record]:
        """The records, sorted by key.

        Args:
            split: keep what is stated to be of this split or, where nothing is, lies below a folder
                that names it, or a leading one; None takes everything.
            labelled: whether every picture must have a label, stated or by a folder's name.

        Raises:
            LayoutError: nothing is left, two pictures have one key, or a label is required and not
                stated.
        """
        root, found, others = self._root, dict[str, Record](), set()
        for entry in self._entries:
            if split and (other := _split_of(entry, self._folders)) != split_named(split):
                others.add(other)
                continue
            record = _record(root, entry, self._folders, split, labelled)
            if labelled and record.label is None:
                expected = f"expected {self._layout}"
                raise LayoutError(f"{root}: {expected}; found {entry.key!r} without a label")
            if record.key in found:
                raise LayoutError(f"{root}: expected each picture once; found {record.key!r} twice")
            found[record.key] = record
        if not found:
            what = f"a split {split!r} in {self._layout}" if split else self._layout
            names = ", ".join(repr(name) for name in sorted(others - {""})[:8]) or "no picture"
            raise LayoutError(f"{root}: expected {what}; found {names} in its place")
        return sorted(found.values(), key=lambda record: record.key)
