"""Unpacks zip and 7z archives, which list their members: all are checked before any is written."""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from .archive_names import BUFFER, Joined
from .archive_target import CHUNK, LINK, LOCKED, OTHER, ExtractError, Target

PACKAGE = "needs the package {0}: bash scripts/setup.sh --all, or pip install {0}"
SPLIT_MARK = b"PK\7\x08"
DAMAGED = "its member {name!r:.80} is damaged ({reason}): get it again"


def unzip(raw: Joined, target: Target, advance: Callable[[int], None] | None) -> None:
    """Unpacks a zip. Raises ExtractError, and what zipfile raises for damaged ones."""
    with io.BufferedReader(raw, BUFFER) as packed, zipfile.ZipFile(packed) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        places = [(info, _place(info, target)) for info in infos]
        raw.advance = advance
        for info, final in places:
            if final is not None:
                _write(archive, info, target, final)


def unzip_disks(raw: Joined, target: Target, advance: Callable[[int], None] | None) -> None:
    """Unpacks a zip over several disks (X.z01, X.z02, ..., X.zip), which zipfile refuses, member by
    member without its directory. Raises ExtractError, and what stream_unzip does for damage."""
    try:
        import stream_unzip
    except ImportError as error:
        raise ExtractError(PACKAGE.format("stream-unzip")) from error
    raw.advance = advance
    with io.BufferedReader(raw, BUFFER) as packed:
        if packed.peek(4)[:4] == SPLIT_MARK:
            packed.seek(4)
        members = stream_unzip.stream_unzip(iter(lambda: packed.read(CHUNK), b""))
        try:
            for name, size, content in members:
                _write_stream(_decoded(name), size, content, target)
        except stream_unzip.PasswordError as error:
            raise ExtractError(LOCKED) from error
        except stream_unzip.NotStreamUnzippable as error:
            raise ExtractError("join it first, by zip -s 0 IN.zip --out OUT.zip") from error


def _decoded(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")  # what the format says where nothing else is said


def _write_stream(name: str, size: int | None, content: Iterator[bytes], target: Target) -> None:
    """Writes a member whose `size`, if it is known at all, is only what its header claims."""
    if name.endswith("/"):
        target.enter(name)
        final = None
    else:
        final = target.place(name, size)
    with nullcontext() if final is None else target.write(final, size) as stream:
        for chunk in content:
            if stream is None:
                continue
            stream.write(chunk)
            if size is None:
                target.grow(len(chunk))
            elif stream.tell() > size:
                raise ExtractError(DAMAGED.format(name=name, reason="longer than it says"))


def _place(info: zipfile.ZipInfo, target: Target) -> Path | None:
    name, mode = info.filename, stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        raise ExtractError(LOCKED)
    if info.orig_filename != name:  # cut at a zero byte, or a separator of another system
        raise ExtractError(f"refused: its member {info.orig_filename!r:.80} has no plain name")
    if stat.S_ISLNK(mode):
        raise ExtractError(LINK.format(name=name))
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ExtractError(OTHER.format(name=name))
    if info.is_dir():
        target.enter(name)
        return None
    return target.place(name, info.file_size)


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Target, final: Path) -> None:
    try:
        with archive.open(info) as source, target.write(final, info.file_size) as stream:
            shutil.copyfileobj(source, stream, CHUNK)
    except ExtractError:
        raise
    # zlib.error, BadZipFile, EOFError, NotImplementedError, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ExtractError(DAMAGED.format(name=info.filename, reason=reason)) from error


def un7z(raw: Joined, target: Target, advance: Callable[[int], None] | None) -> None:
    """Unpacks a 7z archive by the package py7zr. Raises ExtractError, and what py7zr raises for
    damaged ones."""
    try:
        import py7zr
    except ImportError as error:
        raise ExtractError(PACKAGE.format("py7zr")) from error
    try:
        with io.BufferedReader(raw, BUFFER) as packed, py7zr.SevenZipFile(packed) as archive:
            if archive.needs_password():
                raise ExtractError(LOCKED)
            wanted = _places(archive.list(), target)
            raw.advance = advance
            if wanted:
                with closing(_Writers(target, wanted)) as writers:
                    # No factory of its own kind: it asks for `create` alone.
                    archive.extract(target.folder, list(wanted), factory=writers)
                    writers.finish()
    except py7zr.exceptions.PasswordRequired as error:
        raise ExtractError(LOCKED) from error
    except py7zr.exceptions.CrcError as error:
        name = str(error.filename)
        raise ExtractError(DAMAGED.format(name=name, reason="checksum")) from error


def _places(members: Sequence[Any], target: Target) -> dict[str, tuple[Path, int]]:
    """Final path and size of each file to unpack, by its name in the archive."""
    wanted = {}
    for member in members:
        name = member.filename
        if member.is_directory:
            target.enter(name)
        elif member.is_symlink:
            raise ExtractError(LINK.format(name=name))
        elif not member.is_file:
            raise ExtractError(OTHER.format(name=name))
        elif final := target.place(name, member.uncompressed):
            wanted[name] = (final, member.uncompressed)
    return wanted


class _Writer:
    """A file that py7zr writes a member to."""

    def __init__(self, stream: BinaryIO) -> None:
        self.write, self.flush, self.size = stream.write, stream.flush, stream.tell
        self.close = stream.flush

    def seek(self, offset: int, _whence: int = 0) -> int:
        return offset  # back to the start, when all is written


class _Writers:
    """Gives py7zr a file for each member. One is finished when the next begins, because py7zr
    compares a checksum after it closed the file."""

    def __init__(self, target: Target, wanted: Mapping[str, tuple[Path, int]]) -> None:
        self._target = target
        self._places = {os.path.normpath(target.folder / name): at for name, at in wanted.items()}
        self._current: AbstractContextManager[BinaryIO] | None = None

    def create(self, filename: str) -> _Writer:
        self.finish()
        self._current = self._target.write(*self._places[os.path.normpath(filename)])
        return _Writer(self._current.__enter__())

    def finish(self) -> None:
        """The current file is complete."""
        if self._current is not None:
            current, self._current = self._current, None
            current.__exit__(None, None, None)

    def close(self) -> None:
        """Whatever is not complete goes away."""
        if self._current is not None:
            current, self._current = self._current, None
            error = ExtractError("incomplete")
            try:
                current.__exit__(type(error), error, None)
            except ExtractError:
                return
