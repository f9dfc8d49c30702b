"""Unpacks tar archives as a stream, whatever compresses them."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import shutil
import tarfile
from collections.abc import Callable
from typing import IO, Any, BinaryIO, cast

from .archive_names import BUFFER, Joined
from .archive_target import CHUNK, LINK, OTHER, DamagedError, ExtractError, Target

MAX_HEADERS = 4 << 20  # bytes of headers before one member; names are short
MAX_PADDING = 64 << 20  # bytes of zeros behind the end


class _Header(tarfile.TarInfo):
    """A header that must be one: tarfile takes a damaged one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise DamagedError(
                f"damaged or incomplete, a last part may be missing ({error}): get it again"
            ) from error


class _Watched:
    """A stream that refuses to hand out more than `allowance` bytes, where that is set."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.allowance: int | None = None

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if self.allowance is not None:
            self.allowance -= len(data)
            if self.allowance < 0:
                raise ExtractError("refused: it has headers or an end of unusual length")
        return data


def untar(raw: Joined, kind: str, target: Target, advance: Callable[[int], None] | None) -> None:
    """Unpacks a tar of the `kind` that its name says. Raises ExtractError, and what its readers
    raise for damaged ones."""
    raw.advance = advance
    with io.BufferedReader(raw, BUFFER) as packed, _unpacked(kind, packed) as stream:
        watched = _Watched(stream)
        watched.allowance = MAX_HEADERS
        # Not closed: that would do nothing for a stream.
        archive = tarfile.open(  # noqa: SIM115
            fileobj=cast("IO[bytes]", watched), mode="r|", tarinfo=_Header,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
        while member := archive.next():
            cast("Any", archive).members.clear()  # it would keep a million of them
            watched.allowance = None
            _take(archive, member, target)
            watched.allowance = MAX_HEADERS
        watched.allowance = MAX_PADDING
        # To the end, where the checksum of the compressed stream is.
        while rest := watched.read(CHUNK):
            if rest.strip(b"\0"):
                raise DamagedError("expected nothing behind its end; found more: damaged")


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Target) -> None:
    name = member.name
    if member.isdir():
        target.enter(name)
        return
    if member.issym() or member.islnk():
        raise ExtractError(LINK.format(name=name))
    if not member.isreg() or member.issparse():
        raise ExtractError(OTHER.format(name=name))
    final = target.place(name, member.size)
    source = archive.extractfile(member)
    assert source is not None  # a regular file
    if final is None:
        while source.read(CHUNK):
            pass
        return
    with target.write(final, member.size) as stream:
        shutil.copyfileobj(source, stream, CHUNK)


def _unpacked(kind: str, packed: BinaryIO) -> IO[bytes]:
    if kind == "tar.gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=packed))
    if kind == "tar.bz2":
        return bz2.BZ2File(packed)
    if kind == "tar.xz":
        return lzma.LZMAFile(packed)
    if kind == "tar.zst":
        return _zstd(packed)
    return packed


def _zstd(packed: BinaryIO) -> IO[bytes]:
    """Python has it from 3.14 on; the package backports.zstd brings it to older ones."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module).ZstdFile(packed)
        except ImportError:
            continue
    raise ExtractError("Zstandard needs Python 3.14, or: pip install backports.zstd")
