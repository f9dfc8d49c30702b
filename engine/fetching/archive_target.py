"""Where the members of an archive are written: nowhere else, whole or not at all, none twice."""

from __future__ import annotations

import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datasets._layout import spelling

MAX_RATIO = 1000  # unpacked bytes per byte of the archive; pictures hardly shrink at all
MAX_MEMBERS = 5_000_000  # the largest published archives hold a million pictures
MAX_NAME = 255  # bytes
TEMPORARY = ".extracting.part"
DOUBT = ".damaged"
INNER = ".inner"  # where an archive within an archive lies until it is unpacked
ARCHIVES = ".archives"  # where downloads lie until they are unpacked
RECORD = ".fetched.json"
LOCK = ".fetched.lock"
OWN = frozenset({TEMPORARY, DOUBT, INNER, ARCHIVES, RECORD, LOCK})  # no member's
LITTER = ("__MACOSX", ".DS_Store")  # what the archiver of macOS adds


LINK = "refused: its member {name!r:.80} is a link"
OTHER = "refused: its member {name!r:.80} is neither a file nor a folder"
LOCKED = "refused: it is encrypted, which no published set is"
CHUNK = 1 << 20
_BINARY = getattr(os, "O_BINARY", 0)  # Windows


class ExtractError(ValueError):
    """An archive that is damaged, incomplete, unsafe or does not fit; the message is one line."""


class DamagedError(ExtractError):
    """An archive whose bytes are not what they should be."""


@dataclass(frozen=True)
class Layout:
    """How an archive's folders become those below a target.

    `strip`: leading folders to leave out, as long as the first one is among them; None leaves out
    all folders. `only`: first folders (after that) to unpack, in any spelling; None unpacks all.
    """

    strip: frozenset[str] | None = frozenset()
    only: frozenset[str] | None = None


def member_parts(name: str) -> tuple[str, ...]:
    """Folders and file of a member's name, () for the top folder itself.

    Raises:
        ExtractError: the name leads out of any folder, or no file system takes it.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    drive = re.match("[A-Za-z]:", name) or (os.name == "nt" and ":" in name)
    if name.startswith("/") or "\\" in name or drive or ".." in parts:
        raise ExtractError(f"refused: its member {name!r:.80} leads out of the folder")
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise ExtractError(f"refused: its member {name!r:.80} has control characters in its name")
    if any(len(os.fsencode(part)) > MAX_NAME for part in parts):
        raise ExtractError(f"refused: its member {name!r:.80} has a name of over {MAX_NAME} bytes")
    return parts


def refuse_own(parts: Iterable[str], name: str) -> None:
    """Raises ExtractError where a path would meet files that this program keeps for itself."""
    if own := next((part for part in parts if _alike(part) in OWN), None):
        raise ExtractError(f"refused: its member {name!r:.80} has a name that is kept free: {own}")


class Target:
    """A folder that one archive is unpacked into.

    `place` every file first: it says where the file goes and adds up; then `write` it. Formats
    that list their members at the start are checked whole before anything is written.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        packed: int,
        max_size: int | None = None,
        overwrite: bool = False,
    ) -> None:
        """`packed`: bytes of the archive. `max_size`: of what it unpacks to, in bytes."""
        self.layout, self.packed, self.max_size = layout, packed, max_size
        self._only = None if layout.only is None else {*map(spelling, layout.only)}
        self.written = self.present = 0  # files
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.overwrite = overwrite or (self.folder / DOUBT).exists()
        self.free = shutil.disk_usage(self.folder).free
        self._total = self._claimed = self._members = 0
        self._files: set[tuple[str, ...]] = set()
        self._checked: set[Path] = set()

    def enter(self, name: str) -> None:
        """Checks a folder's name; empty folders are not made."""
        member_parts(name)
        self._count(0)

    def place(self, name: str, size: int | None) -> Path | None:
        """Where a file of `size` bytes goes (None: to be told by `grow`); None when it is not to be
        written: not wanted, or there already.

        Raises:
            ExtractError: unsafe or twice, or all of them so far are too much.
        """
        self._count(size or 0)
        parts = self._moved(member_parts(name), name)
        if parts is None:
            return None
        final = self.folder.joinpath(*parts)
        if parts in self._files:
            raise ExtractError(f"refused: it holds {name!r:.80} twice")
        self._files.add(parts)
        self._within(final.parent, name)
        if self._there(final, name, size):
            self.present += 1
            return None
        self._claim(size or 0)
        return final

    def grow(self, more: int) -> None:
        """Adds bytes of a file whose size was not known."""
        self._add(more)
        self._claim(more)

    def _claim(self, size: int) -> None:
        self._claimed += size
        if self._claimed > self.free:
            raise ExtractError(
                f"needs more than {self.free} free bytes in {self.folder}: free some, or set "
                "another root"
            )

    def _count(self, size: int) -> None:
        if size < 0:
            raise ExtractError(f"refused: it has a member of {size} bytes")
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise ExtractError(f"refused: it has over {MAX_MEMBERS} members")
        self._add(size)

    def _add(self, size: int) -> None:
        self._total += size
        if self._total > MAX_RATIO * self.packed:
            raise ExtractError(
                f"refused: its {self.packed} bytes would unpack to {self._total} or more"
            )
        if self.max_size is not None and self._total > self.max_size:
            raise ExtractError(
                f"refused: it would unpack to {self._total} bytes or more; --max_size says "
                f"{self.max_size}"
            )

    def _moved(self, parts: tuple[str, ...], name: str) -> tuple[str, ...] | None:
        """The path below the target, None for what nobody wants."""
        if not parts or name.endswith("/") or parts[-1] == TEMPORARY:
            raise ExtractError(f"refused: its member {name!r:.80} has no file name to unpack to")
        *folders, file = parts
        if any(part in LITTER for part in parts):
            return None
        refuse_own(parts, name)
        if self.layout.strip is None:
            return (file,)
        while folders and folders[0] in self.layout.strip:
            del folders[0]
        if self._only is not None and folders and spelling(folders[0]) not in self._only:
            return None
        return (*folders, file)

    def _within(self, folder: Path, name: str) -> None:
        """Refuses a folder that a link, which stands there already, leads elsewhere."""
        if folder in self._checked:
            return
        try:
            inside = folder.resolve().is_relative_to(self.folder)
        except RuntimeError:  # a link that leads to itself, before Python 3.13
            inside = False
        if not inside:
            raise ExtractError(
                f"refused: its member {name!r:.80} leads out of the folder, over a link in "
                f"{self.folder}"
            )
        self._checked.add(folder)

    def _there(self, final: Path, name: str, size: int | None) -> bool:
        try:
            status = final.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(status.st_mode):
            raise ExtractError(f"{final}: a folder or link stands where {name!r:.80} belongs")
        return status.st_size == size and not self.overwrite

    @contextmanager
    def in_doubt(self) -> Iterator[None]:
        """For archives without checksums of their members: what they wrote before damage showed
        may be wrong, so the next extraction into the folder writes all files anew."""
        try:
            yield
        except Exception as error:
            full = isinstance(error, OSError) and error.errno
            if isinstance(error, DamagedError) or not (full or isinstance(error, ExtractError)):
                (self.folder / DOUBT).touch()
            raise
        (self.folder / DOUBT).unlink(missing_ok=True)

    @contextmanager
    def write(self, final: Path, size: int | None) -> Iterator[BinaryIO]:
        """A stream for a file's content; only when `size` bytes came does the file get its name."""
        temporary = final.with_name(TEMPORARY)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ExtractError(f"{final.parent}: a file stands where a folder belongs") from error
        temporary.unlink(missing_ok=True)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o644)
            with os.fdopen(handle, "wb") as stream:
                yield stream
                found = stream.tell()
            if size not in (None, found):
                raise DamagedError(f"{final.name}: expected {size} bytes; found {found}: damaged")
            temporary.replace(final)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.written += 1


def _alike(name: str) -> str:
    """Equal for names that a file system may take for one another."""
    return unicodedata.normalize("NFC", name).casefold()
