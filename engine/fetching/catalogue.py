"""configs/sources.yaml: where the files of each data set lie, and where they go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..config import CONFIGS, ROOT, ConfigError, read_yaml
from .archive_names import stem_of

FILE = CONFIGS / "sources.yaml"
HAND, URL = "hand", "url"
ORIGINS = ("hub", "modelscope", "zenodo", URL, HAND)
_ENTRY = (*ORIGINS, "match", "into", "strip", "holds", "inside", "only", "generator", "sources")
_FAMILY = ("title", "root", "files", "generators", "notes")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HOLE = re.compile(r"\{(\w+)\}")
_FORMS = {
    "hub": _REPO,
    "modelscope": _REPO,
    "zenodo": re.compile(r"\d+"),
    URL: re.compile(r"https?://[^/\s]+/\S+"),
    HAND: re.compile(r".+"),
}


@dataclass(frozen=True)
class Origin:
    """A service and what to ask it for: one of ORIGINS, and a repository, number, address, or for
    `hand` what a person must do."""

    kind: str
    where: str

    def __str__(self) -> str:
        return self.kind if self.kind == HAND else f"{self.kind}:{self.where}"


@dataclass(frozen=True)
class SourceEntry:
    """Files of one origin; the keys of configs/sources.yaml. `match` None: a person's download of
    any name, which is not unpacked here. `strip` None: all folders."""

    origin: Origin
    match: str | None
    into: str
    strip: tuple[str, ...] | None
    holds: str | None
    inside: bool
    only: tuple[str, ...]
    generator: str
    sources: tuple[str, ...]

    def values(self, name: str, whole: bool = True) -> dict[str, str] | None:
        """What the holes of `match` stand for in a path, None where it does not fit. `whole`: the
        path is that at the origin; otherwise it may have more folders in front."""
        if self.match is None:
            return None
        if not whole:
            name = "/".join(PurePosixPath(name).parts[-1 - self.match.count("/") :])
        found = re.fullmatch(_pattern(self.match), name)
        return found and {**found.groupdict(), "archive": stem_of(name)}


def _pattern(match: str) -> str:
    """`match` as a regular expression; a hole that comes again stands for the same text."""
    made, at = "", 0
    seen: set[str] = set()
    for hole in _HOLE.finditer(match):
        made += re.escape(match[at : hole.start()])
        made += f"(?P={hole[1]})" if hole[1] in seen else f"(?P<{hole[1]}>[^/]+?)"
        seen.add(hole[1])
        at = hole.end()
    return made + re.escape(match[at:])


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with its holes filled."""
    return _HOLE.sub(lambda hole: values[hole[1]], text)


@dataclass(frozen=True)
class Family:
    """A data set. `root`: its default folder; `generators`: those that no path names."""

    name: str
    title: str
    root: Path
    entries: tuple[SourceEntry, ...]
    generators: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def origins(self) -> list[Origin]:
        """Each service to be asked, once."""
        found = dict.fromkeys(entry.origin for entry in self.entries)
        return [origin for origin in found if origin.kind != HAND]


def _fail(where: str, wanted: str, found: Any) -> ConfigError:
    return ConfigError(f"{FILE.name}: {where}: expected {wanted}; found {found!r}")


def _mapping(where: str, value: Any, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise _fail(where, f"keys of {', '.join(keys)}", value)
    for key in value:
        if key not in keys:
            raise _fail(where, f"keys of {', '.join(keys)}", key)
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _fail(where, "a line of text", value)
    return value


def _texts(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _fail(where, "a list of texts", value)
    return tuple(_text(where, one) for one in value)


def _path(where: str, value: Any) -> str:
    """A path that stays below the folder it is for."""
    text = _text(where, value)
    if text == ".":
        return text
    if any(part in ("", ".", "..") or "\\" in part for part in text.split("/")):
        raise _fail(where, "a relative path without '..', with forward slashes", text)
    return text


def _origin(where: str, given: Mapping[str, Any]) -> Origin:
    kinds = [kind for kind in ORIGINS if kind in given]
    if len(kinds) != 1:
        raise _fail(where, f"one of {', '.join(ORIGINS)}", " and ".join(kinds) or None)
    text = _text(f"{where}.{kinds[0]}", str(given[kinds[0]]))
    if not _FORMS[kinds[0]].fullmatch(text):
        raise _fail(f"{where}.{kinds[0]}", "OWNER/NAME, a number or an address", text)
    return Origin(kinds[0], text)


def _entry(where: str, content: Any) -> SourceEntry:
    given = _mapping(where, content, _ENTRY)
    origin = _origin(where, given)
    match = given.get("match")
    if origin.kind == URL:
        match = match or origin.where.rpartition("/")[2]
    if match is None and origin.kind != HAND:
        raise _fail(f"{where}.match", "a path", None)
    into = _path(f"{where}.into", given.get("into", "."))
    strip = given.get("strip", [])
    entry = SourceEntry(
        origin,
        None if match is None else _path(f"{where}.match", match),
        into,
        None if strip == "all" else _texts(f"{where}.strip", strip),
        _path(f"{where}.holds", given["holds"]) if "holds" in given else None,
        given.get("inside") is True,
        _texts(f"{where}.only", given.get("only", [])),
        _text(f"{where}.generator", given.get("generator", "{generator}")),
        _texts(f"{where}.sources", given.get("sources", [])),
    )
    if entry.inside and entry.only:
        raise _fail(where, "one of inside, only", "both")
    _check_holes(where, entry)
    return entry


def _check_holes(where: str, entry: SourceEntry) -> None:
    known = {*_HOLE.findall(entry.match or ""), "archive"}
    for text in (entry.into, *(entry.strip or ())):
        for hole in _HOLE.findall(text):
            if hole not in known:
                raise _fail(where, f"holes of {', '.join(sorted(known))}", f"{{{hole}}}")


def _family(name: Any, content: Any) -> Family:
    where = str(name)
    given = _mapping(where, content, _FAMILY)
    files = given.get("files")
    if not isinstance(files, list) or not files:
        raise _fail(f"{where}.files", "a list", files)
    return Family(
        where,
        _text(f"{where}.title", given.get("title")),
        ROOT / _path(f"{where}.root", given.get("root")),
        tuple(_entry(f"{where}.files[{n}]", one) for n, one in enumerate(files)),
        _texts(f"{where}.generators", given.get("generators", [])),
        _texts(f"{where}.notes", given.get("notes", [])),
    )


def read_sources() -> dict[str, Family]:
    """All families by name, in the file's order.

    Raises:
        ConfigError: no YAML, unknown or missing keys, or values of another form.
    """
    return {str(name): _family(name, content) for name, content in read_yaml(FILE).items()}


def family_named(name: str) -> Family:
    """A family. Raises ConfigError listing the names when there is none."""
    families = read_sources()
    if name not in families:
        raise ConfigError(f"expected one of {', '.join(families)}; found {name!r}")
    return families[name]
