"""Writes small archives of every kind that data sets come in, split ones and wrong ones too."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

Files = Mapping[str, bytes]
SPLIT = b"PK\7\x08"


def pictures(count: int = 6, folder: str = "a", size: int = 3000) -> dict[str, bytes]:
    """Names and contents that do not shrink, as pictures do not."""
    made = {}
    for number in range(count):
        state, content = number + 1, bytearray()
        while len(content) < size:
            state = zlib.crc32(state.to_bytes(8, "big"), state & 0xFFFF)
            content += state.to_bytes(4, "big")
        made[f"{folder}/{number:03}.png"] = bytes(content)
    return made


def make_tar(
    path: Path, files: Files, change: Callable[[tarfile.TarInfo], None] | None = None
) -> Path:
    """A tar, compressed as its name says; `change` alters each header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            if change:
                change(info)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def make_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_7z(path: Path, files: Files, password: str | None = None, stored: bool = False) -> Path:
    import py7zr

    path.parent.mkdir(parents=True, exist_ok=True)
    filters = [{"id": py7zr.FILTER_COPY}] if stored else None
    with py7zr.SevenZipFile(path, "w", filters=filters, password=password) as archive:
        for name, content in files.items():
            archive.writestr(content, name)
    return path


def cut(path: Path, size: int, ending: Callable[[int], str]) -> list[Path]:
    """Replaces a file by pieces of `size` bytes; `ending` names them by their number from 0."""
    content = path.read_bytes()
    path.unlink()
    pieces = []
    for number in range(-(-len(content) // size)):
        piece = path.with_name(path.name + ending(number))
        piece.write_bytes(content[number * size : (number + 1) * size])
        pieces.append(piece)
    return pieces


def make_disks(
    folder: Path, stem: str, files: Files, size: int, wide: bool = False, stored: bool = False
) -> list[Path]:
    """A zip over disks of `size` bytes: stem.z01, stem.z02, ..., stem.zip. Members are found by
    disk and offset; `wide`: by the 64-bit records."""
    folder.mkdir(parents=True, exist_ok=True)
    disks, directory = [bytearray()], bytearray()

    def put(content: bytes, whole: bool = True) -> tuple[int, int]:
        """Writes bytes, `whole` on one disk, and says where: disk and offset."""
        if len(disks[-1]) + (len(content) if whole else 1) > size:
            disks.append(bytearray())
        place = len(disks) - 1, len(disks[-1])
        while content:
            if len(disks[-1]) == size:
                disks.append(bytearray())
            room = size - len(disks[-1])
            disks[-1] += content[:room]
            content = content[room:]
        return place

    put(SPLIT)
    for name, content in files.items():
        packer = zlib.compressobj(wbits=-15)
        packed = content if stored else packer.compress(content) + packer.flush()
        crc, method = zlib.crc32(content), 0 if stored else 8
        encoded = name.encode()
        header = struct.pack(
            "<4s5H3L2H", b"PK\3\4", 45, 0x800, method, 0, 33, crc, len(packed), len(content),
            len(encoded), 0,
        )  # fmt: skip
        disk, offset = put(header + encoded)
        put(packed, whole=False)
        extra = struct.pack("<2H3QL", 1, 28, len(content), len(packed), offset, disk)
        full = 0xFFFFFFFF
        numbers = (full, full) if wide else (len(packed), len(content))
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0x31E, 45, 0x800, method, 0, 33, crc, *numbers,
            len(encoded), len(extra) if wide else 0, 0, 0xFFFF if wide else disk, 0,
            0o100644 << 16, full if wide else offset,
        )  # fmt: skip
        directory += encoded + (extra if wide else b"")
    disk, offset = put(bytes(directory), whole=False)
    count, length, last = len(files), len(directory), len(disks) - 1
    if len(disks[-1]) + (56 + 20 if wide else 0) + 22 > size:  # the end stands on one disk
        last += 1
        disks.append(bytearray())
    if wide:
        at = put(struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, last, disk, count, count, length, offset
        ))  # fmt: skip
        put(struct.pack("<4sLQL", b"PK\6\7", *at, last + 1))
        put(struct.pack("<4s4H2LH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, full, full, 0))
    else:
        put(struct.pack("<4s4H2LH", b"PK\5\6", last, disk, count, count, length, offset, 0))
    names = [*(f"{stem}.z{number:02}" for number in range(1, last + 1)), f"{stem}.zip"]
    for name, content in zip(names, disks, strict=True):
        (folder / name).write_bytes(content)
    return [folder / name for name in names]


def tree_of(folder: Path) -> dict[str, bytes]:
    """Files below a folder and their contents."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
