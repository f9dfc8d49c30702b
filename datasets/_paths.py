"""Names and paths that lists and archives state, and what lies on disk.

Called by every family, and for the text of messages by the engine. A stated path that is absolute
or leads upwards is refused, never repaired. Standard library only.
"""

from __future__ import annotations

import heapq
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ._record import LayoutError

ALL = "all"  # of a set's splits, of a training's epochs
SHOWN = 8
UNSAFE = re.compile(r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\0")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def visible(text: str, kept: str = "") -> str:
    """The text on one line: line breaks, controls, marks that turn the direction of writing, and
    undecodable bytes as backslash escapes, all but the characters `kept`."""
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in kept
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def listed(folder: Path) -> str:
    """The first few names in a folder, or what is in its place."""
    try:
        with os.scandir(folder) as entries:
            names = heapq.nsmallest(SHOWN + 1, (entry.name for entry in entries))
    except NotADirectoryError:
        return "a file"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(map(visible, names[:SHOWN])) + more or "an empty folder"


def _leads_out(name: str, where: Path, hint: str) -> LayoutError:
    shown = f"{name[:200]!r}{hint and ': '}{hint}"
    return LayoutError(f"{where}: expected paths that stay inside the data; found {shown}")


def normal(name: str, where: Path, hint: str = "") -> str:
    """A path that `where` states, with forward slashes and without empty and `.` parts.

    Raises:
        LayoutError: it is absolute, leads upwards or has a NUL; `hint` says what to do.
    """
    if UNSAFE.search(name):
        raise _leads_out(name, where, hint)
    return "/".join(p for p in name.replace("\\", "/").split("/") if p not in ("", "."))


def relative(name: str, where: Path, hint: str = "") -> str:
    """`normal` of a picture's path. Raises LayoutError as that does, and for an empty one."""
    path = normal(name, where, hint)
    if not path:
        raise _leads_out(name, where, hint)
    return path


def split_named(name: str) -> str:
    """The split that a word names: train, val or test in any case, or another word for one, such as
    validation; otherwise the word itself."""
    word = name.strip()
    return SPLITS.get(word.casefold(), word)


def is_split(name: str) -> bool:
    """Whether a folder's name is that of a split."""
    return name.casefold() in SPLITS


def split_depths(folders: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Which part of each folder's path names its split: the first that does; none, no entry.

    LSUN, by whose classes many sets are sorted, has one called train: below the top, a `train` that
    stands beside other folders, none of which is a split, is no split either.
    """
    known = set(folders)
    beside: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for parts in known:
        for depth, name in enumerate(parts):
            beside[parts[:depth]].add(name)

    def is_one(parts: tuple[str, ...], depth: int) -> bool:
        names = beside[parts[:depth]]
        splits = {split_named(name) for name in names if is_split(name)}
        return is_split(parts[depth]) and (
            depth == 0 or splits != {"train"} or all(map(is_split, names))
        )

    depths: dict[tuple[str, ...], int] = {}
    for parts in known:
        for depth in range(len(parts)):
            if is_one(parts, depth):
                depths[parts] = depth
                break
    return depths
