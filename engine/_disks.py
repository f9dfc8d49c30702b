"""Zips of several disks (X.z01, X.z02, ..., X.zip), read as if they were one file.

Format: PKWARE's APPNOTE, sections 4.3 and 4.5.3. Members are found by disk number and offset within
that disk; zipfile of the standard library refuses those. Here the directory is written anew with
offsets from the first byte of the first disk, and stands behind the joined disks.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ._parts import Joined
from ._target import ExtractError

_END = struct.Struct("<4s4H2LH")  # end of central directory
_LOCATOR = struct.Struct("<4sLQL")  # where its zip64 form is
_END64 = struct.Struct("<4sQ2H2L4Q")
_HEADER = struct.Struct("<4s6H3L5H2L")  # one entry of the central directory
_LONGEST_COMMENT = 65535
_ZIP64 = 1  # id of the extra field with 64-bit sizes
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class _Directory:
    last_disk: int
    disk: int
    entries: int
    size: int
    offset: int


def as_one(parts: Sequence[Path]) -> Joined:
    """A reader of the disks that zipfile accepts.

    Raises:
        ExtractError: a disk is missing, or the directory is damaged.
    """
    joined = Joined(parts)
    if len(parts) == 1:
        return joined
    with io.BufferedReader(joined) as reader:
        try:
            found = _find(reader, joined.starts)
            if found.last_disk == 0:
                return Joined(parts)  # one zip that was cut up afterwards
            _check_disks(found, parts)
            reader.seek(joined.starts[found.disk] + found.offset)
            directory = _translated(reader.read(found.size), joined.starts)
        except (struct.error, IndexError) as error:
            raise ExtractError(f"its directory is damaged ({error}): get it again") from error
    return Joined([*parts, directory + _end(directory, found.entries, joined.starts[-1])])


def _find(reader: BinaryIO, starts: Sequence[int]) -> _Directory:
    """The record that says where the directory is."""
    first = max(starts[-2], starts[-1] - _END.size - _LONGEST_COMMENT)
    reader.seek(first)
    tail = reader.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise ExtractError(
            "expected a zip's directory in its last part; found none: damaged or incomplete"
        )
    _, this, disk, _, entries, size, offset, _ = _END.unpack_from(tail, at)
    place = first + at - _LOCATOR.size
    if place >= 0:
        reader.seek(place)
        name, where, start, _ = _LOCATOR.unpack(reader.read(_LOCATOR.size))
        if name == b"PK\6\7":
            reader.seek(starts[where] + start)
            record = _END64.unpack(reader.read(_END64.size))
            if record[0] != b"PK\6\6":
                raise ExtractError("its 64-bit directory is damaged, or a part is missing")
            this, disk, _, entries, size, offset = record[4:]
    return _Directory(this, disk, entries, size, offset)


def _check_disks(found: _Directory, parts: Sequence[Path]) -> None:
    wanted = found.last_disk + 1
    if len(parts) < wanted:
        missing = parts[-1].with_suffix(f".z{len(parts):02}").name
        raise ExtractError(f"expected {wanted} parts; found {len(parts)}: {missing} is missing")
    if len(parts) > wanted:
        raise ExtractError(
            f"expected {wanted} parts; found {len(parts)}: {parts[wanted - 1].name} is of another"
        )


def _translated(directory: bytes, starts: Sequence[int]) -> bytes:
    """The directory's entries with offsets in the joined disks."""
    made, at = [], 0
    while at < len(directory):
        values = list(_HEADER.unpack_from(directory, at))
        if values[0] != b"PK\1\2":
            raise ExtractError("its directory is damaged, or a part is missing: get it again")
        name_size, extra_size, comment_size = values[10:13]
        at += _HEADER.size
        name = directory[at : at + name_size]
        extra = directory[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size
        comment = directory[at : at + comment_size]
        at += comment_size
        others, sizes = _sizes(extra, values)
        packed, unpacked, disk, offset = sizes
        field = struct.pack("<2H3Q", _ZIP64, 24, unpacked, packed, starts[disk] + offset)
        values[8] = values[9] = values[16] = _FULL32
        values[11], values[13] = len(field + others), 0
        made += [_HEADER.pack(*values), name, field, others, comment]
    return b"".join(made)


def _sizes(extra: bytes, values: Sequence[int]) -> tuple[bytes, tuple[int, int, int, int]]:
    """The extra fields but zip64's; size in the archive, unpacked size, disk, offset in it."""
    others, wide, at = b"", b"", 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        content = extra[at : at + 4 + size]
        if kind == _ZIP64:
            wide = content[4:]
        else:
            others += content
        at += 4 + size
    packed, unpacked, disk, offset = values[8], values[9], values[13], values[16]
    stream = io.BytesIO(wide)
    if unpacked == _FULL32:
        unpacked = struct.unpack("<Q", stream.read(8))[0]
    if packed == _FULL32:
        packed = struct.unpack("<Q", stream.read(8))[0]
    if offset == _FULL32:
        offset = struct.unpack("<Q", stream.read(8))[0]
    if disk == _FULL16:
        disk = struct.unpack("<L", stream.read(4))[0]
    return others, (packed, unpacked, disk, offset)


def _end(directory: bytes, entries: int, start: int) -> bytes:
    """The records that end a zip of one disk whose directory is at `start`."""
    size = len(directory)
    return (
        _END64.pack(
            b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, entries, entries, size, start
        )
        + _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
        + _END.pack(b"PK\5\6", 0, 0, _FULL16, _FULL16, _FULL32, _FULL32, 0)
    )  # fmt: skip
