"""What a data set is made of: records and labels, and which files below a folder are pictures.

Every family and every room of the engine speaks in these. Hidden files and links to folders are
never followed. Standard library only.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

log = logging.getLogger(__name__)
# The endings of what `_images` decodes.
FORMATS = (
    "jpg jpeg jpe jfif mpo png apng webp bmp gif tif tiff ppm pgm pbm pnm tga jp2 j2k jpf jpx "
    "heic heics heif heifs hif avif"
)
SUFFIXES = frozenset("." + name for name in FORMATS.split())


class Label(IntEnum):
    """The one convention; sources that differ are converted where they are read."""

    REAL = 0
    FAKE = 1


class LayoutError(ValueError):
    """Pictures are not where, or not as, they should be; the message says how they should be."""


@dataclass(frozen=True, slots=True)
class Record:
    """One picture of a data set.

    `key`: its path relative to the data set's root, with forward slashes; unique in the set.
    `label`: None where unknown. `source`: the pool of reals that a fake is measured against
    ('' = all of the set). `generator`: what made it ('' for reals). `member`: where in the archive
    `path` it lies, in the words of datasets/_archives.py ('' = `path` is the picture's own file).
    `content`: the bytes of a picture that is in no file, as an upload is, and whose `path` is only
    a name; None otherwise. `fetch`: a function that brings them from elsewhere when they are asked
    for, in the process that decodes, or raises OSError; it can be pickled. `released`: when what
    made it came out, YYYY or YYYY-MM, where the data say so ('' = they do not). `error`: what is
    wrong with a picture that whoever lists it could not bring, which nobody then tries to read.
    """

    key: str
    path: Path
    label: Label | None = None
    source: str = ""
    generator: str = ""
    member: str = ""
    content: bytes | None = field(default=None, repr=False)
    released: str = ""
    error: str = ""
    fetch: Callable[[], bytes] | None = field(default=None, repr=False)


def is_special(path: Path) -> bool:
    """Whether a pipe, socket or device is there: opening one may wait without end."""
    try:
        return not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode))
    except (OSError, ValueError):  # nothing, or no name that a file can have
        return False


def is_picture(name: str) -> bool:
    """Whether the last extension, in any case, is one of a picture format."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 - pathlib takes ten times as long


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder from `root` on that holds pictures, with their names, sorted. Hidden files and
    folders are left out; so are, with a warning, folders that cannot be read, and links to folders,
    because they lead out of what the user named, or round in circles.

    Raises:
        LayoutError: `root` cannot be read.
    """

    def refuse(error: OSError) -> None:
        if Path(error.filename) == root:
            raise LayoutError(f"{root}: expected a readable folder; {error.strerror}") from error
        log.warning("%s: left out: %s", error.filename, error.strerror)

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in subfolders:
            if Path(folder, name).is_symlink():
                log.warning("%s: a link to a folder, left out: name its target", Path(folder, name))
        if names := sorted(n for n in files if not n.startswith(".") and is_picture(n)):
            yield Path(folder), names


def walk_pictures(root: Path) -> Iterator[Path]:
    """Every picture file below `root`, folder by folder, sorted, as `walk_folders` finds them.

    Raises:
        LayoutError: `root` cannot be read.
    """
    for folder, names in walk_folders(root):
        yield from (folder / name for name in names)


def walk_in_order(root: Path) -> Iterator[Path]:
    """Every picture file below `root`, as `walk_folders` finds them, in the order of their keys,
    with the names of one folder and of those above it in memory.

    Raises:
        LayoutError: `root` cannot be read.
    """
    try:
        names = _sorted_names(root)
    except OSError as error:
        raise LayoutError(f"{root}: expected a readable folder; {error.strerror}") from error
    for name in names:
        path = root / name
        if not name.endswith("/"):
            yield path
        elif path.is_symlink():
            log.warning("%s: a link to a folder, left out: name its target", path)
        else:
            try:
                yield from walk_in_order(path)
            except LayoutError as error:
                log.warning("%s: left out", error)


def _sorted_names(folder: Path) -> list[str]:
    """Names of the pictures and, with a slash behind them, folders in a folder that are not hidden,
    in the order of keys, in which that slash counts. Raises OSError."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:  # of which none is kept: there may be a million
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                names.append(f"{entry.name}/")
            elif is_picture(entry.name):
                names.append(entry.name)
    return sorted(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False
