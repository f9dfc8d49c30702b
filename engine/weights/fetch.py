"""Downloads of the manifest's weight files, and files that a person brings instead.

scripts/fetch_weights.py calls it. Whatever comes is checked under a temporary name first, so that
nothing half-done or wrong ever stands where a weight file is looked for. Nothing is written under a
name that an archive gives.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectors._errors import WeightsError

from ..runtime.files import is_other_file, replace_file
from ..runtime.text import reason

# As modules: weights may import this one first, and tests put other folders in place.
from . import manifest
from .cards import sha256
from .files import read_weights
from .hub import download
from .manifest import WeightEntry

MAX_UNPACKED = 8 << 30  # bytes; the published files are a few hundred megabytes
MAX_RATIO = 100  # weights hardly shrink in a zip
CHUNK = 1 << 20
BY_HAND = f"bring the file by {manifest.FETCH} {{name}} --from PATH"
log = logging.getLogger(__name__)


def fetch(name: str, force: bool = False, recheck: bool = False) -> Path:
    """The entry's file or folder, downloaded if it is not on this machine yet.

    Files of the hub stay in its cache; a zip is unpacked below pretrained/. `force` downloads anew;
    `recheck` compares what is already there with the manifest's sum as well, which reads all of it.

    Raises:
        ConfigError: no such entry.
        WeightsError: cannot be downloaded (the message says what to do instead), or is not what
            the manifest says.
    """
    entry = manifest.entry_named(name)
    path = None if force else manifest.find(name)
    if path is not None:
        if recheck:
            verify(entry, path)
        return path
    if entry.hub is None:
        raise WeightsError(f"{name}: cannot be downloaded by itself: {manifest.how_to_get(entry)}")
    path = download(name, entry.hub, entry.size, BY_HAND.format(name=name), force)
    verify(entry, path)
    if not entry.unpack:
        return path
    with _disk_errors(name), _workspace(entry) as room:
        _unpack(entry, path, room)
        return _settle(entry, room)


def recheck(name: str) -> Path:
    """The entry's file or folder on this machine, if it is what the manifest says and undamaged: by
    sizes and sums, and by the checksums that a weight file holds itself.

    Raises:
        ConfigError: no such entry.
        WeightsError: not there yet, another file, or damaged.
    """
    entry = manifest.entry_named(name)
    path = manifest.find(name)
    if path is None:
        where, how = manifest.local_path(entry), manifest.how_to_get(entry)
        raise WeightsError(f"{name}: {where}: not there yet: {how}")
    verify(entry, path)
    for file in [path / name for name in entry.files] if path.is_dir() else [path]:
        _check_readable(file)
    return path


def place(name: str, path: Path) -> Path:
    """The path below pretrained/ of a file brought by hand, which is copied there.

    Args:
        name: of the entry.
        path: the weight file, the zip, or a folder with the files.

    Raises:
        ConfigError: no such entry.
        WeightsError: not there, not what the manifest says, or not readable as weights. What was
            there before stays.
    """
    entry = manifest.entry_named(name)
    with _disk_errors(name), _workspace(entry) as room:
        if entry.unpack and path.is_file():
            verify(entry, path)
            _unpack(entry, path, room)
        else:
            for file, source in _brought(entry, path).items():
                _refuse_other_files(source)
                _need_space(room, source.stat().st_size)
                shutil.copyfile(source, room / file)
                _check_copy(entry, room / file, source)
        return _settle(entry, room)


def _brought(entry: WeightEntry, path: Path) -> dict[str, Path]:
    """The entry's files by name, in a folder or as the one file that was brought."""
    files = entry.files or (entry.path.name,)
    folders = [path, path / entry.path.name] if path.is_dir() else []
    for folder in folders:
        if all((folder / file).is_file() for file in files):
            return {file: folder / file for file in files}
    if folders or not path.is_file():
        wanted = f"{', '.join(files)} in it" if folders else "a file or folder"
        raise WeightsError(f"{path}: expected {wanted}; found no such file")
    is_safe, should = (name.endswith(".safetensors") for name in (path.name, files[0]))
    if is_safe != should:
        raise WeightsError(f"{path}: expected a file like {files[0]}; found {path.name}")
    return {files[0]: path}


def _check_copy(entry: WeightEntry, copy: Path, source: Path) -> None:
    """Checks a copy as what it will be read as; messages name the file it was made of."""
    try:
        if not entry.files:
            verify(entry, copy)
        _check_readable(copy)
    except WeightsError as error:
        raise WeightsError(str(error).replace(str(copy), str(source))) from error


def verify(entry: WeightEntry, path: Path) -> None:
    """Comparison of a file with the manifest's sizes and sums of the entry; logs its sum.

    An unpacked folder has none. Raises WeightsError when the file is none of the entry's copies.
    """
    if path.is_dir():
        return
    _refuse_other_files(path)
    size = path.stat().st_size
    if not {None, size} & {*entry.sizes}:
        sizes = " or ".join(map(str, entry.sizes))
        raise WeightsError(f"{path}: expected {sizes} bytes; found {size}: get it again")
    digest = sha256(path)
    if not {None, digest} & {*entry.sums}:
        raise WeightsError(
            f"{path}: expected sha256 {' or '.join(map(str, entry.sums))}; found {digest}: it is "
            "another file or damaged: get it again (--force)"
        )
    known = "as expected" if entry.sha256 else "none published to compare with"
    log.info("%s: %d bytes, sha256 %s (%s)", entry.name, size, digest, known)


def _refuse_other_files(path: Path) -> None:
    if other := is_other_file(path):
        raise WeightsError(f"{path}: expected a weight file; found {other}")


def _check_readable(path: Path) -> None:
    """Raises WeightsError when a file is no weights, or damaged as far as its format can tell."""
    read_weights(path)


# --- zips


def _members(entry: WeightEntry, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entry's files in a zip of `size` bytes: name -> member.

    Raises:
        WeightsError: a member that is none of them, one twice or missing, or a zip that grows out
            of proportion. What the Finder adds, as in the published zips, is left alone.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        folder, _, name = info.filename.rpartition("/")
        own = folder in ("", entry.path.name)
        if folder.startswith("__MACOSX") or (own and name == ".DS_Store"):
            continue
        if own and not name and info.filename:  # the folder itself
            continue
        if not own or name not in entry.files:
            files = ", ".join(entry.files)
            raise WeightsError(f"refused: its member {info.filename!r:.80} is none of {files}")
        if name in members:
            raise WeightsError(f"refused: it holds {name} twice")
        members[name] = info
    if missing := [file for file in entry.files if file not in members]:
        raise WeightsError(f"expected {', '.join(entry.files)} in it; found no {missing[0]}")
    total = sum(info.file_size for info in members.values())
    if total > MAX_UNPACKED or total > MAX_RATIO * size:
        raise WeightsError(f"refused: its {size} bytes would unpack to {total}")
    return members


def _unpack(entry: WeightEntry, path: Path, room: Path) -> None:
    """Unpacks the entry's files, and no others, from a zip, and checks that they are weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(entry, archive, path.stat().st_size)
            _need_space(room, sum(info.file_size for info in members.values()))
            for file, info in members.items():
                with archive.open(info) as source, (room / file).open("wb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
                _check_readable(room / file)
    except WeightsError as error:
        raise WeightsError(f"{path}: {str(error).replace(f'{room}{os.sep}', '')}") from error
    except OSError:
        raise
    # Damaged, encrypted and exotic zips: BadZipFile, zlib.error, RuntimeError, EOFError, ...
    except Exception as error:
        files = ", ".join(entry.files)
        raise WeightsError(
            f"{path}: expected a zip of {files}; it is damaged or none: {reason(error)}"
        ) from error


# --- the disk


@contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    """Turns errors of the file system into a WeightsError that says what to do."""
    try:
        yield
    except OSError as error:
        full = f"no space left in {manifest.PRETRAINED}: free some and try again"
        why = full if error.errno == errno.ENOSPC else reason(error)
        raise WeightsError(f"{name}: {why}") from error


def _need_space(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _workspace(entry: WeightEntry) -> Iterator[Path]:
    """A temporary folder on the disk where the entry belongs, gone at the end."""
    final = manifest.local_path(entry)
    near = [final, final.parent] if entry.files else [final.parent]
    base = next((folder for folder in near if folder.is_dir()), manifest.PRETRAINED)
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=base) as name:
        room = Path(name, "files")
        room.mkdir()
        yield room


def _settle(entry: WeightEntry, room: Path) -> Path:
    """The entry's file or folder, its finished files renamed into place. Other files that are there
    stay. A folder counts only when it is complete, so a kill in between costs no more than time."""
    final = manifest.local_path(entry)
    folder = final if entry.files else final.parent
    folder.mkdir(parents=True, exist_ok=True)
    for file in entry.files or (final.name,):
        replace_file(room / file, folder / file)
    return final
