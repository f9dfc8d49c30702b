"""Metadata of pictures: captions and settings that the makers of a set wrote into JSON beside them.

For phase eval, which keeps it as a table and can group its report by it. Co-Spy-Bench has such
files. Which keys they have is nowhere stated, so any are taken as they are, and none is guessed.
Imports no torch.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Record

from ..config import ConfigError
from ..plain_data import MOST_JSON, parse_json, read_json
from ..runtime.table_writer import TableWriter

TABLE = "metadata.csv"
MOST_GROUPS = 200  # a report of more is of no use; captions have thousands
MOST_NAMES = 100  # columns of the table
LONGEST = 60  # letters of a value in a group's name
Values = Mapping[str, str]
log = logging.getLogger(__name__)


def beside(records: Iterable[Record]) -> dict[str, Values]:
    """Metadata of pictures by their key, from NAME.json or NAME.png.json beside NAME.png, or from
    the one .json or .jsonl of their folder that names them. Pictures without are left out; archives
    are not looked into."""
    metadata: dict[str, Values] = {}
    broken: list[str] = []

    def read(path: Path, what: Callable[[Path], Any]) -> Any:
        try:
            return what(path)
        except (OSError, ValueError) as error:
            broken.append(f"{path}: {error}")
            return None

    folders: dict[Path, list[Record]] = {}  # each is listed once, in whatever order pictures come
    for record in records:
        if not record.member:
            folders.setdefault(record.path.parent, []).append(record)
    for folder, pictures in folders.items():
        names = _json_files(folder)
        own = {r.key: n for r in pictures for n in _own(r.path) if n in names}
        rest = sorted(names.difference(own.values()))
        shared = (read(folder / rest[0], _by_picture) if len(rest) == 1 else None) or {}
        for record in pictures:
            name = own.get(record.key)
            content = read(folder / name, read_json) if name else shared.get(record.path.name)
            if values := dict(_flat(content)):
                metadata[record.key] = values
    if broken:
        log.warning("%d JSON files beside pictures are left out, as %s", len(broken), broken[0])
    return _common(metadata)


def _common(metadata: Mapping[str, Values]) -> dict[str, Values]:
    """Metadata under the MOST_NAMES most common names."""
    names = Counter(name for values in metadata.values() for name in values)
    if len(names) > MOST_NAMES:
        log.warning("JSON beside pictures has %d names; %d are kept", len(names), MOST_NAMES)
    common = {name for name, _ in names.most_common(MOST_NAMES)}
    return {
        key: {n: v for n, v in values.items() if n in common} for key, values in metadata.items()
    }


def _own(path: Path) -> tuple[str, str]:
    """Names of the JSON files that a picture may have to itself."""
    return f"{path.name}.json", f"{path.stem}.json"


def _json_files(folder: Path) -> set[str]:
    """Names of the JSON files of a folder."""
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.name.lower().endswith((".json", ".jsonl"))}
    except OSError:  # whose pictures say so themselves
        return set()


def _by_picture(path: Path) -> dict[str, Any]:
    """Content of the one JSON file of a folder by names of pictures: an object of objects by name,
    or a list, or lines, of objects one of whose values is the name. Raises OSError, ValueError."""
    if path.suffix.lower() == ".jsonl" and path.stat().st_size <= MOST_JSON:
        lines = path.read_text(encoding="utf-8").splitlines()
        content: Any = [parse_json(line) for line in lines if line.strip()]
    else:
        content = read_json(path)
    if isinstance(content, dict):
        return {name.rpartition("/")[2]: value for name, value in content.items()}
    listed: dict[str, Any] = {}
    for entry in content if isinstance(content, list) else ():
        texts = [v for v in entry.values() if isinstance(v, str)] if isinstance(entry, dict) else []
        listed |= dict.fromkeys((text.rpartition("/")[2] for text in texts), entry)
    return listed


def _flat(content: Any, start: str = "") -> Iterator[tuple[str, str]]:
    """Texts, numbers and truth values of an object by name, those of objects in it as
    `outer.inner`."""
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict) and not start:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (str, int, float)):
            text = value if isinstance(value, str) else json.dumps(value)
            yield _line(f"{start}{name}"), _line(text)


def _line(text: str) -> str:
    """A text on one line, without what no terminal and no file should get; interned, for thousands
    of pictures share a few."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return sys.intern(" ".join(shown.split()))


def names_of(metadata: Mapping[str, Values]) -> list[str]:
    """Names that any picture has a value of, sorted."""
    return sorted({name for values in metadata.values() for name in values})


def write(folder: Path, metadata: Mapping[str, Values]) -> None:
    """Writes metadata.csv: a column for each name, and a row for each picture by its key, as
    scores.csv has it. Raises OSError."""
    names = names_of(metadata)
    log.info("JSON beside %d pictures says %s: %s", len(metadata), ", ".join(names), folder / TABLE)
    with TableWriter(folder / TABLE, ["key", *names], ("key",), resume=False) as table:
        table.append((key, *map(values.get, names)) for key, values in metadata.items())


def grouped(
    records: Sequence[Record], metadata: Mapping[str, Values], by: Sequence[str]
) -> list[Record]:
    """The records with every generator divided by the values of the names in `by`, so that all
    that derives from them is: `flux [steps=20]`. Real pictures stay one pool.

    Args:
        records: of all pictures.
        metadata: by key, as `beside` gives it.
        by: names of --group_by.

    Raises:
        ConfigError: a name that no synthetic picture has, or too many values.
    """
    known = names_of({r.key: metadata[r.key] for r in records if r.generator and r.key in metadata})
    for name in by:
        if name not in known:
            there = ", ".join(known) or "none: no JSON lies beside the pictures"
            raise ConfigError(f"--group_by: expected some of {there}; found {name}")

    def group(record: Record) -> str:
        values = metadata.get(record.key, {})
        text = ", ".join(f"{name}={values.get(name, '?')[:LONGEST]}" for name in by)
        return f"{record.generator} [{text}]"

    divided = [replace(r, generator=group(r)) if r.generator else r for r in records]
    count = len({r.generator for r in divided})
    if count > MOST_GROUPS:
        raise ConfigError(
            f"--group_by: expected {MOST_GROUPS} groups at most; found {count} of {', '.join(by)}"
        )
    return divided
