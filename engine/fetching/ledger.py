"""Ledger of what was fetched into a folder, and whether the rest fits on its disk.

fetch.py writes it, scripts/fetch_data.py asks it what is left. It stands beside the pictures, so
that a folder may be moved, and is no more than a note: what is deleted on disk is fetched anew.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter
from pydantic import dataclasses as checked

from datasets._layout import spelling

from ..plain_data import read_json
from ..runtime.files import write_file
from ..runtime.text import reason
from .archive_names import ARCHIVES, LEDGER, LOCK, safe_parts
from .download import FetchError, Remote
from .plan import FetchItem

UNPACKED = 1.1  # pictures hardly shrink, and every file fills its last block in part
YES, NO, PART, CHANGED = "yes", "no", "part", "changed"
Facts = Sequence[tuple[int, str | None]]  # size and checksum of each file of an item


@checked.dataclass(frozen=True)
class Note:
    """A file that was fetched: its size and checksum, the generators that were unpacked of it
    (None: all; an empty list: it was begun), and whether another version is going over it."""

    size: int | None
    sum: str | None
    only: tuple[str, ...] | None
    replacing: bool = False

    def differs(self, size: int | None, checksum: str | None) -> bool:
        """Whether a file of that size and checksum is another one, as far as both are known."""
        if None not in (self.size, size) and self.size != size:
            return True
        # Checksums of two kinds cannot be compared.
        sums = {text for text in (self.sum, checksum) if text}
        return len(sums) == 2 and len({text.partition(":")[0] for text in sums}) == 1


_NOTES = TypeAdapter(dict[str, Note])


@dataclass
class Ledger:
    """Files that were fetched into a root, by origin and name there."""

    root: Path
    notes: dict[str, Note] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Ledger:
        """The ledger of a root; an empty one where there is none. Raises FetchError."""
        path = root / LEDGER
        try:
            return cls(root, _NOTES.validate_python(read_json(path)))
        except (FileNotFoundError, NotADirectoryError):
            return cls(root)
        # Not taken for empty: all would be fetched again, over what is there.
        except (OSError, ValueError) as error:
            what = f"found others ({reason(error)}): delete it"
            raise FetchError(f"{path}: expected notes on files; {what}") from error

    def state(self, item: FetchItem, only: frozenset[str] | None) -> str:
        """YES, NO, PART (there, but not all generators that are wanted) or CHANGED (there, but the
        origin has another file now)."""
        notes = [self.notes.get(label) for label in item.labels()]
        known = [note for note in notes if note is not None]
        # The disk before the ledger: a folder that a person deleted is to be fetched again.
        if not known or not self._stands(item):
            return NO
        # Some volumes alone are known where the origin has cut the archive anew.
        if None in notes or any(note.replacing for note in known):
            return CHANGED
        stated = [(f.size, f.checksum) for f in item.files]
        stated = stated or [(path.stat().st_size, None) for path in item.local]
        if any(note.differs(*facts) for note, facts in zip(known, stated, strict=True)):
            return CHANGED
        if known[0].only is None:
            return YES
        unpacked = {*map(spelling, known[0].only)}
        return YES if only is not None and {*map(spelling, only)} <= unpacked else PART

    def _stands(self, item: FetchItem) -> bool:
        """Whether anything of an item is on disk: it may have been deleted by hand. One name is
        enough, for a look at all pictures would take minutes."""
        folder = self.root / item.into
        if not item.is_archive:
            return (folder / Path(item.name).name).is_file()
        try:
            with os.scandir(folder) as entries:
                # Hidden ones are the program's own, or the system's (.DS_Store).
                return any(not entry.name.startswith(".") for entry in entries)
        except OSError:
            return False

    def names(self, prefix: str) -> list[str]:
        """Names of the completely fetched files below `prefix`, without it."""
        return [
            label.removeprefix(prefix)
            for label, note in self.notes.items()
            if label.startswith(prefix) and note.only != () and not note.replacing
        ]

    def unpacked(self, item: FetchItem, only: frozenset[str] | None) -> frozenset[str] | None:
        """The generators that are wanted and those that were unpacked before; None: all. They are
        added up, for unpacking more takes nothing away."""
        notes = [self.notes[label] for label in item.labels() if label in self.notes]
        before = notes[0].only if notes else ()
        return None if only is None or before is None else only | {*before}

    def begin(self, item: FetchItem, facts: Facts, state: str) -> None:
        """Notes that an item of that state is about to be unpacked, so that an interruption
        shows: what is on disk then may be of this version, or of two."""
        if state == CHANGED:
            self._write(item, facts, self.unpacked(item, frozenset()), replacing=True)
        elif state == NO:  # PART stays what it is until more is there
            self._write(item, facts, frozenset())

    def add(self, item: FetchItem, facts: Facts, only: frozenset[str] | None) -> None:
        """Notes that an item is there."""
        self._write(item, facts, self.unpacked(item, only))

    def _write(
        self, item: FetchItem, facts: Facts, only: frozenset[str] | None, replacing: bool = False
    ) -> None:
        names = None if only is None else tuple(sorted(only))
        for label, (size, checksum) in zip(item.labels(), facts, strict=True):
            self.notes[label] = Note(size, checksum, names, replacing)
        text = _NOTES.dump_json(self.notes, indent=1, exclude_defaults=True)
        write_file(self.root / LEDGER, text + b"\n")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Makes a root and keeps other runs away from it. Raises FetchError where one is at work."""
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    # The system frees the lock of a process that was killed; a file of our own would stay.
    lock = FileLock(root / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FetchError(f"{root}: another fetch_data.py is at work there: wait for it") from error
    try:
        yield
    finally:
        lock.release()


def stored_at(root: Path, item: FetchItem, file: Remote) -> Path:
    """The file that a download is kept in. Raises FetchError for a name that leads elsewhere."""
    origin = item.entry.origin
    where = origin.where.partition("://")[2] or origin.where
    return root.joinpath(ARCHIVES, origin.kind, *safe_parts(where), *safe_parts(file.name))


class Space(NamedTuple):
    """Bytes on the disk of a root."""

    need: int
    free: int


def space(items: Sequence[FetchItem], ledger: Ledger, keep: bool) -> Space:
    """Bytes that downloading and unpacking take at their peak, as far as sizes are known, beyond
    what is on the disk of the ledger's root already. Archives go one by one as they are unpacked,
    unless `keep`."""
    root, need = ledger.root, 0
    archives = [0]  # bytes to come of each
    unpacked: Counter[Path] = Counter()
    begun: set[Path] = set()
    for item in items:
        here = sum(_bytes_here(root, item, file) for file in item.files)
        more = 0 if item.local else max(0, (item.size or 0) - here)
        if not item.is_archive:
            need += more
            continue
        archives.append(more)
        # The archive that this one holds lies beside what comes out of it for a while.
        times = UNPACKED + bool(item.entry.holds)
        unpacked[root / item.into] += round((item.size or 0) * times)
        if any(label in ledger.notes for label in item.labels()):
            begun.add(root / item.into)
    # Several archives share a folder, so what is there is taken off their sum, and once. Of one
    # that was not begun here it is a person's own, which takes nothing off.
    for folder, size in unpacked.items():
        need += max(0, size - (_bytes_below(folder) if folder in begun else 0))
    # The root may not be there yet; the disk is that of the folder it will be made in.
    existing = next(path for path in (root, *root.absolute().parents) if path.is_dir())
    need += sum(archives) if keep else max(archives)
    return Space(need, shutil.disk_usage(existing).free)


def _bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder but those that begin with a dot, as the program's own."""
    total = 0
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        total += sum(Path(base, n).lstat().st_size for n in names if not n.startswith("."))
    return total


def _bytes_here(root: Path, item: FetchItem, file: Remote) -> int:
    """Bytes of a download that are on disk, whole or begun."""
    path = stored_at(root, item, file)
    paths = (path, path.with_name(f"{path.name}.part"))
    return max((p.stat().st_size for p in paths if p.is_file()), default=0)
