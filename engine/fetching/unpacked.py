"""The folder that an archive is unpacked into: what is refused, and how files come to be there.

archives.py reads the formats and hands every member to a `Target`, which lets nothing leave its
folder, no link, no device and no bomb through, and gives a file its name when it is complete, so
that an interrupted extraction goes on where it stopped. Nothing here reads an archive.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from datasets._layout import spelling

from .archive_names import TEMPORARY, safe_parts
from .download import FetchError

MAX_RATIO = 1000  # unpacked bytes per byte of the archive; pictures hardly shrink at all
MAX_MEMBERS = 5_000_000  # the largest published archives hold a million pictures
CHUNK = 1 << 20
LITTER = ("__MACOSX", ".DS_Store")  # what the archiver of macOS adds
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
