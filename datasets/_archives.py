"""Pictures inside archives: open archives, a few at a time, and the bytes of their members.

A format is a module of this package with a class `Archive`, made of a path (LayoutError when that
is none of its kind), which has `read(member) -> bytes` and `close()`. Archives stay open in the
process that opened them; one that was forked opens its own, because it would share the place in the
file with its parent.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._record import LayoutError

FORMATS = {
    ".tar": "tar_shards",
    ".zip": "zip_file",
    ".lmdb": "lmdb_file",
    ".mdb": "lmdb_file",
    ".parquet": "parquet_file",
}
LMDB_DATA = "data.mdb"  # the file of an LMDB that is a folder
MAX_BYTES = 1 << 30
AT_ONCE = 8


@dataclass(frozen=True)
class _Open:
    """An open archive: what its file was like then, and where it lay."""

    version: tuple[int, int]
    place: Path
    archive: Any


class _Pool:
    """The archives used last, `AT_ONCE` at most; `lock` is for whoever uses one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()

    def get(self, path: Path) -> Any:
        """The archive of a file, opened anew if the file has changed."""
        status = path.stat()
        file, version = (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_size)
        if file not in self._open or self._open[file].version != version:
            place = path.resolve()
            for known, other in list(self._open.items()):
                if known == file or other.place == place:
                    self._open.pop(known).archive.close()
            while len(self._open) >= AT_ONCE:
                self._open.popitem(last=False)[1].archive.close()
            self._open[file] = _Open(version, place, _make(path))
        self._open.move_to_end(file)
        return self._open[file].archive

    def forget(self) -> None:
        """In a process that was forked: lets go of the parent's archives and of its lock."""
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


def members(path: Path, layout: str) -> list[Any]:
    """What the archive's method of this name lists.

    Raises:
        LayoutError: there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise LayoutError(f"{path}: expected {layout}; found none")
    with _pool.lock:
        try:
            found: list[Any] = _pool.get(path).members()
        except OSError as error:
            raise LayoutError(
                f"{path}: expected {layout}; found a damaged file ({error})"
            ) from error
    return found


def check_size(size: int) -> None:
    """Raises OSError for a member over 1 GiB, before it fills the memory."""
    if size > MAX_BYTES:
        raise OSError("too large: over 1 GiB")
