"""configs/sources.yaml: where the files of each data set lie, and where they go.

plan.py and scripts/fetch_data.py read it here. Every key and value is checked before anything is
asked or written, so that no path leads out of the folder that it is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from ..config import CONFIGS, ROOT, ConfigError, Line, printable, read_yaml, validated
from .archive_names import stem_of

FILE = CONFIGS / "sources.yaml"
HAND, URL = "hand", "url"
Kind = Literal["hub", "modelscope", "zenodo", "url", "hand"]
ORIGINS = get_args(Kind)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HOLE = re.compile(r"\{(\w+)\}")
_FORMS = {
    "hub": _REPO,
    "modelscope": _REPO,
    "zenodo": re.compile(r"\d+"),
    URL: re.compile(r"https?://[^/\s]+/\S+"),
    HAND: re.compile(r".+"),
}
_STRICT = ConfigDict(extra="forbid")


def _below(text: str) -> str:
    """A path that stays below the folder it is for."""
    if text != "." and any(p in ("", ".", "..") or "\\" in p for p in text.split("/")):
        raise ValueError("expected a relative path without '..', with forward slashes")
    return text


def _project_folder(text: Any) -> Path:
    """A folder of the project, by its path from the top."""
    if not isinstance(text, str):
        raise ValueError("expected a path")
    return ROOT / _below(printable(text))


RelativePath = Annotated[Line, AfterValidator(_below)]


@dataclass(frozen=True)
class Origin:
    """A service and what to ask it for: a repository, number, address, or for `hand` what a person
    must do."""

    kind: Kind
    where: Line

    def __post_init__(self) -> None:
        if not _FORMS[self.kind].fullmatch(self.where):
            raise ValueError(f"{self.kind}: expected OWNER/NAME, a number or an address")

    def __str__(self) -> str:
        return self.kind if self.kind == HAND else f"{self.kind}:{self.where}"


@dataclass(frozen=True, config=_STRICT)
class SourceEntry:
    """Files of one origin; the keys of configs/sources.yaml. `match` None: a person's download of
    any name, which is not unpacked here. `strip` None: all folders."""

    origin: Origin
    match: RelativePath | None = None
    into: RelativePath = "."
    strip: tuple[Line, ...] | None = ()
    holds: RelativePath | None = None
    inside: bool = False
    only: tuple[Line, ...] = ()
    generator: Line = "{generator}"
    sources: tuple[Line, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_origin(cls, given: Any) -> Any:
        """Fields of an entry whose key says its origin, as `hub: OWNER/NAME`."""
        if not isinstance(given, dict):
            return given
        kinds = [kind for kind in ORIGINS if kind in given]
        if len(kinds) != 1:
            raise ValueError(f"expected one of {', '.join(ORIGINS)}")
        fields = {key: value for key, value in given.items() if key != kinds[0]}
        where = str(given[kinds[0]])  # YAML takes Zenodo's for numbers
        if kinds[0] == URL:
            fields.setdefault("match", where.rpartition("/")[2])
        if fields.get("strip") == "all":
            fields["strip"] = None
        return fields | {"origin": {"kind": kinds[0], "where": where}}

    def __post_init__(self) -> None:
        if self.match is None and self.origin.kind != HAND:
            raise ValueError("match: expected a path")
        if self.inside and self.only:
            raise ValueError("expected one of inside, only; found both")
        known = {*_HOLE.findall(self.match or ""), "archive"}
        for hole in _HOLE.findall(" ".join((self.into, *(self.strip or ())))):
            if hole not in known:
                raise ValueError(f"expected holes of {', '.join(sorted(known))}; found {hole!r}")

    def values(self, name: str, whole: bool = True) -> dict[str, str] | None:
        """Values of the holes of `match` in a path, None where it does not fit. `whole`: the
        path is that at the origin; otherwise it may have more folders in front."""
        if self.match is None:
            return None
        if not whole:
            name = "/".join(PurePosixPath(name).parts[-1 - self.match.count("/") :])
        match = re.fullmatch(_pattern(self.match), name)
        return match and {**match.groupdict(), "archive": stem_of(name)}


def _pattern(match: str) -> str:
    """`match` as a regular expression; a hole that comes again stands for the same text."""
    pattern, at = "", 0
    seen: set[str] = set()
    for hole in _HOLE.finditer(match):
        pattern += re.escape(match[at : hole.start()])
        pattern += f"(?P={hole[1]})" if hole[1] in seen else f"(?P<{hole[1]}>[^/]+?)"
        seen.add(hole[1])
        at = hole.end()
    return pattern + re.escape(match[at:])


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with its holes filled."""
    return _HOLE.sub(lambda hole: values[hole[1]], text)


@dataclass(frozen=True, config=_STRICT)
class Family:
    """A data set. `root`: its default folder; `generators`: those that no path names."""

    name: str
    title: Line
    root: Annotated[Path, BeforeValidator(_project_folder)]
    files: Annotated[tuple[SourceEntry, ...], Field(min_length=1)]
    generators: tuple[Line, ...] = ()
    notes: tuple[Line, ...] = ()

    @property
    def origins(self) -> list[Origin]:
        """Each service to be asked, once."""
        origins = dict.fromkeys(entry.origin for entry in self.files)
        return [origin for origin in origins if origin.kind != HAND]


def read_sources() -> dict[str, Family]:
    """All families by name, in the file's order. Raises ConfigError for no YAML, unknown or missing
    keys, or values of another form."""
    families = {}
    for name, values in read_yaml(FILE).items():
        where = f"{FILE.name}: {name}"
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: expected keys of a data set; found {values!r:.60}")
        families[str(name)] = validated(Family, where, values | {"name": str(name)})
    return families


def family_named(name: str) -> Family:
    """A family. Raises ConfigError listing the names when there is none."""
    families = read_sources()
    if name not in families:
        raise ConfigError(f"expected one of {', '.join(families)}; found {name!r}")
    return families[name]
