"""Which family lists what a user names. Standard library only."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ._archives import FORMATS, LMDB_DATA
from ._members import files_below
from ._record import LayoutError, is_picture

TARS = {  # ending of a compressed tar -> what it is
    ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.bz2": "tar.bz2", ".tbz2": "tar.bz2",
    ".tbz": "tar.bz2", ".tar.xz": "tar.xz", ".txz": "tar.xz", ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
}  # fmt: skip
COMPRESSED_TARS = tuple(TARS)
SHARDS = frozenset({"tar_shards", "parquet_file"})
ARCHIVES = (*FORMATS, *COMPRESSED_TARS)
CHOICES = f"a folder or a .csv file, or one of {', '.join(FORMATS)}"
log = logging.getLogger(__name__)


def _file_kind(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(COMPRESSED_TARS):
        return "tar_shards"  # whose error says what to do
    return "csv_file" if name.endswith(".csv") else FORMATS.get(path.suffix.lower())


def _folder_kind(path: Path) -> str:
    """An LMDB; tar or Parquet files and no picture; or a folder of pictures."""
    if (path / LMDB_DATA).is_file():
        return "lmdb_file"
    found: frozenset[str] = frozenset()
    try:
        for file in files_below(path):
            if is_picture(file.name):
                return "folder"
            found |= SHARDS & {_file_kind(file)}
    except LayoutError:  # an unreadable folder, of which the family's own error tells
        return "folder"
    if len(found) > 1:
        raise LayoutError(f"{path}: expected shards of one kind; found .tar and .parquet files")
    return next(iter(found), "folder")


def kind_of(path: Path) -> str | None:
    """The family that lists what `path` is: a folder, a CSV or an archive; None for any other file
    and for nothing. Raises LayoutError for a folder with shards of two kinds."""
    try:
        is_folder = path.is_dir()
    except OSError:  # a name that is too long, a folder that may not be entered
        is_folder = False
    return _folder_kind(path) if is_folder else _file_kind(path)


def known_kind(path: Path) -> str:
    """`kind_of`. Raises LayoutError for nothing and for any other file as well."""
    kind = kind_of(path)
    if kind is None:
        found = "neither" if os.path.lexists(path) else "no such file or folder"
        raise LayoutError(f"{path}: expected {CHOICES}; found {found}")
    return kind


def tell_left_out(root: Path, kind: str) -> None:
    """Warns of archives below a folder that is listed as `kind`, which does not open them."""
    own = {"tar_shards": (".tar",), "parquet_file": (".parquet",)}.get(kind, ())
    others: list[str] = []
    count = 0
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if name[0] != "." and name != "lock.mdb" and name.lower().endswith(ARCHIVES):
                if own and name.lower().endswith(own):
                    continue
                count += 1
                others = [*others, os.path.relpath(Path(folder, name), root)][:1]
    if count:
        log.warning(
            "%s: %d archives beside what is listed, left out, as %r: name them one by one or "
            "unpack them", root, count, others[0],
        )  # fmt: skip
