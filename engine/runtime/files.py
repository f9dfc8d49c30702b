"""Files that are written whole or not at all.

All that writes a file, in the engine and the scripts, does it through here, or through
`TableWriter` where rows have to survive a kill. Nothing here may leave half a file under its final
name. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(temporary: Path, final: Path) -> None:
    """Puts a finished file in place, so that a crash leaves the old or the new one, never half."""
    # The content before the name, or a crash of the machine could leave the name of an empty file.
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(final)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which an OSError of writing `path`, under whatever name, names it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file to write beside `path`, which it replaces when the block ends. When the
    block fails, `path` stays as it was and nothing is left beside it."""
    # The process is part of the name: of two that write the same file, neither spoils the other's.
    temporary = path.parent / f".{path.name}.{os.getpid()}.part"
    try:
        yield temporary
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Deletes half-written files of these names, which killed processes left by `replacing`.
    Only for a caller that alone writes them. Raises OSError."""
    owned = set(names)
    for path in folder.glob(".*.part"):
        match = re.fullmatch(r"\.(.+)\.[0-9]+\.part", path.name, re.DOTALL)
        if match and match[1] in owned and path.is_file():
            path.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> Path:
    """Writes a file, whole or not at all. Returns its path.

    Text is written as UTF-8 with its line ends as they are; what stands for bytes of a file name
    that are no UTF-8 becomes those bytes again. Raises OSError, which names the file.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    with naming(path), replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def other_content(head: bytes) -> str | None:
    """Complaint about what stands in a file's place when its download went wrong, with what to do:
    a web page, a git-lfs pointer, nothing; None for anything else. `head`: its first 512 bytes."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page: download the file itself, in a browser"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of git-lfs: download the file that it stands for"
    return None if head else "an empty file"


def is_other_file(path: Path) -> str | None:
    """The `other_content` of a file."""
    with path.open("rb") as stream:
        return other_content(stream.read(512))
