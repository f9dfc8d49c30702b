"""Unpacks the archives that data sets come in: tar, zip and 7z, whole, cut up, or over disks.

Members are checked before they are written: nothing leaves the target, no links or devices, nothing
encrypted, no bombs. A file gets its name when it is complete, so an interrupted extraction goes on
where it stopped. Archives within an archive stay as they are, unless the caller names one.
"""

from __future__ import annotations

import io
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .archive_names import Joined, beside, group, kind_of
from .archive_target import INNER, ExtractError, Layout, Target
from .hub import is_other_file
from .untar import untar
from .unzip import un7z, unzip, unzip_disks

__all__ = ["AS_IT_IS", "ExtractError", "Layout", "Summary", "extract"]

AS_IT_IS = Layout()


@dataclass(frozen=True)
class Summary:
    """What an extraction did. `written`: files; `present`: files that were there already."""

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
    """Unpacks one archive below `folder`, which is made.

    Args:
        parts: the archive's files; a single one stands for all of them that are beside it.
        layout: which of the archive's folders to leave out.
        inner: name of an archive that this one holds, and which is unpacked in its place.
        max_size: bytes that it may unpack to; free disk space always limits it.
        overwrite: write files anew that are there with the right size.
        advance: told how many more bytes of the archive were read.

    Raises:
        ExtractError: missing, damaged, unsafe, or not enough space; names the archive and the
            member. What was unpacked before that stays.
    """
    name, paths = _complete(parts)
    size = sum(path.stat().st_size for path in paths)
    with _one_line(name):
        if other := is_other_file(paths[0]):
            raise ExtractError(f"expected an archive; found {other}")
        if inner and not (stored := _stored(paths)):
            aside = folder / INNER
            _unpack(name, paths, Target(aside, Layout(None), size, max_size, overwrite), advance)
            done = extract(
                [aside / inner], folder, layout,
                max_size=max_size, overwrite=overwrite, advance=advance,
            )  # fmt: skip
            shutil.rmtree(aside)
            return done
        target = Target(folder, layout, size, max_size, overwrite)
        if inner and stored:
            raw = Joined(paths, *stored)
            unzip(raw, target, advance)
        else:
            _unpack(name, paths, target, advance)
        if not target.written + target.present:
            raise ExtractError("expected files to unpack; found none that are wanted")
    return Summary(target.written, target.present)


def _unpack(
    name: Path, paths: Sequence[Path], target: Target, advance: Callable[[int], None] | None
) -> None:
    kind = kind_of(name.name)
    if kind == "zip" and paths[0].suffix.lower() == ".z01":
        unzip_disks(Joined(paths), target, advance)
    elif kind == "zip":
        unzip(Joined(paths), target, advance)
    elif kind == "7z":
        un7z(Joined(paths), target, advance)
    else:
        with target.in_doubt():
            untar(Joined(paths), str(kind), target, advance)


def _stored(paths: Sequence[Path]) -> tuple[int, int] | None:
    """Where a zip is in a 7z archive that holds it without compressing it: first byte and size;
    None when it is not so. That saves a copy of it. Format: SignatureHeader in 7zFormat.txt of the
    LZMA SDK; packed streams begin behind it."""
    with io.BufferedReader(Joined(paths)) as reader:
        head = reader.read(36)
    if len(head) < 36 or head[:6] != b"7z\xbc\xaf\x27\x1c" or head[32:] != b"PK\3\4":
        return None
    return 32, struct.unpack_from("<Q", head, 12)[0]


def _complete(parts: Sequence[Path]) -> tuple[Path, list[Path]]:
    """An archive's name and files. Raises ExtractError when a file is missing or is no archive."""
    try:
        files = {p.name: p for p in parts if len(parts) > 1} or beside(parts[0])
    except OSError as error:
        raise ExtractError(f"{parts[0]}: expected an archive; {error.strerror}") from error
    found = group(files)[0]
    name, paths = parts[0].with_name(found.name), [files[part] for part in found.parts]
    if not kind_of(name.name):
        raise ExtractError(f"{name}: expected an archive (.tar, .tar.gz, .zip, .7z)")
    if found.missing:
        raise ExtractError(f"{name}: expected all of its parts; {found.missing} is missing")
    for path in paths:
        if not path.is_file():
            raise ExtractError(f"{path}: expected an archive; found no such file")
    return name, paths


@contextmanager
def _one_line(name: Path) -> Iterator[None]:
    """Turns whatever an archive's reader raises into an ExtractError that names the archive."""
    try:
        yield
    except ExtractError as error:
        raise ExtractError(f"{name}: {error}") from error
    # Damage shows as almost any type: OSError, EOFError, zlib.error, LZMAError, RuntimeError, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise ExtractError(f"{name}: {error.strerror}: {error.filename or 'disk'}") from error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExtractError(f"{name}: damaged or incomplete ({reason}): get it again") from error
