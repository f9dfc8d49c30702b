"""pretrained/manifest.yaml: which weight files there are, where they lie, where they come from.

The command line asks it what --weights means, `fetch.py` what to download. It reads no weights,
asks no network and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from datasets._record import is_special

from ..config import FILE, ROOT, ConfigError, Line, read_yaml, validated

PRETRAINED = ROOT / "pretrained"
MANIFEST = PRETRAINED / "manifest.yaml"
BEST = "best.safetensors"  # what training keeps
WEIGHTS = "model.safetensors"  # of a folder in the hub's layout
PUBLISHED_BEST = "best_model.pth"  # and what CO-SPY's published training does
FETCH = "python scripts/fetch_weights.py"
# Of a training's epochs, as this project and as SPAI's published program call them.
EPOCH_FILE = re.compile(r"(ckpt_)?epoch_(?P<number>\d{1,9})\.(safetensors|pth)")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
PREFIX = "hf:"
REFERENCE = re.compile(rf"{PREFIX}(?P<repo>{NAME}/{NAME})(?:@(?P<revision>{NAME}(/{NAME})*))?")


def _below(text: str) -> str:
    """A path that cannot leave the folder it is meant to be in, on any system."""
    if any(part in ("", ".", "..") or ":" in part or "\\" in part for part in text.split("/")):
        raise ValueError("expected a relative path without '..', with forward slashes")
    return text


def _names(files: tuple[str, ...]) -> tuple[str, ...]:
    if not files or len(set(files)) != len(files) or "/" in "".join(files):
        raise ValueError("expected different names without folders")
    return files


RelativePath = Annotated[Line, AfterValidator(_below)]
Bytes = Annotated[StrictInt | None, Field(gt=0)]
Sum = Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=FILE)
class Hub:
    """A file of a Hugging Face repository."""

    repo: Annotated[str, Field(pattern=f"^{NAME}/{NAME}$")]
    file: RelativePath
    subfolder: RelativePath | None = None
    revision: Line | None = None
    """Null = the main branch."""

    @property
    def filename(self) -> str:
        """Path of the file within the repository."""
        return f"{self.subfolder}/{self.file}" if self.subfolder else self.file


@dataclass(frozen=True, config=FILE)
class Page:
    """A web page that a person visits, and what to download there."""

    url: Annotated[Line, Field(pattern="^https?://")]
    get: Line


@dataclass(frozen=True, config=FILE)
class Copy:
    """A file of a hub that serves as an entry; what nobody published of it is null."""

    hub: Hub
    size: Bytes = None
    sha256: Sum = None


@dataclass(frozen=True, config=FILE)
class WeightEntry:
    """A weight file, or a folder of several, with its place below pretrained/ and its origin."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    title: Line
    format: Literal["safetensors", "state dict", "checkpoint"]
    """That of every file."""
    file: RelativePath | None = None
    folder: RelativePath | None = None
    files: Annotated[tuple[RelativePath, ...], AfterValidator(_names)] = ()
    """Names in the folder."""
    unpack: StrictBool = False
    """What comes is a zip with these files."""
    ships: Literal[True] | None = None
    hub: Hub | None = None
    page: Page | None = None
    also: tuple[Copy, ...] = ()
    """Other copies that serve as well."""
    size: Bytes = None
    """Bytes of what comes; null where nobody published them."""
    sha256: Sum = None
    """Hex digest of what comes; null where nobody published it."""
    licence: Line | None = None
    trained_on: Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(sorted(names)))] = ()
    """Generators that the weights learnt from, where a benchmark's figures ask for them."""

    def __post_init__(self) -> None:
        if (self.file is None) == (self.folder is None) or bool(self.folder) != bool(self.files):
            raise ValueError("expected either file, or folder and files")
        if self.unpack != bool(self.files):
            raise ValueError("expected unpack: true for a folder, and only for one")
        if sum(bool(origin) for origin in (self.ships, self.hub, self.page)) != 1:
            raise ValueError("expected one of ships, hub, page")

    @property
    def path(self) -> PurePosixPath:
        """The place of the file or folder below pretrained/."""
        return PurePosixPath(self.file or self.folder or "")

    @property
    def hubs(self) -> list[Hub]:
        """Where copies can be downloaded from; the first is the one that is fetched."""
        return [*([self.hub] if self.hub else []), *(copy.hub for copy in self.also)]

    @property
    def sizes(self) -> list[int | None]:
        """The bytes of every copy."""
        return [self.size, *(copy.size for copy in self.also)]

    @property
    def sums(self) -> list[str | None]:
        """The sha256 of every copy."""
        return [self.sha256, *(copy.sha256 for copy in self.also)]


def read_manifest() -> dict[str, WeightEntry]:
    """All entries by name, in the manifest's order.

    Raises:
        ConfigError: no YAML, unknown or missing keys, values of another form, or a path that
            leaves pretrained/.
    """
    return dict(_entries(MANIFEST, MANIFEST.stat().st_mtime_ns if MANIFEST.is_file() else 0))


@lru_cache(maxsize=4)
def _entries(path: Path, _changed: int) -> dict[str, WeightEntry]:
    """The entries of a manifest; of one that did not change, read once."""
    entries = {}
    for name, content in read_yaml(path).items():
        given = {**content, "name": name} if isinstance(content, dict) else content
        entries[name] = validated(WeightEntry, f"{path.name}: {name}", given)
    return entries


def entry_named(name: str) -> WeightEntry:
    """An entry. Raises ConfigError listing the names when there is none."""
    entries = read_manifest()
    if name not in entries:
        raise ConfigError(
            f"{MANIFEST.name}: expected one of {', '.join(sorted(entries))}; found {name!r}"
        )
    return entries[name]


def local_path(entry: WeightEntry) -> Path:
    """Where the entry's file or folder belongs below pretrained/, whether or not it is there."""
    return PRETRAINED / entry.path


def cached(hub: Hub) -> Path | None:
    """A hub file that some program downloaded before, by whatever HF_HOME says."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub.repo, hub.filename, revision=hub.revision)
    return Path(path) if isinstance(path, str) and Path(path).is_file() else None


def find(name: str) -> Path | None:
    """The entry's file or folder on this machine, or None; asks no network.

    pretrained/ comes first, then the hub's cache. A folder counts when it has all its files.

    Raises:
        ConfigError: no such entry.
    """
    entry = entry_named(name)
    here = local_path(entry)
    if entry.files:
        return here if all((here / file).is_file() for file in entry.files) else None
    if here.is_file():
        return here
    return next((path for hub in entry.hubs if (path := cached(hub)) is not None), None)


def entry_at(path: Path) -> WeightEntry | None:
    """The entry whose file or folder below pretrained/ a path names; None for any other."""
    target, entries = path.resolve(), read_manifest().values()
    return next((entry for entry in entries if local_path(entry).resolve() == target), None)


def trained_on(path: Path) -> tuple[str, ...]:
    """Generators that the weights at a path learnt from, as its entry says; none for any other."""
    entry = entry_at(path)
    return entry.trained_on if entry else ()


def hub_of(weights: str | None) -> Hub | None:
    """The weights of a hub repository that `hf:ORG/NAME[@REVISION]` names; None for anything else.
    Raises ConfigError for a wrong name after `hf:`."""
    if weights is None or not weights.startswith(PREFIX):
        return None
    match = REFERENCE.fullmatch(weights)
    if match is None:
        wanted = f"{PREFIX}ORG/NAME or {PREFIX}ORG/NAME@REVISION"
        raise ConfigError(f"--weights: expected {wanted}; found {weights!r}")
    return Hub(match["repo"], WEIGHTS, revision=match["revision"])


def several(weights: str | None) -> list[str]:
    """What --weights names: a file, folder or name, or several of them between commas."""
    if not weights or Path(weights).exists():
        return [weights] if weights else []
    return [name for name in weights.split(",") if name]


def epoch_files(folder: Path, epochs: Sequence[int]) -> dict[int, Path]:
    """The weights that a training kept of these epochs, or of all where none is named, by number.

    Raises:
        ConfigError: no folder, or none of these weights there.
    """
    names = "epoch_<N>.safetensors, as --save_all leaves them, or ckpt_epoch_<N>.pth"
    if not folder.is_dir():
        raise ConfigError(f"--epochs: expected a folder with {names} as --weights; found {folder}")
    files: dict[int, Path] = {}
    # Of one epoch in two layouts the own one counts, which has a card: it comes last.
    for path in sorted(folder.glob("*epoch_*"), key=lambda path: path.suffix):
        if (match := EPOCH_FILE.fullmatch(path.name)) and path.is_file():
            files[int(match["number"])] = path
    missing = [number for number in epochs if number not in files]
    if missing or not files:
        what = f" of epoch {missing[0]}" if files else ""
        there = ", ".join(map(str, sorted(files))) or "none"
        raise ConfigError(f"--epochs: expected {names}{what} in {folder}; found {there}")
    return {number: files[number] for number in epochs or sorted(files)}


def locate(weights: str | None, detector: str, flag: str = "--weights") -> Path:
    """The file or folder that a flag means: a path, or a name of the manifest; without `weights`
    the manifest's entry named like the detector.

    Raises:
        ConfigError: neither a path nor a known name, a known file that is not there yet, or a pipe.
    """
    if weights and Path(weights).exists():
        if is_special(Path(weights)):
            raise ConfigError(f"{flag} {weights}: expected a file or folder; found no regular file")
        return Path(weights)
    entries = read_manifest()
    name = weights or detector
    if name not in entries:
        known = ", ".join(sorted(entries))
        raise ConfigError(f"{flag}: expected a file or one of {known}; found {name!r}")
    path = find(name)
    if path is None:
        there = f"{local_path(entries[name])}: not there yet"
        raise ConfigError(f"{there}: {how_to_get(entries[name])}; or name a file by {flag}")
    return path


def how_to_get(entry: WeightEntry) -> str:
    """One line: the command that brings the entry to this machine."""
    if entry.page:
        return f"get {entry.page.get} ({entry.page.url}), then {FETCH} {entry.name} --from PATH"
    return f"{FETCH} {entry.name}" if entry.hub else f"git checkout pretrained/{entry.path}"
