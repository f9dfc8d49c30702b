"""Unpacking of the archives that data sets come in: tar, zip and 7z, whole or in volumes.

fetch.py calls `extract`. The libraries read the formats; what they would write goes through a
`Target` (unpacked.py), and nothing past it. Archives within an archive stay as they are, unless the
caller names one.
"""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..runtime.files import is_other_file
from ..runtime.text import reason
from .archive_names import INNER, beside, group, kind_of
from .download import FetchError
from .unpacked import AS_IT_IS, CHUNK, FILE, FOLDER, LINK, OTHER, Layout, Target

SLACK = 16 << 20  # bytes of a tar's headers before a member, or of zeros behind its end
BUFFER = 1 << 20
SPLIT_MARK = b"PK\7\x08"
LOCKED = "refused: it is encrypted, which no published set is"
PACKAGE = "needs the package {0}: bash scripts/setup.sh --all, or pip install {0}"


@dataclass(frozen=True)
class Summary:
    """Numbers of files that were `written`, and that were `present` already."""

    written: int
    present: int


def extract(
    parts: Sequence[Path],
    folder: Path,
    layout: Layout = AS_IT_IS,
    *,
    inner: str | None = None,
    max_size: int | None = None,
    overwrite: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Summary:
    """Numbers of files of one archive that were unpacked below `folder`, which is made.

    Args:
        parts: the archive's files; a single one stands for all of them that are beside it.
        folder: where they go.
        layout: which of the archive's folders to leave out.
        inner: name of an archive that this one holds, and which is unpacked in its place.
        max_size: bytes that it may unpack to; free disk space always limits it.
        overwrite: write files anew that are there with the right size.
        advance: told how many more bytes of the archive were read.

    Raises:
        FetchError: missing, damaged, unsafe, or not enough space; names the archive and the
            member. What was unpacked before that stays.
    """
    limits: dict[str, Any] = {"max_size": max_size, "overwrite": overwrite}
    if inner:
        aside = folder / INNER
        extract(parts, aside, Layout(None), **limits, advance=advance)
        summary = extract([aside / inner], folder, layout, **limits)
        shutil.rmtree(aside)
        return summary
    name, volumes = _volumes(parts)
    target = Target(folder, layout, sum(path.stat().st_size for path in volumes), **limits)
    with _one_line(name, target), io.BufferedReader(Joined(volumes, advance), BUFFER) as packed:
        if other := is_other_file(volumes[0]):
            raise FetchError(f"expected an archive; found {other}")
        target.open()
        over_disks = len(volumes) > 1 and volumes[0].suffix.lower() == ".z01"
        unpack = _unzip_disks if over_disks else _UNPACK[str(kind_of(name.name))]
        unpack(packed, target)
        if not target.written + target.present:
            raise FetchError("expected files to unpack; found none that are wanted")
    return Summary(target.written, target.present)


def _volumes(parts: Sequence[Path]) -> tuple[Path, list[Path]]:
    """An archive's name and files. Raises FetchError when a file is missing or is no archive."""
    try:
        files = {p.name: p for p in parts if len(parts) > 1} or beside(parts[0])
    except OSError as error:
        raise FetchError(f"{parts[0]}: expected an archive; {error.strerror}") from error
    archive = group(files)[0]
    name, volumes = parts[0].with_name(archive.name), [files[part] for part in archive.volumes]
    if not kind_of(name.name):
        raise FetchError(f"{name}: expected an archive (.tar, .tar.gz, .zip, .7z)")
    if archive.missing:
        raise FetchError(f"{name}: expected all of its parts; {archive.missing} is missing")
    for path in volumes:
        if not path.is_file():
            raise FetchError(f"{path}: expected an archive; found no such file")
    return name, volumes


@contextmanager
def _one_line(name: Path, target: Target) -> Iterator[None]:
    """In its context whatever a reader raises is a FetchError that names archive and member."""
    try:
        yield
    except FetchError as error:
        raise FetchError(f"{name}: {error}") from error
    # Damage shows as almost any type: OSError, EOFError, zlib.error, LZMAError, RuntimeError, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise FetchError(f"{name}: {error.strerror}: {error.filename or 'disk'}") from error
        at = f" at {target.member!r:.80}" if target.member else ""
        why = f"damaged or incomplete{at} ({reason(error)})"
        raise FetchError(f"{name}: {why}: get it again") from error


class Joined(io.RawIOBase):
    """Volumes one after the other as one seekable file; no copy is made. `advance` is told how many
    bytes further than ever before a read came."""

    def __init__(
        self, volumes: Sequence[Path], advance: Callable[[int], None] | None = None
    ) -> None:
        self._volumes, self._advance = volumes, advance
        self._starts = [0, *accumulate(path.stat().st_size for path in volumes)]
        self._at = self._furthest = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, self._starts[-1])[whence]
        if at < 0:
            # zipfile and others look for an OSError where a file is too short.
            raise OSError(f"expected a position within the file; found {at}")
        self._at = at
        return at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        index = bisect_right(self._starts, self._at) - 1
        if index == len(self._volumes):
            return 0
        # Opened anew: sets come in hundreds of volumes, more than may be open at once.
        with self._volumes[index].open("rb", buffering=0) as stream:
            stream.seek(self._at - self._starts[index])
            count = stream.readinto(memoryview(buffer)[: self._starts[index + 1] - self._at]) or 0
        self._at += count
        if self._advance and self._at > self._furthest:
            self._advance(self._at - self._furthest)
            self._furthest = self._at
        return count


# --- tar


class _Header(tarfile.TarInfo):
    """A header that must be one: tarfile takes a damaged or missing one for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise EOFError(f"a last part may be missing: {error}") from error


class _Guard:
    """A stream that hands out at most SLACK bytes more than `expect` says: headers are read whole
    into memory, and zeros behind an end may go on for ever."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, SLACK

    def expect(self, size: int) -> None:
        """Says how many bytes come before the next header."""
        self._left = size + SLACK

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise FetchError("refused: it has headers or an end of unusual length")
        return data


def _untar(packed: BinaryIO, target: Target, compressed: bool = False) -> None:
    """Unpacks a tar as a stream."""
    with gzip.open(packed) if compressed else nullcontext(packed) as unpacked:
        guard = _Guard(cast("IO[bytes]", unpacked))
        # Not closed: that would do nothing for a stream.
        archive: Any = tarfile.open(  # noqa: SIM115
            fileobj=cast("IO[bytes]", guard), mode="r|", tarinfo=_Header,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
        while member := archive.next():
            archive.members.clear()  # it would keep a million of them
            guard.expect(member.size)
            final = target.place(member.name, member.size, _tar_kind(member))
            if final is not None:
                target.copy(member.name, final, member.size, archive.extractfile(member))
        guard.expect(0)
        # To the end, where the checksum of the compressed stream is.
        while rest := guard.read(CHUNK):
            if rest.strip(b"\0"):
                raise EOFError("expected nothing behind its end; found more")


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.isdir():
        return FOLDER
    if member.issym() or member.islnk():
        return LINK
    return FILE if member.isreg() and not member.issparse() else OTHER


# --- zip


def _unzip(packed: BinaryIO, target: Target) -> None:
    """Unpacks a zip in one file, or one that was cut into pieces afterwards."""
    with zipfile.ZipFile(packed) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        finals = [target.place(info.filename, info.file_size, _zip_kind(info)) for info in infos]
        for info, final in zip(infos, finals, strict=True):
            if final is not None:
                target.member = info.filename
                with archive.open(info) as stream:
                    target.copy(info.filename, final, info.file_size, stream)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        raise FetchError(LOCKED)
    if info.orig_filename != info.filename:  # cut at a zero byte, or another system's separator
        raise FetchError(f"refused: its member {info.orig_filename!r:.80} has no plain name")
    if stat.S_ISLNK(mode):
        return LINK
    if mode and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return OTHER
    return FOLDER if info.is_dir() else FILE


def _unzip_disks(packed: io.BufferedReader[Any], target: Target) -> None:
    """Unpacks a zip over disks (X.z01, X.z02, ..., X.zip), which zipfile refuses, member by member
    without its directory."""
    try:
        import stream_unzip
    except ImportError as error:
        raise FetchError(PACKAGE.format("stream-unzip")) from error
    if packed.peek(4)[:4] == SPLIT_MARK:
        packed.seek(4)
    members = stream_unzip.stream_unzip(iter(partial(packed.read, CHUNK), b""))
    try:
        for encoded, size, chunks in members:
            try:
                name = encoded.decode("utf-8")
            except UnicodeDecodeError:
                name = encoded.decode("cp437")  # what the format says where nothing else is said
            final = target.place(name, size, FOLDER if name.endswith("/") else FILE)
            if final is not None:
                target.write(name, final, size, chunks)
            for _ in chunks:  # what is not wanted has to be read past
                pass
    except stream_unzip.PasswordError as error:
        raise FetchError(LOCKED) from error
    except stream_unzip.NotStreamUnzippable as error:
        raise FetchError("join it first, by zip -s 0 IN.zip --out OUT.zip") from error


# --- 7z


def _un7z(packed: BinaryIO, target: Target) -> None:
    """Unpacks a 7z archive. Its library writes to a folder of its own beside the target's files,
    which take their places when it has compared all sums."""
    try:
        import py7zr
    except ImportError as error:
        raise FetchError(PACKAGE.format("py7zr")) from error
    aside = target.folder / INNER
    try:
        with py7zr.SevenZipFile(packed) as archive:
            if archive.needs_password():
                raise FetchError(LOCKED)
            members = archive.list()
            finals = {m.filename: target.place(m.filename, m.uncompressed, _7z_kind(m))
                      for m in members}  # fmt: skip
            wanted = {name: final for name, final in finals.items() if final is not None}
            if wanted:
                archive.extract(aside, targets=list(wanted))
        for name, final in wanted.items():
            target.take(aside / name, final)
    except py7zr.exceptions.PasswordRequired as error:
        raise FetchError(LOCKED) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _7z_kind(member: Any) -> str:
    if member.is_directory:
        return FOLDER
    if member.is_symlink:
        return LINK
    return FILE if member.is_file else OTHER


_UNPACK: dict[str, Callable[[io.BufferedReader[Any], Target], None]] = {
    "tar": _untar, "tar.gz": partial(_untar, compressed=True), "zip": _unzip, "7z": _un7z,
}  # fmt: skip
