"""Pictures in an LMDB: its keys are paths in UTF-8, its values the pictures' files.

Labelled by the folders that the paths name, as a folder is, or not at all. Either a file or a
folder with data.mdb. Needs the package lmdb, which trusts its files: a damaged one, unlike one that
is cut off, may end the process. Licence: that of the pictures' owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._archives import LMDB_DATA, ArchiveMember, Contents, check_size, is_listed, members
from ._paths import normal
from ._record import LayoutError, Record
from .folder import LAYOUT as FOLDERS

LAYOUT = f"an LMDB whose keys are paths in {FOLDERS}"


class Archive:
    """An open LMDB; `member` is a key."""

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise LayoutError(
                f"{path}: expected the package lmdb, to read it; found none: pip install lmdb"
            ) from error
        self._error = lmdb.Error
        try:
            self._environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
        except lmdb.Error as error:
            raise LayoutError(f"{path}: expected an LMDB; found none ({error})") from error
        # It is mapped into memory, where reading beyond the end kills the process.
        pages = self._environment.info()["last_pgno"] + 1
        size = pages * self._environment.stat()["psize"]
        self._size = path.stat().st_size
        if self._size < size:
            self._environment.close()
            raise LayoutError(
                f"{path}: expected an LMDB of {size} bytes; found {self._size}, an incomplete "
                "copy: copy it again (mdb_copy -c)"
            )

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            with self._environment.begin(buffers=True) as transaction:
                yield transaction
        except self._error as error:
            raise OSError(f"damaged LMDB: {error}") from error

    def members(self) -> list[str]:
        """All keys, sorted by their bytes."""
        with self._transaction() as transaction:
            keys = transaction.cursor().iternext(keys=True, values=False)
            return [bytes(key).decode("utf-8", "surrogateescape") for key in keys]

    def read(self, member: str) -> bytes:
        """The content of a member. Raises OSError: missing, damaged, over 1 GiB."""
        with self._transaction() as transaction:
            key = member.encode("utf-8", "surrogateescape")
            fits = len(key) <= self._environment.max_key_size()
            content = transaction.get(key) if fits else None
            if content is None:
                raise OSError("no such key in the LMDB")
            if len(content) > self._size:
                raise OSError("damaged LMDB: a value larger than the file")
            check_size(len(content))
            return bytes(content)

    def close(self) -> None:
        self._environment.close()


def _pictures(root: Path) -> Iterator[ArchiveMember]:
    path = root / LMDB_DATA if root.is_dir() else root
    for member in members(path, LAYOUT):
        name = normal(member, root)
        if is_listed(name):
            yield ArchiveMember(name, path, member, name)


def contents(root: Path) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError as that does."""
    return Contents(_pictures(Path(root)), Path(root), LAYOUT)


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """The pictures of an LMDB, sorted by key.

    Args:
        root: the file, or the folder with data.mdb.
        split, labelled: as in `_archives.Contents.records`.

    Raises:
        LayoutError: no LMDB or an incomplete one, the package lmdb is missing, no picture, a key
            that leads out, or a label is required and not stated.
    """
    return contents(root).records(split, labelled)
