"""Archives that come in several files: which files belong together, and reading them as one."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from datasets._kinds import TARS

KINDS = {".tar": "tar", **TARS, ".zip": "zip", ".7z": "7z"}
_DISK = re.compile(r"(?P<stem>.+)\.z(?P<part>\d{2,5})", re.IGNORECASE)
_PIECE = re.compile(r"(?P<name>.+)\.(?P<part>\d{1,5}|[a-z]{2,3})")
GAP = 25  # parts that may be missing in a row; what comes later is no part
BUFFER = 1 << 20


def kind_of(name: str) -> str | None:
    """The value of KINDS for an archive in one file, or for the name all its pieces share."""
    lower = name.lower()
    return next((kind for end, kind in KINDS.items() if lower.endswith(end)), None)


def stem_of(name: str) -> str:
    """The last part of a path, without the ending of an archive."""
    last = PurePosixPath(name).name
    end = next((end for end in KINDS if last.lower().endswith(end)), "")
    return last[: len(last) - len(end)] or last


@dataclass(frozen=True)
class Group:
    """Files that make one archive, or a single file that is none. `name`: that of the whole;
    `parts`: in the order of their bytes; `missing`: the first one that is not there."""

    name: str
    parts: tuple[str, ...]
    missing: str | None = None


@dataclass
class _Found:
    whole: str | None = None
    disks: dict[int, str] = field(default_factory=dict)
    pieces: dict[str, str] = field(default_factory=dict)


def group(names: Iterable[str]) -> list[Group]:
    """Sorts file names into archives: X.zip with X.z01, X.z02 and so on before it; X.tar.gz.0,
    X.tar.gz.1 (as numbers, from 0 or 1); X.tar.gz.aa, X.tar.gz.ab. Folders count, case does not.
    What is only named like a part, such as X.tar.gz.sha, is a file by itself."""
    found: dict[str, _Found] = {}
    shown: dict[str, str] = {}
    for name in names:
        whole, part, disk = _place(name)
        key = whole.lower()
        shown.setdefault(key, whole)
        entry = found.setdefault(key, _Found())
        if part is None:
            entry.whole = shown[key] = name
        elif disk:
            entry.disks[int(part)] = name
        else:
            entry.pieces[part] = name
    return [one for key, entry in found.items() for one in _groups(shown[key], entry)]


def _place(name: str) -> tuple[str, str | None, bool]:
    """Name of the whole, which part of it this is (None: all of it), whether it is a zip's disk."""
    if kind_of(name):
        return name, None, False
    if match := _DISK.fullmatch(name):
        return f"{match['stem']}.zip", match["part"], True
    if (match := _PIECE.fullmatch(name)) and kind_of(match["name"]):
        return match["name"], match["part"], False
    return name, None, False


def _groups(name: str, found: _Found) -> list[Group]:
    if found.whole and not found.disks:
        return [Group(found.whole, (found.whole,))]
    if found.disks:
        return [_disks(name, found)]
    parts, missing = max((_run(found.pieces, *style) for style in _STYLES), key=lambda r: len(r[0]))
    whole = [Group(name, parts, missing and f"{name}.{missing}")] if parts else []
    return whole + [Group(one, (one,)) for one in found.pieces.values() if one not in parts]


def _disks(name: str, found: _Found) -> Group:
    stem = name[: -len(".zip")]
    wanted = {number: f"{stem}.z{number:02}" for number in range(1, max(found.disks) + 1)}
    missing = [wanted[number] for number in wanted if number not in found.disks]
    parts = [found.disks[number] for number in sorted(found.disks)]
    return Group(
        name,
        (*parts, *([found.whole] if found.whole else [])),
        missing[0] if missing else None if found.whole else name,
    )


def _padded(width: int, number: int) -> str:
    return f"{number:0{width}}"  # 7-Zip goes on with .1000 behind .999


def _letters(width: int, number: int) -> str:
    """aa, ab, ..., as split(1) counts."""
    digits = (number // 26**place % 26 for place in reversed(range(width)))
    return "".join(chr(ord("a") + digit) for digit in digits)


# How the endings of parts count, and from which number on at the latest.
_STYLES = (
    *((partial(_padded, width), 1) for width in range(1, 6)),
    *((partial(_letters, width), 0) for width in (2, 3)),
)


def _run(
    pieces: Mapping[str, str], ending: Callable[[int], str], first: int
) -> tuple[tuple[str, ...], str | None]:
    """The files whose endings count so, over small gaps, and the first ending in a gap."""
    parts: list[str] = []
    missing = gap = None
    number = at = 0 if ending(0) in pieces else first
    while number - at <= GAP:
        if name := pieces.get(ending(number)):
            parts.append(name)
            missing, at = gap, number + 1
        else:
            gap = gap or ending(number)
        number += 1
    return tuple(parts), missing


def beside(path: Path) -> dict[str, Path]:
    """The files of its folder that make one archive with a file, itself too, by name.

    Raises OSError when the folder cannot be read.
    """
    for found in group(sorted(other.name for other in path.parent.iterdir())):
        if path.name in (found.name, *found.parts):
            return {part: path.with_name(part) for part in found.parts}
    return {path.name: path}


class Joined(io.RawIOBase):
    """Files one after the other as one seekable file; no copy is made.

    `start`, `size`: the part of it to read (None: to the end). `advance`, once set, is told how
    many bytes further than ever before a read came.
    """

    def __init__(self, parts: Sequence[Path], start: int = 0, size: int | None = None) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(part.stat().st_size for part in parts)]
        self._first = start
        self._size = max(0, self._starts[-1] - start) if size is None else size
        self._at = self._furthest = 0
        self._open: BinaryIO | None = None
        self._number = -1
        self.advance: Callable[[int], None] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            # zipfile and others look for an OSError where a file is too short.
            raise OSError(f"expected a place within the file; found {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        at = self._first + self._at
        if wanted <= 0 or at >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, at) - 1
        stream = self._part(number)
        stream.seek(at - self._starts[number])
        data = stream.read(min(wanted, self._starts[number + 1] - at))
        buffer[: len(data)] = data
        self._at += len(data)
        if self.advance and self._at > self._furthest:
            self.advance(self._at - self._furthest)
            self._furthest = self._at
        return len(data)

    def _part(self, number: int) -> BinaryIO:
        if self._open is None or number != self._number:
            if self._open is not None:
                self._open.close()
            self._open = self._parts[number].open("rb")
            self._number = number
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        super().close()
