"""Pictures inside archives: open archives, a few at a time, and records of what lies in them.

A format is a module of this package with a class `Archive`, made of a path (LayoutError when that
is none of its kind), which has `read(member) -> bytes` and `close()`; it lists its pictures as
`ArchiveMember`, from which `Contents` makes records. Archives stay open in the process that opened
them; one that was forked opens its own, because it would share the position in the file with its
parent. Standard library only.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._csv import LABELS
from ._paths import split_named
from ._record import Label, LayoutError, Record, is_picture
from .folder import FAKE_NAMES, REAL_NAMES, Folders, describe

FORMATS = {
    ".tar": "tar_shards",
    ".zip": "zip_file",
    ".lmdb": "lmdb_file",
    ".mdb": "lmdb_file",
    ".parquet": "parquet_file",
}
LMDB_DATA = "data.mdb"  # the file of an LMDB that is a folder
MAX_BYTES = 1 << 30
AT_ONCE = 8  # open archives: each holds a file, and its list of members in memory
WORDS = {
    **LABELS,
    **dict.fromkeys(REAL_NAMES, Label.REAL),
    **dict.fromkeys(FAKE_NAMES, Label.FAKE),
}


@dataclass(frozen=True)
class _Open:
    """An open archive, with the time and size of its file when it was opened, and its path."""

    version: tuple[int, int]
    path: Path
    archive: Any


class _Pool:
    """The archives used last, `AT_ONCE` at most; `lock` is for whoever uses one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()

    def get(self, path: Path) -> Any:
        """The archive of a file, opened anew if the file has changed."""
        status = path.stat()
        # By what the file is and not by its path: links to one archive share it.
        file, version = (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_size)
        if file not in self._open or self._open[file].version != version:
            resolved = path.resolve()
            # At the same path another file may have taken its place, which has another inode.
            for known, other in list(self._open.items()):
                if known == file or other.path == resolved:
                    self._open.pop(known).archive.close()
            while len(self._open) >= AT_ONCE:
                self._open.popitem(last=False)[1].archive.close()
            self._open[file] = _Open(version, resolved, _make(path))
        self._open.move_to_end(file)
        return self._open[file].archive

    def forget(self) -> None:
        """In a process that was forked: lets go of the parent's archives and of its lock."""
        # A thread of the parent may have held it, which does not exist here.
        self.lock = threading.Lock()
        while self._open:
            self._open.popitem()[1].archive.close()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def _make(path: Path) -> Any:
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        raise LayoutError(f"{path}: expected a file of {', '.join(FORMATS)}; found another")
    # When it is needed: a folder of pictures is listed without lmdb and pyarrow.
    return importlib.import_module(f".{name}", __package__).Archive(path)


def read(path: Path, member: str) -> bytes:
    """The content of one member.

    Raises:
        OSError: the archive or the member is missing or damaged, or the member is over 1 GiB.
    """
    with _pool.lock:
        try:
            content: bytes = _pool.get(path).read(member)
        except LayoutError as error:
            raise OSError(str(error)) from error
    return content


def close_all() -> None:
    """Closes the archives that this process keeps open, before their files are deleted."""
    _pool.forget()


def members(path: Path, layout: str) -> list[Any]:
    """What an archive lists of its members, in the words of its format.

    Args:
        path: the archive's file.
        layout: what was expected there, for messages.

    Raises:
        LayoutError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise LayoutError(f"{path}: expected {layout}; found none")
    with _pool.lock:
        try:
            listed: list[Any] = _pool.get(path).members()
        except OSError as error:
            raise LayoutError(
                f"{path}: expected {layout}; found a damaged file ({error})"
            ) from error
    return listed


def check_size(size: int) -> None:
    """Raises OSError for a member over 1 GiB, before it fills the memory."""
    if size > MAX_BYTES:
        raise OSError("too large: over 1 GiB")


@dataclass(frozen=True, slots=True)
class Stated:
    """What an archive says of a picture besides its name, as it is written there."""

    label: object = None
    generator: object = None
    source: object = None
    split: object = None


NOTHING = Stated()


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A picture in an archive. `key`, `path`, `member`: those of its record. `inside`: its path,
    the names of archives left out, whose folders may state split, label and generator."""

    key: str
    path: Path
    member: str
    inside: str
    stated: Stated = NOTHING

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that it lies in, from the root of the data set on."""
        return tuple(self.inside.split("/")[:-1])


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
    # With the folder closed again: a deep tree would keep one open at each level.
    for folder in folders:
        yield from files_below(folder)


def shards(root: Path, suffixes: tuple[str, ...], layout: str) -> list[tuple[Path, str]]:
    """The shards of a data set, each with its path from the root.

    Args:
        root: a folder, or a file, which is its own shard, of the path "".
        suffixes: endings of the shards' names, in lower case.
        layout: what was expected, for messages.

    Raises:
        LayoutError: there is none, or a folder cannot be read.
    """
    if root.is_file():
        return [(root, "")]
    files = files_below(root) if root.is_dir() else ()
    paths = sorted(path for path in files if path.name.lower().endswith(suffixes))
    if not paths:
        raise LayoutError(f"{root}: expected {layout}; found none")
    return [(path, path.relative_to(root).as_posix()) for path in paths]


def beside(shard: str, name: str) -> tuple[str, str]:
    """Key, and path without the archive's name, of the picture `name` in the shard at the path
    `shard` from the root ("" = the root itself)."""
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


def _split_of(picture: ArchiveMember, folders: Folders) -> str:
    """The split that is stated, or else that of the folders, or else the leading one."""
    return split_named(_text(picture.stated.split)) or folders.split(picture.folders)


def _record(
    root: Path, picture: ArchiveMember, folders: Folders, split: str | None, labelled: bool
) -> Record:
    """The record of a picture by what is stated of it, and by its folders where nothing is. Raises
    LayoutError when a label is required and another than 0 and 1 is stated."""
    label, source, generator = describe(folders.below(picture.folders, split))
    try:
        stated = _label(picture.stated.label)
    except ValueError as error:
        if labelled:
            raise LayoutError(f"{root}: {error} at {picture.key!r}") from error
        stated, label, source, generator = None, None, "", ""
    # What the folders say of source and generator goes with the label that they say.
    if stated not in (None, label):
        label, source, generator = stated, "", "fake" if stated == Label.FAKE else ""
    if label != Label.REAL:
        generator = _text(picture.stated.generator) or generator
    source = _text(picture.stated.source) or source
    return Record(picture.key, picture.path, label, source, generator, picture.member)


class Contents:
    """One reading of a data set in archives, from which splits are chosen.

    Args:
        pictures: its pictures.
        root: what the user named, for messages.
        layout: what was expected there, for messages.
    """

    def __init__(self, pictures: Iterable[ArchiveMember], root: Path, layout: str) -> None:
        self._pictures = list(pictures)
        self._folders = Folders(picture.folders for picture in self._pictures)
        self._root = root
        self._layout = layout

    def splits(self) -> set[str]:
        """What can be asked for as a split."""
        return {_split_of(picture, self._folders) for picture in self._pictures} - {""}

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
        root, records, others = self._root, dict[str, Record](), set()
        for picture in self._pictures:
            if split and (other := _split_of(picture, self._folders)) != split_named(split):
                others.add(other)
                continue
            record = _record(root, picture, self._folders, split, labelled)
            if labelled and record.label is None:
                expected = f"expected {self._layout}"
                raise LayoutError(f"{root}: {expected}; found {picture.key!r} without a label")
            if record.key in records:
                raise LayoutError(f"{root}: expected each picture once; found {record.key!r} twice")
            records[record.key] = record
        if not records:
            what = f"a split {split!r} in {self._layout}" if split else self._layout
            names = ", ".join(repr(name) for name in sorted(others - {""})[:8]) or "no picture"
            raise LayoutError(f"{root}: expected {what}; found {names} in its place")
        return sorted(records.values(), key=lambda record: record.key)
