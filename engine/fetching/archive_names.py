"""Names of archives, of the volumes that archives are cut into, and of what is stored in them.

For everything that lists, fetches or unpacks archives. Reads no file but a folder's list, and never
lets a name of a stranger lead out of the folder that it is meant for.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .download import FetchError

# Endings of the archives that published sets come in.
KINDS = {".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".zip": "zip", ".7z": "7z"}
# How the names of volumes count: X.z01 before X.zip; X.tar.gz.0, X.7z.001; X.tar.gz.aa.
DISKS, DIGITS, LETTERS = "disks", "digits", "letters"
_VOLUME = {
    DISKS: re.compile(r"(.+)\.z(\d{2,5})", re.IGNORECASE),
    DIGITS: re.compile(r"(.+)\.(\d{1,5})"),
    LETTERS: re.compile(r"(.+)\.([a-z]{2})"),
}
WHOLE = math.inf  # number of X.zip behind its disks, and of a file that is all of its archive
GAP = 25  # volumes that may be missing; X.tar.gz.2023 and X.tar.gz.md are other files

# Names that this program keeps for itself in the folders that it unpacks into.
TEMPORARY = ".extracting.part"
INNER = ".inner"  # holds an archive within an archive, until that is unpacked
ARCHIVES = ".archives"  # holds downloads, until they are unpacked
LEDGER = ".fetched.json"
LOCK = ".fetched.lock"
OWN = frozenset({TEMPORARY, INNER, ARCHIVES, LEDGER, LOCK})


def kind_of(name: str) -> str | None:
    """The value of KINDS for an archive in one file, or for the name that its volumes share."""
    lower = name.lower()
    return next((kind for end, kind in KINDS.items() if lower.endswith(end)), None)


def stem_of(name: str) -> str:
    """The last part of a path, without the ending of an archive."""
    last = PurePosixPath(name).name
    end = next((end for end in KINDS if last.lower().endswith(end)), "")
    return last[: len(last) - len(end)] or last


def safe_parts(name: str) -> tuple[str, ...]:
    """Folders and file of a name that a stranger chose, () for the top folder itself. Raises
    FetchError where it leads out of a folder, has control characters, or is one of OWN."""
    # Refused and not mended, as zipfile and tarfile would: who writes such names means harm.
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    drive = re.match("[A-Za-z]:", name) or (os.name == "nt" and ":" in name)
    fault = ""
    if name.startswith("/") or "\\" in name or drive or ".." in parts:
        fault = "leads out of the folder"
    elif any(unicodedata.category(letter) == "Cc" for letter in name):
        fault = "has control characters in its name"
    # In any case, for file systems that do not tell them apart.
    elif own := next((part for part in parts if part.casefold() in OWN), None):
        fault = f"has a name that is kept free: {own}"
    if fault:
        raise FetchError(f"refused: its member {name!r:.80} {fault}")
    return parts


@dataclass(frozen=True)
class Archive:
    """Files that make one archive, or a single file that is none. `name`: that of the whole;
    `volumes`: in the order of their bytes; `missing`: the first one that is not there."""

    name: str
    volumes: tuple[str, ...]
    missing: str | None = None


def group(names: Iterable[str]) -> list[Archive]:
    """Archives that files make, by their names: X.zip with X.z01, X.z02 and so on before it;
    X.tar.gz.0, X.tar.gz.1 (as numbers, from 0 or 1); X.tar.gz.aa, X.tar.gz.ab. Folders count, case
    does not. A file that is only named like a volume, as X.tar.gz.sha, is by itself."""
    sets: dict[tuple[str, str], dict[float, str]] = {}
    shown: dict[str, str] = {}
    for name in names:
        whole, style, number = _numbered(name)
        shown.setdefault(whole.lower(), whole)
        if number == WHOLE:
            shown[whole.lower()] = name
        sets.setdefault((whole.lower(), style), {}).setdefault(number, name)
    archives: list[Archive] = []
    for (key, style), files in sets.items():
        # Volumes beside the file that somebody joined them to are left out.
        if style == DISKS or WHOLE not in sets.get((key, DISKS), {}):
            archives += _archives(shown[key], style, files)
    return archives


def _numbered(name: str) -> tuple[str, str, float]:
    """Name of the whole that a file belongs to, how its volumes count, and the file's number."""
    if match := _VOLUME[DISKS].fullmatch(name):
        return f"{match[1]}.zip", DISKS, int(match[2])
    if (match := _VOLUME[DIGITS].fullmatch(name)) and kind_of(match[1]):
        return match[1], DIGITS, int(match[2])
    if (match := _VOLUME[LETTERS].fullmatch(name)) and kind_of(match[1]):
        high, low = (ord(letter) - ord("a") for letter in match[2])  # aa is 0, as split(1) counts
        return match[1], LETTERS, 26 * high + low
    return name, DISKS, WHOLE


def _volume(name: str, style: str, number: int, width: int) -> str:
    """Name of a volume of `name`, its number in `width` digits."""
    if style == DISKS:
        return f"{name[:-4]}.z{number:02}"
    if style == LETTERS:
        return f"{name}.{chr(ord('a') + number // 26)}{chr(ord('a') + number % 26)}"
    return f"{name}.{number:0{width}}"


def _archives(name: str, style: str, files: Mapping[float, str]) -> Iterator[Archive]:
    """The archive that numbered files make, and those that are too far from it by themselves."""
    numbers = sorted(int(number) for number in files if number != WHOLE)
    first = 0 if style == LETTERS or (style == DIGITS and 0 in files) else 1
    near = [number for number in numbers if number - first < len(numbers) + GAP]
    volumes = [files[number] for number in near]
    gaps = [number for number in range(first, near[-1] if near else 0) if number not in files]
    width = len(volumes[0].rpartition(".")[2]) if volumes else 0
    missing = _volume(name, style, gaps[0], width) if gaps else None
    if WHOLE in files:
        volumes.append(files[WHOLE])
    elif style == DISKS:
        missing = missing or name
    if volumes:
        yield Archive(name, tuple(volumes), missing)
    yield from (Archive(files[far], (files[far],)) for far in numbers[len(near) :])


def beside(path: Path) -> dict[str, Path]:
    """The files of a file's folder that make one archive with it, itself too, by name. Raises
    OSError where the folder cannot be read."""
    for archive in group(sorted(other.name for other in path.parent.iterdir())):
        if path.name in (archive.name, *archive.volumes):
            return {name: path.with_name(name) for name in archive.volumes}
    return {path.name: path}
