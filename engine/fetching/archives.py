"""Unpacking of the archives that data sets come in: tar, zip and 7z, whole or in volumes.

fetch.py calls `extract`. The libraries read the formats; what they would write goes through a
`Target`, which lets nothing leave its folder, no link, no device and no bomb through, and gives a
file its name when it is complete, so that an interrupted extraction goes on where it stopped.
Archives within an archive stay as they are, unless the caller names one.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import shutil
import stat
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from datasets._layout import spelling

from ..runtime.files import is_other_file
from ..runtime.text import reason
from .archive_names import INNER, TEMPORARY, beside, group, kind_of, safe_parts
from .download import FetchError

MAX_RATIO = 1000  # unpacked bytes per byte of the archive; pictures hardly shrink at all
MAX_MEMBERS = 5_000_000  # the largest published archives hold a million pictures
SLACK = 16 << 20  # bytes of a tar's headers before a member, or of zeros behind its end
BUFFER = CHUNK = 1 << 20
LITTER = ("__MACOSX", ".DS_Store")  # what the archiver of macOS adds
SPLIT_MARK = b"PK\7\x08"
LOCKED = "refused: it is encrypted, which no published set is"
PACKAGE = "needs the package {0}: bash scripts/setup.sh --all, or pip install {0}"
# What a member is, as the refusals call it.
FILE, FOLDER, LINK, OTHER = "a file", "a folder", "a link", "neither a file nor a folder"


@dataclass(frozen=True)
class Layout:
    """Change from an archive's folders to those below a target.

    `strip`: leading folders to leave out, as long as the first one is among them; None leaves out
    all folders. `only`: first folders (after that) to unpack, in any spelling; None unpacks all.
    """

    strip: frozenset[str] | None = frozenset()
    only: frozenset[str] | None = None


AS_IT_IS = Layout()


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


class Target:
    """A folder that one archive is unpacked into: its files whole or not at all, none elsewhere.

    `place` every member first, which checks it and adds up sizes; then `write` what it gave a path.
    Formats that list their members at the start are checked whole before anything is written.
    """

    def __init__(
        self, folder: Path, layout: Layout, packed: int, max_size: int | None, overwrite: bool
    ) -> None:
        """`packed`: bytes of the archive. `max_size`: of what it unpacks to, in bytes."""
        self.folder, self.overwrite, self._layout = folder, overwrite, layout
        self._only = None if layout.only is None else {*map(spelling, layout.only)}
        self._limit = min(MAX_RATIO * packed, math.inf if max_size is None else max_size)
        self.written = self.present = 0  # files
        self.member = ""  # the one at hand, which messages name
        self._free = self._total = self._claimed = self._members = 0  # bytes, and their number
        self._names: set[str] = set()  # a million of them, for which paths are too large
        self._folders: set[Path] = set()

    def open(self) -> None:
        """Makes the folder. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder = self.folder.resolve()
        self._free = shutil.disk_usage(self.folder).free

    def place(self, name: str, size: int | None, kind: str = FILE) -> Path | None:
        """Path of a member of `size` bytes (None: to be told by what comes); None where it is not
        to be written: a folder, not wanted, or there already. Raises FetchError for an unsafe
        member or one that is there twice, or where all of them so far are too much."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise FetchError(f"refused: it has over {MAX_MEMBERS} members")
        if kind not in (FILE, FOLDER):
            raise FetchError(f"refused: its member {name!r:.80} is {kind}")
        parts = safe_parts(name)
        if kind == FOLDER:  # made when a file needs it
            return None
        self._add(size or 0)
        if not parts or name.endswith("/"):
            raise FetchError(f"refused: its member {name!r:.80} has no file name to unpack to")
        wanted = self._moved(parts)
        if wanted is None:
            return None
        final = self.folder.joinpath(*wanted)
        if (path := "/".join(wanted)) in self._names:
            raise FetchError(f"refused: it holds {name!r:.80} twice")
        self._names.add(path)
        if self._is_there(final, name, size):
            self.present += 1
            return None
        self._claim(size or 0)
        return final

    def write(self, name: str, final: Path, size: int | None, chunks: Iterable[bytes]) -> None:
        """Writes a member's content; only when `size` bytes came does the file get its name."""
        self.member = name
        temporary = final.with_name(TEMPORARY)
        self._make_folder(final.parent)
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as stream:  # x follows no link that stands there
                for chunk in chunks:
                    stream.write(chunk)
                    if size is None:
                        self._add(len(chunk))
                        self._claim(len(chunk))
                    elif stream.tell() > size:
                        raise EOFError("longer than it says")
                if size not in (None, stream.tell()):
                    raise EOFError(f"expected {size} bytes; found {stream.tell()}")
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        self.member = ""
        self.written += 1

    def copy(self, name: str, final: Path, size: int, stream: IO[bytes]) -> None:
        """Writes a member's content of `size` bytes from a stream."""
        self.write(name, final, size, iter(partial(stream.read, CHUNK), b""))

    def take(self, path: Path, final: Path) -> None:
        """Moves a file that a library unpacked on the same disk to its place."""
        self._make_folder(final.parent)
        path.chmod(0o644)  # and not what the archive says
        path.replace(final)
        self.written += 1

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FetchError(f"{folder}: a file stands where a folder belongs") from error

    def _add(self, size: int) -> None:
        """Counts bytes of all members, wanted or not: a bomb costs time before it costs space."""
        self._total += size
        if size < 0 or self._total > self._limit:
            most = f"{self._limit}, by --max_size or as {MAX_RATIO} times its size"
            would = f"it would unpack to {self._total} bytes or more"
            raise FetchError(f"refused: {would}; expected at most {most}")

    def _claim(self, size: int) -> None:
        """Counts bytes that are to be written against the free disk."""
        self._claimed += size
        if self._claimed > self._free:
            room = f"{self._free} free bytes in {self.folder}"
            raise FetchError(f"needs more than {room}: free some, or set another root")

    def _moved(self, parts: tuple[str, ...]) -> tuple[str, ...] | None:
        """The path below the target, None for what nobody wants."""
        *folders, file = parts
        if any(part in LITTER for part in parts):
            return None
        if self._layout.strip is None:
            return (file,)
        while folders and folders[0] in self._layout.strip:
            del folders[0]
        if self._only is not None and folders and spelling(folders[0]) not in self._only:
            return None
        return (*folders, file)

    def _is_there(self, final: Path, name: str, size: int | None) -> bool:
        """Whether a file stands there already. Raises FetchError where something else does, or a
        link on the way leads elsewhere."""
        if final.parent not in self._folders:
            if not Path(os.path.realpath(final.parent)).is_relative_to(self.folder):
                out = f"leads out of the folder, over a link in {self.folder}"
                raise FetchError(f"refused: its member {name!r:.80} {out}")
            self._folders.add(final.parent)
        try:
            status = final.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(status.st_mode):
            raise FetchError(f"{final}: a folder or link stands where {name!r:.80} belongs")
        return status.st_size == size and not self.overwrite


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
