"""Which family lists what a user names, and what in a folder its listing leaves out.

Called by the package's `contents`, and by the command line before anything is loaded. Names and
what lies in a folder decide; no file is opened. Standard library only.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ._archives import FORMATS, LMDB_DATA, files_below
from ._record import LayoutError, is_picture, is_special

TARS = {  # ending of a compressed tar -> what it is
    ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.bz2": "tar.bz2", ".tbz2": "tar.bz2",
    ".tbz": "tar.bz2", ".tar.xz": "tar.xz", ".txz": "tar.xz", ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
}  # fmt: skip
COMPRESSED_TARS = tuple(TARS)
SHARDS = frozenset({"tar_shards", "parquet_file"})
ARCHIVES = (*FORMATS, *COMPRESSED_TARS)
CHOICES = f"a folder or a .csv file, or one of {', '.join(FORMATS)}"
SHOWN = 5  # extensions that a warning counts
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
    shards: frozenset[str] = frozenset()
    try:
        for file in files_below(path):
            if is_picture(file.name):
                return "folder"
            shards |= SHARDS & {_file_kind(file)}
    except LayoutError:  # an unreadable folder, of which the family's own error tells
        return "folder"
    if len(shards) > 1:
        raise LayoutError(f"{path}: expected shards of one kind; found .tar and .parquet files")
    return next(iter(shards), "folder")


def kind_of(path: Path) -> str | None:
    """The family that lists what `path` is: a folder, a CSV or an archive, by its name alone where
    there is nothing; None for any other file. Raises LayoutError for a folder with shards of two
    kinds."""
    try:
        is_folder = path.is_dir()
    except OSError:  # a name that is too long, a folder that may not be entered
        is_folder = False
    if is_folder:
        return _folder_kind(path)
    return None if is_special(path) else _file_kind(path)


def known_kind(path: Path) -> str:
    """`kind_of`. Raises LayoutError for nothing and for any other file as well."""
    there = os.path.lexists(path)
    kind = kind_of(path) if there else None
    if kind is None:
        instead = "neither" if there else "no such file or folder"
        raise LayoutError(f"{path}: expected {CHOICES}; found {instead}")
    return kind


def csv_roots(paths: Sequence[Path], roots: Sequence[Path]) -> list[Path | None]:
    """For each path, where the paths in that CSV start from; None = from its own folder.

    Args:
        paths: of CSV files, and of other data sets, which have no such root.
        roots: none, one for all CSV files, or one for each of them, in their order.

    Raises:
        LayoutError: neither one nor as many as CSV files.
    """
    if len(roots) < 2:
        return [*roots, None][:1] * len(paths)
    tables = [kind_of(path) == "csv_file" for path in paths]
    if sum(tables) != len(roots):
        raise LayoutError(
            f"--csv_root: expected one for all CSV files, or one for each of the {sum(tables)}; "
            f"found {len(roots)}"
        )
    rest = iter(roots)
    return [next(rest) if table else None for table in tables]


def tell_left_out(root: Path, kind: str) -> None:
    """Warns of the files below a folder that its listing as `kind` leaves out: archives, which it
    does not open, and how many of which other kinds."""
    own = {"tar_shards": (".tar",), "parquet_file": (".parquet",)}.get(kind, ())
    archives: list[str] = []
    others: Counter[str] = Counter()
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            lower = name.lower()
            if name[0] == "." or is_picture(name) or lower == "lock.mdb" or lower.endswith(own):
                continue
            if lower.endswith(ARCHIVES):
                archives.append(os.path.relpath(Path(folder, name), root))
            else:
                others[os.path.splitext(lower)[1] or "without extension"] += 1  # noqa: PTH122 - quick
    if archives:
        log.warning(
            "%s: %d archives beside what is listed, left out, as %r: name them one by one or "
            "unpack them", root, len(archives), min(archives),
        )  # fmt: skip
    if others:
        often = sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))
        kinds = ", ".join(f"{count} {name}" for name, count in often[:SHOWN])
        more = ", …" if len(others) > SHOWN else ""
        files = "file" if others.total() == 1 else "files"
        log.warning("%s: left out %d other %s: %s%s", root, others.total(), files, kinds, more)
