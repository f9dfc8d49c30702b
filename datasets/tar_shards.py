"""Pictures in a tar file, or in the tar files of a folder, as webdataset writes them.

Beside `NAME.jpg` a member `NAME.cls` (0 or 1) may state the label, or `NAME.json` with the keys
`label` (or `class`), `generator`, `source` and `split`, each optional; NAME ends at the first dot.
Without them the folders inside do, as in a folder. Only uncompressed files, in which a picture is
one seek away. Licence: that of the pictures' owner.
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ._archives import (
    NOTHING,
    ArchiveMember,
    Contents,
    Stated,
    beside,
    check_size,
    is_listed,
    shards,
)
from ._kinds import COMPRESSED_TARS
from ._paths import normal
from ._record import LayoutError, Record

LAYOUT = (
    "uncompressed .tar files of pictures with NAME.cls or NAME.json beside NAME.jpg, "
    "or in real/ and fake/<generator>/"
)
MAX_SIDECAR = 1 << 20
log = logging.getLogger(__name__)


def _read(stream: BinaryIO, member: str) -> bytes:
    """The content of the member "offset:size". Raises OSError when the file ends before it does."""
    offset, size = map(int, member.split(":"))
    check_size(size)
    stream.seek(offset)
    content = stream.read(size)
    if len(content) < size:
        raise OSError(f"the archive is cut off: {len(content)} of {size} bytes are there")
    return content


class Archive:
    """An open tar file; `member` is "offset:size" of the content, in bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def read(self, member: str) -> bytes:
        """The content of a member. Raises OSError: cut off, over 1 GiB."""
        return _read(self._file, member)

    def close(self) -> None:
        self._file.close()


def _scan(path: Path, stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file.

    Raises:
        LayoutError: not an uncompressed tar file.
        tarfile.TarError: cut off or damaged behind the last one.
    """
    try:
        archive = tarfile.open(fileobj=stream, mode="r:", encoding="utf-8")  # noqa: SIM115 - stream
    except (tarfile.TarError, OSError, ValueError) as error:
        raise LayoutError(
            f"{path}: expected an uncompressed tar file; found none that can be read ({error})"
        ) from error
    try:
        while (member := archive.next()) is not None:
            if member.size < 0:
                raise tarfile.ReadError("a negative size")
            # Or it would keep all that it has returned.
            archive.members.clear()  # type: ignore[attr-defined]
            yield member
        # It takes a damaged header for the end, which is a block of zeros.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no mark of the end")
    except (OSError, ValueError, RecursionError) as error:  # headers may nest without end
        raise tarfile.ReadError(str(error)) from error


@dataclass
class _Shard:
    """What a tar file holds: pictures by name, and by stem and extension what is said of them, each
    with its member; `last`: the stem after which the file is cut off, None if it is whole."""

    pictures: list[tuple[str, str]] = field(default_factory=list)
    sidecars: dict[str, dict[str, str]] = field(default_factory=dict)
    last: str | None = None

    def add(self, path: Path, info: tarfile.TarInfo, length: int) -> None:
        """Takes in a member of the file, whose length is given."""
        name = normal(info.name, path)
        self.last = _stem(name)
        if info.isdir():
            return
        if not info.isreg() or info.issparse():
            raise LayoutError(
                f"{path}: expected files and folders; found {info.name!r}, a link, a device or a "
                "file with holes: pack the pictures themselves"
            )
        member = f"{info.offset_data}:{info.size}"
        extension = name.rpartition("/")[2].partition(".")[2].lower()
        if is_listed(name):
            self.pictures.append((name, member))
        elif extension in ("cls", "json") and info.offset_data + info.size <= length:
            if info.size > MAX_SIDECAR:
                raise LayoutError(f"{path}: expected {info.name!r} to be short; found over 1 MiB")
            self.sidecars.setdefault(_stem(name), {})[extension] = member


def _read_shard(path: Path, stream: BinaryIO) -> _Shard:
    """The content of a tar file as far as it is whole; a warning tells of the rest."""
    shard, length = _Shard(), path.stat().st_size
    try:
        for info in _scan(path, stream):
            shard.add(path, info, length)
        shard.last = None
    except tarfile.TarError as error:
        log.warning("%s: cut off or damaged (%s): what follows is left out", path, error)
    return shard


def _stem(name: str) -> str:
    """What the files of one sample have in common: the path up to the name's first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _stated(texts: dict[str, str]) -> Stated:
    """What the files beside a picture say, by extension. Text that is no JSON object is taken for
    the label, which then is named in the error."""
    stated = NOTHING
    if "json" in texts:
        try:
            value = json.loads(texts["json"])
        except (ValueError, RecursionError):
            value = texts["json"]
        if isinstance(value, dict):
            label = value.get("label", value.get("class"))
            stated = Stated(label, value.get("generator"), value.get("source"), value.get("split"))
        else:
            stated = Stated(value)
    return replace(stated, label=texts["cls"]) if "cls" in texts else stated


def _pictures_of(path: Path, shard: str) -> Iterator[ArchiveMember]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise LayoutError(f"{path}: expected {LAYOUT}; {error.strerror}") from error
    with stream:
        content = _read_shard(path, stream)
        for name, member in content.pictures:
            stem, texts = _stem(name), {}
            if content.sidecars and stem == content.last and stem not in content.sidecars:
                continue  # what would say its label was cut off
            for extension, sidecar in content.sidecars.get(stem, {}).items():
                texts[extension] = _read(stream, sidecar).decode("utf-8", "replace")
            key, inside = beside(shard, name)
            yield ArchiveMember(key, path, member, inside, _stated(texts))


def _pictures(root: Path) -> Iterator[ArchiveMember]:
    for path, shard in shards(root, (".tar", *COMPRESSED_TARS), LAYOUT):
        if path.name.lower().endswith(COMPRESSED_TARS):
            raise LayoutError(f"{path}: expected {LAYOUT}; found a compressed one: unpack it first")
        yield from _pictures_of(path, shard)


def contents(root: Path) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError as that does."""
    return Contents(_pictures(Path(root)), Path(root), LAYOUT)


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """The pictures of a tar file, or of all those below a folder, sorted by key.

    Args:
        root: the file or the folder. Keys start with a shard's path in the folder.
        split, labelled: as in `_archives.Contents.records`.

    Raises:
        LayoutError: no such file or none that can be read, no picture, a link or a path that
            leads out, a picture twice, or a label is required and not stated.
    """
    return contents(root).records(split, labelled)
