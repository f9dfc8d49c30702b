"""Writes small archives of every kind that data sets come in, split ones and wrong ones too."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

Files = Mapping[str, bytes]
SPLIT = b"PK\7\x08"


def pictures(count: int = 6, folder: str = "a", size: int = 3000) -> dict[str, bytes]:
    """Names and contents that do not shrink, as pictures do not."""
    return {f"{folder}/{n:03}.png": random.Random(n).randbytes(size) for n in range(count)}


def make_tar(
    path: Path, files: Files, change: Callable[[tarfile.TarInfo], None] | None = None
) -> Path:
    """A tar, compressed as its name says; `change` alters each header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
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


class _Pipe(io.BytesIO):
    """A file that cannot be gone back in: sizes then follow behind each member's content."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError


def make_disks(
    folder: Path, stem: str, files: Files, size: int, stored: bool = False, sizes: bool = True
) -> list[Path]:
    """A zip over disks of `size` bytes: stem.z01, stem.z02, ..., stem.zip; its directory, which
    nobody reads, has other offsets. `sizes`: whether the headers state them."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO() if sizes else _Pipe()
    with zipfile.ZipFile(buffer, "w", 0 if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    content = SPLIT + buffer.getvalue()
    disks = [content[start : start + size] for start in range(0, len(content), size)]
    names = [*(f"{stem}.z{number:02}" for number in range(1, len(disks))), f"{stem}.zip"]
    for name, disk in zip(names, disks, strict=True):
        (folder / name).write_bytes(disk)
    return [folder / name for name in names]


def tree_of(folder: Path) -> dict[str, bytes]:
    """Files below a folder and their contents."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
