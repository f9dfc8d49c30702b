"""pretrained/manifest.yaml: which weight files there are, where they lie, where they come from.

Reads no weights and asks no network; imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from datasets._record import is_special

from ..config import ROOT, ConfigError, read_yaml

PRETRAINED = ROOT / "pretrained"
MANIFEST = PRETRAINED / "manifest.yaml"
BEST = "best.safetensors"  # what training keeps
PUBLISHED_BEST = "best_model.pth"  # and what CO-SPY's published training does
FORMATS = ("safetensors", "state dict", "checkpoint")
FETCH = "python scripts/fetch_weights.py"

# Of a training's epochs, as this project and as SPAI's published program call them.
EPOCH_FILE = re.compile(r"(ckpt_)?epoch_(?P<number>\d{1,9})\.(safetensors|pth)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = (
    "title", "file", "folder", "files", "ships", "hub", "page", "also", "unpack", "size", "sha256",
    "licence", "format", "trained_on",
)  # fmt: skip


@dataclass(frozen=True)
class Hub:
    """A file of a Hugging Face repository; `revision` None is its main branch."""

    repo: str
    file: str
    subfolder: str | None = None
    revision: str | None = None

    @property
    def filename(self) -> str:
        """Path of the file within the repository."""
        return f"{self.subfolder}/{self.file}" if self.subfolder else self.file


@dataclass(frozen=True)
class Page:
    """A web page that a person visits, and what to download there."""

    url: str
    get: str


@dataclass(frozen=True)
class Copy:
    """One source of an entry; None for `source`: it ships with the repository. `size` in bytes
    and `sha256` (hex) are those of what comes from there, or None where nobody published them."""

    source: Hub | Page | None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """Something of the manifest. `path`, below pretrained/, is a file, or a folder that holds
    `files`. `unpack`: what comes is a zip with these files. `copies`: its sources, the first being
    the one that is fetched. `format`: one of FORMATS, that of every file. `trained_on`: names of
    the generators that the weights learnt from, where a benchmark's figures ask for them."""

    name: str
    title: str
    path: PurePosixPath
    files: tuple[str, ...]
    copies: tuple[Copy, ...]
    unpack: bool
    licence: str | None
    format: str
    trained_on: tuple[str, ...] = ()

    @property
    def source(self) -> Hub | Page | None:
        return self.copies[0].source

    @property
    def size(self) -> int | None:
        return self.copies[0].size

    @property
    def sha256(self) -> str | None:
        return self.copies[0].sha256


def _fail(where: str, wanted: str, found: Any) -> ConfigError:
    return ConfigError(f"{MANIFEST.name}: {where}: expected {wanted}; found {found!r}")


def _mapping(where: str, value: Any, keys: Iterable[str]) -> dict[str, Any]:
    known = tuple(keys)
    if not isinstance(value, dict):
        raise _fail(where, f"keys of {', '.join(known)}", value)
    for key in value:
        if key not in known:
            raise _fail(where, f"keys of {', '.join(known)}", key)
    return value


def _text(where: str, values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _fail(f"{where}.{key}", "a line of text", value)
    return value


def _optional(where: str, values: dict[str, Any], key: str) -> str | None:
    return _text(where, values, key) if key in values else None


def _below(where: str, values: dict[str, Any], key: str) -> PurePosixPath:
    """A path that cannot leave the folder it is meant to be in, on any system."""
    text = _text(where, values, key)
    parts = text.split("/")
    if any(part in ("", ".", "..") or ":" in part or "\\" in part for part in parts):
        raise _fail(f"{where}.{key}", "a relative path without '..', with forward slashes", text)
    return PurePosixPath(text)


def _copy(where: str, values: dict[str, Any]) -> Copy:
    size, digest = values.get("size"), values.get("sha256")
    if size is not None and (type(size) is not int or size <= 0):
        raise _fail(f"{where}.size", "a number of bytes", size)
    if digest is not None and (not isinstance(digest, str) or not _SHA256.fullmatch(digest)):
        raise _fail(f"{where}.sha256", "64 lower-case hexadecimal digits", digest)
    return Copy(_source(where, values), size, digest)


def _source(where: str, values: dict[str, Any]) -> Hub | Page | None:
    given = [key for key in ("ships", "hub", "page") if key in values]
    if len(given) != 1:
        raise _fail(where, "one of ships, hub, page", " and ".join(given) or None)
    if "ships" in values:
        if values["ships"] is not True:
            raise _fail(f"{where}.ships", "true", values["ships"])
        return None
    at = f"{where}.{given[0]}"
    if "page" in values:
        page = _mapping(at, values["page"], ("url", "get"))
        if not _text(at, page, "url").startswith(("https://", "http://")):
            raise _fail(f"{at}.url", "an address that starts with https://", page["url"])
        return Page(page["url"], _text(at, page, "get"))
    hub = _mapping(at, values["hub"], ("repo", "file", "subfolder", "revision"))
    if not _REPO.fullmatch(_text(at, hub, "repo")):
        raise _fail(f"{at}.repo", "OWNER/NAME", hub["repo"])
    subfolder = str(_below(at, hub, "subfolder")) if "subfolder" in hub else None
    return Hub(hub["repo"], str(_below(at, hub, "file")), subfolder, _optional(at, hub, "revision"))


def _place(where: str, values: dict[str, Any]) -> tuple[PurePosixPath, tuple[str, ...]]:
    if ("file" in values) == ("folder" in values) or ("folder" in values) != ("files" in values):
        raise _fail(where, "either file, or folder and files", sorted(values))
    if "file" in values:
        return _below(where, values, "file"), ()
    files = values["files"]
    if not isinstance(files, list) or not files or len(set(map(str, files))) != len(files):
        raise _fail(f"{where}.files", "a list of different names", files)
    names = tuple(str(_below(f"{where}.files", {"name": name}, "name")) for name in files)
    for name in names:
        if "/" in name:
            raise _fail(f"{where}.files", "names without folders", name)
    return _below(where, values, "folder"), names


def _also(where: str, values: dict[str, Any]) -> list[Copy]:
    others = values.get("also", [])
    if not isinstance(others, list):
        raise _fail(f"{where}.also", "a list of hub copies", others)
    checked = [_mapping(f"{where}.also", other, ("hub", "size", "sha256")) for other in others]
    return [_copy(f"{where}.also", other) for other in checked]


def _entry(name: Any, content: Any) -> Entry:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _fail("entry", "a name of letters, digits, dots, dashes", name)
    values = _mapping(name, content, _KEYS)
    path, files = _place(name, values)
    unpack = values.get("unpack", False)
    if type(unpack) is not bool:
        raise _fail(f"{name}.unpack", "true or false", unpack)
    if unpack != bool(files):
        raise _fail(name, "unpack: true for a folder, and only for one", unpack)
    kind = _text(name, values, "format")
    if kind not in FORMATS:
        raise _fail(f"{name}.format", f"one of {', '.join(FORMATS)}", kind)
    trained_on = values.get("trained_on", [])
    if not isinstance(trained_on, list) or not all(isinstance(n, str) for n in trained_on):
        raise _fail(f"{name}.trained_on", "a list of generators", trained_on)
    return Entry(
        name, _text(name, values, "title"), path, files,
        (_copy(name, values), *_also(name, values)),
        unpack, _optional(name, values, "licence"), kind, tuple(sorted(trained_on)),
    )  # fmt: skip


def read_manifest() -> dict[str, Entry]:
    """All entries by name, in the manifest's order.

    Raises:
        ConfigError: no YAML, unknown or missing keys, values of another form, or a path that
            leaves pretrained/.
    """
    return {name: _entry(name, content) for name, content in read_yaml(MANIFEST).items()}


def entry_named(name: str) -> Entry:
    """An entry. Raises ConfigError listing the names when there is none."""
    entries = read_manifest()
    if name not in entries:
        raise ConfigError(
            f"{MANIFEST.name}: expected one of {', '.join(sorted(entries))}; found {name!r}"
        )
    return entries[name]


def local_path(entry: Entry) -> Path:
    """Where the entry's file or folder belongs below pretrained/, whether or not it is there."""
    return PRETRAINED / entry.path


def cached(hub: Hub) -> Path | None:
    """A hub file that some program downloaded before, by whatever HF_HOME says."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub.repo, hub.filename, revision=hub.revision)
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


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
    hubs = [copy.source for copy in entry.copies if isinstance(copy.source, Hub)]
    return next((path for hub in hubs if (path := cached(hub)) is not None), None)


def entry_at(path: Path) -> Entry | None:
    """The entry whose place below pretrained/ a path names; None for any other."""
    place, entries = path.resolve(), read_manifest().values()
    return next((entry for entry in entries if local_path(entry).resolve() == place), None)


def trained_on(path: Path) -> tuple[str, ...]:
    """Generators that the weights at a path learnt from, as its entry says; none for any other."""
    entry = entry_at(path)
    return entry.trained_on if entry else ()


def several(weights: str | None) -> list[str]:
    """What --weights names: a file, folder or name, or several of them between commas."""
    if not weights or Path(weights).exists():
        return [weights] if weights else []
    return [place for place in weights.split(",") if place]


def epoch_files(folder: Path, epochs: Sequence[int]) -> dict[int, Path]:
    """The weights that a training kept of these epochs, or of all where none is named, by number.

    Raises:
        ConfigError: no folder, or none of these weights there.
    """
    names = "epoch_<N>.safetensors, as --save_all leaves them, or ckpt_epoch_<N>.pth"
    if not folder.is_dir():
        raise ConfigError(f"--epochs: expected a folder with {names} as --weights; found {folder}")
    found: dict[int, Path] = {}
    # Of one epoch in two layouts the own one counts, which has a card: it comes last.
    for path in sorted(folder.glob("*epoch_*"), key=lambda path: path.suffix):
        if (match := EPOCH_FILE.fullmatch(path.name)) and path.is_file():
            found[int(match["number"])] = path
    there = ", ".join(map(str, sorted(found))) or "none"
    if not found or (missing := [number for number in epochs if number not in found]):
        what = "" if not found else f" of epoch {missing[0]}"
        raise ConfigError(f"--epochs: expected {names}{what} in {folder}; found {there}")
    return {number: found[number] for number in epochs or sorted(found)}


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


def how_to_get(entry: Entry) -> str:
    """One line: the command that brings the entry to this machine."""
    if entry.source is None:
        return f"git checkout pretrained/{entry.path}"
    if isinstance(entry.source, Hub):
        return f"{FETCH} {entry.name}"
    page = entry.source
    return f"get {page.get} ({page.url}), then {FETCH} {entry.name} --from PATH"
