"""Pictures in a zip file, labelled by the names of the folders inside or not at all.

Layouts: those of a folder, inside the file. Licence: that of the pictures' owner.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ._archives import ArchiveMember, Contents, check_size, is_listed, members
from ._paths import normal
from ._record import LayoutError, Record
from .folder import LAYOUT as FOLDERS

LAYOUT = f"a .zip file with {FOLDERS}"
ENCRYPTED = 1
# Those that can be unpacked a piece at a time: of the others a few bytes could fill the memory.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
    ValueError,
)  # fmt: skip


class Archive:
    """An open zip file; `member` is a name in it."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except BROKEN as error:
            raise LayoutError(
                f"{path}: expected {LAYOUT}; found none that can be read, perhaps an incomplete "
                f"one ({error})"
            ) from error

    def members(self) -> list[zipfile.ZipInfo]:
        """All that is in the file, in its order."""
        return self._zip.infolist()

    def read(self, member: str) -> bytes:
        """The content of a member. Raises OSError: missing, damaged, encrypted, over 1 GiB."""
        try:
            info = self._zip.getinfo(member)
        except KeyError as error:
            raise OSError("not in the archive any more") from error
        check_size(info.file_size)
        if info.flag_bits & ENCRYPTED:
            raise OSError("encrypted in its zip file: unpack it with the password")
        if info.compress_type not in METHODS:
            raise OSError(f"expected it stored or deflated; found method {info.compress_type}")
        try:
            with self._zip.open(info) as stream:
                content = stream.read(info.file_size + 1)
        except BROKEN as error:
            raise OSError(f"damaged in its zip file: {error}") from error
        if len(content) != info.file_size:
            raise OSError(f"damaged in its zip file: {len(content)} of {info.file_size} bytes")
        return content

    def close(self) -> None:
        self._zip.close()


def _pictures(root: Path) -> Iterator[ArchiveMember]:
    for info in members(root, LAYOUT):
        name = normal(info.filename, root)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise LayoutError(
                f"{root}: expected files and folders; found {info.filename!r}, a link: "
                "pack the pictures themselves"
            )
        if is_listed(name) and not info.is_dir():
            yield ArchiveMember(name, root, info.filename, name)


def contents(root: Path) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError as that does."""
    return Contents(_pictures(Path(root)), Path(root), LAYOUT)


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """The pictures of a zip file, sorted by key.

    Args:
        root: the file.
        split, labelled: as in `_archives.Contents.records`.

    Raises:
        LayoutError: no such file or none that can be read, no picture, a link or a path that
            leads out, a picture twice, or a label is required and not stated.
    """
    return contents(root).records(split, labelled)
