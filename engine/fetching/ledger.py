"""What was fetched into a folder already, and whether the rest fits on its disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from datasets._layout import spelling

from ..plain_data import read_json
from ..runtime.files import write_file
from .archive_names import ARCHIVES, LEDGER, LOCK, safe_parts
from .download import FetchError, Remote
from .plan import FetchItem

UNPACKED = 1.1  # pictures hardly shrink, and every file fills its last block in part
YES, NO, PART, CHANGED = "yes", "no", "part", "changed"


@dataclass
class Ledger:
    """What was fetched into a root: of each file size, checksum, and the generators that were
    unpacked (None: all; an empty list: it was begun); `replacing` while another version of it goes
    over the old one."""

    root: Path
    files: dict[str, dict[str, object]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Ledger:
        """The ledger of a root; an empty one where there is none. Raises FetchError."""
        path = root / LEDGER
        try:
            files = read_json(path)
        except (FileNotFoundError, NotADirectoryError):
            return cls(root)
        # Not taken for empty: all would be fetched again, over what is there.
        except (OSError, ValueError, RecursionError) as error:
            raise FetchError(f"{path}: expected JSON; found none ({error}): delete it") from error
        if not isinstance(files, dict) or not all(isinstance(v, dict) for v in files.values()):
            raise FetchError(f"{path}: expected names with sizes; found something else: delete it")
        return cls(root, files)

    def state(self, item: FetchItem, only: frozenset[str] | None) -> str:
        """YES, NO, PART (there, but not all generators that are wanted) or CHANGED (there, but the
        origin has another file now)."""
        notes = [self.files.get(key) for key in item.labels()]
        known = [note for note in notes if note is not None]
        # The disk before the ledger: a folder that a person deleted is to be fetched again.
        if not known or not self._stands(item):
            return NO
        # Some volumes alone are known where the origin has cut the archive anew.
        if None in notes or any(note.get("replacing") for note in known):
            return CHANGED
        stated = [(f.size, f.checksum) for f in item.files]
        stated = stated or [(path.stat().st_size, None) for path in item.local]
        for note, (size, checksum) in zip(known, stated, strict=True):
            if _differ(note.get("size"), size) or _differ(note.get("sum"), checksum):
                return CHANGED
        kept = known[0].get("only")
        if kept is None:
            return YES
        spelled = {*map(spelling, _names(kept))}
        return YES if only is not None and {*map(spelling, only)} <= spelled else PART

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
            key.removeprefix(prefix)
            for key, note in self.files.items()
            if key.startswith(prefix) and note.get("only") != [] and not note.get("replacing")
        ]

    def kept(self, item: FetchItem, only: frozenset[str] | None) -> frozenset[str] | None:
        """The generators that are wanted and those that were unpacked before; None: all. They are
        added up, for unpacking more takes nothing away."""
        notes = [self.files[key] for key in item.labels() if key in self.files]
        before = notes[0].get("only") if notes else []
        return None if only is None or before is None else only | _names(before)

    def begin(self, item: FetchItem, facts: Sequence[tuple[int, str | None]], state: str) -> None:
        """Writes down that an item of that state is about to be unpacked, so that an interruption
        shows: what is on disk then may be of this version, or of two."""
        if state not in (NO, CHANGED):  # PART stays what it is until more is there
            return
        keys = item.labels()
        before = self.kept(item, frozenset())
        names = None if before is None else sorted(before)
        for key, (size, checksum) in zip(keys, facts, strict=True):
            note: dict[str, object] = {"size": size, "sum": checksum, "only": []}
            replaced = note | {"only": names, "replacing": True}
            self.files[key] = replaced if state == CHANGED else note
        self._write()

    def add(
        self, item: FetchItem, facts: Sequence[tuple[int, str | None]], only: frozenset[str] | None
    ) -> None:
        """Writes down that an item is there. `facts`: size and checksum of each file."""
        kept = self.kept(item, only)
        for key, (size, checksum) in zip(item.labels(), facts, strict=True):
            names = None if kept is None else sorted(kept)
            self.files[key] = {"size": size, "sum": checksum, "only": names}
        self._write()

    def _write(self) -> None:
        write_file(self.root / LEDGER, json.dumps(self.files, indent=1) + "\n")


def _differ(one: object, other: object) -> bool:
    """Whether both are known and not the same; checksums of two kinds cannot be compared."""
    if one is None or other is None:
        return False
    kinds = {str(value).partition(":")[0] for value in (one, other) if isinstance(value, str)}
    return one != other and len(kinds) < 2


def _names(value: object) -> set[str]:
    """The names in a list of the ledger, which anybody may have edited."""
    return {str(one) for one in value} if isinstance(value, list) else set()


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Makes a root and keeps other runs away from it. Raises FetchError where one is at work."""
    from filelock import FileLock, Timeout

    # The system frees the lock of a process that was killed; a file of our own would stay.
    root.mkdir(parents=True, exist_ok=True)
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
    place = origin.where.partition("://")[2] or origin.where
    return root.joinpath(ARCHIVES, origin.kind, *safe_parts(place), *safe_parts(file.name))


@dataclass(frozen=True)
class Space:
    """Bytes on the disk of a root."""

    need: int
    free: int


def space(items: Sequence[FetchItem], ledger: Ledger, keep: bool) -> Space:
    """What downloading and unpacking takes at its peak, as far as sizes are known, beyond what is
    on the disk of the ledger's root already. Archives go one by one as they are unpacked, unless
    `keep`."""
    root = ledger.root
    need = archives = largest = 0
    unpacked: dict[Path, int] = {}
    begun: set[Path] = set()
    for item in items:
        here = sum(_bytes_here(root, item, file) for file in item.files)
        more = 0 if item.local else max(0, (item.size or 0) - here)
        if item.is_archive:
            folder = root / item.into
            # The archive that this one holds lies beside what comes out of it for a while.
            times = UNPACKED + (1 if item.entry.holds else 0)
            unpacked[folder] = unpacked.get(folder, 0) + round((item.size or 0) * times)
            if any(key in ledger.files for key in item.labels()):
                begun.add(folder)
            archives += more
            largest = max(largest, more)
        else:
            need += more
    # Several archives share a folder, so what is there is taken off their sum, and once. Of one
    # that was not begun here it is a person's own, which takes nothing off.
    for folder, size in unpacked.items():
        need += max(0, size - (_bytes_below(folder) if folder in begun else 0))
    # The root may not be there yet; the disk is that of the folder it will be made in.
    existing = next(path for path in (root, *root.absolute().parents) if path.is_dir())
    return Space(need + (archives if keep else largest), shutil.disk_usage(existing).free)


def _bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder but those that begin with a dot, as the program's own."""
    total = 0
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                total += Path(base, name).lstat().st_size
    return total


def _bytes_here(root: Path, item: FetchItem, file: Remote) -> int:
    """Bytes of a download that are on disk, whole or begun."""
    path = stored_at(root, item, file)
    found = [p.stat().st_size for p in (path, path.with_name(f"{path.name}.part")) if p.is_file()]
    return max(found, default=0)
