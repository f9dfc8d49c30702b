"""Tables in parts, which a run writes one after the other, each whole or not at all.

A part is a CSV or a Parquet file, and a note says what is in it: a run that goes on skips the parts
whose notes are there. Phase test --stream and scripts/score_ray.py write them. Nothing here may let
a part be of other rows than its note says, nor write two versions of the same part.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..plain_data import read_json
from .files import naming, replacing
from .run_folder import write_json
from .table_writer import TableWriter

PARTS, NOTES = "parts", "notes"  # folders; parts alone are what readers of data sets expect
Rows = Sequence[Sequence[object]]


@dataclass(frozen=True)
class Note:
    """What is in a part. `source`, `version`: what it was listed from; `pictures`, `unreadable`:
    counts of its rows; `keys`: digest of the names of its pictures in their order; `last`: whether
    it is the last part of its source."""

    source: str
    version: str
    pictures: int
    unreadable: int
    keys: str
    last: bool

    def same_listing(self, other: Note) -> bool:
        """Whether both are of the same pictures, of the same version."""
        return replace(self, unreadable=0) == replace(other, unreadable=0)


def digest(keys: Iterable[str]) -> str:
    """What tells a sequence of pictures' names from others."""
    total = hashlib.blake2b(digest_size=16)
    for key in keys:
        total.update(json.dumps(key).encode() + b"\n")
    return total.hexdigest()


@dataclass(frozen=True)
class PartFiles:
    """The parts in an output folder, whose `form` is one of WRITERS. `columns`: by name, with the
    types that Parquet states: `text`, `whole` or `number`."""

    folder: Path
    form: str
    columns: Mapping[str, str]

    def prepare(self) -> None:
        """Makes the folders, without what is left of a part by a killed process, or by who deleted
        it: half a file, a part or a note without the other. Raises OSError."""
        for name in (PARTS, NOTES):
            (self.folder / name).mkdir(exist_ok=True)
            for path in (self.folder / name).glob(".part-*.part"):
                path.unlink(missing_ok=True)
        # A later listing may lack such a part, which would stay among the others then.
        parts, notes = self._stems(PARTS, self.form), self._stems(NOTES, "json")
        for stem in parts - notes:
            (self.folder / PARTS / f"{stem}.{self.form}").unlink()
        for stem in notes - parts:
            (self.folder / NOTES / f"{stem}.json").unlink()

    def _stems(self, folder: str, suffix: str) -> set[str]:
        return {path.stem for path in (self.folder / folder).glob(f"part-*-*.{suffix}")}

    def path(self, source: int, piece: int) -> Path:
        """The file of a part, by the numbers of its source and of the piece of that."""
        return self.folder / PARTS / f"part-{source:05}-{piece:05}.{self.form}"

    def _note_path(self, source: int, piece: int) -> Path:
        return self.folder / NOTES / f"part-{source:05}-{piece:05}.json"

    def pieces(self) -> dict[int, list[int]]:
        """Numbers of the pieces that are there, by those of their sources: the folder is read once
        for all sources."""
        pieces: defaultdict[int, list[int]] = defaultdict(list)
        for stem in self._stems(NOTES, "json"):
            _, source, piece = stem.split("-")
            pieces[int(source)].append(int(piece))
        return dict(pieces)

    def notes(self, source: int, pieces: Iterable[int]) -> dict[int, Note]:
        """Notes on pieces of a source, by their numbers."""
        return {piece: _read(self._note_path(source, piece)) for piece in pieces}

    def all_notes(self) -> Iterator[Note]:
        """Notes on all parts, one in memory at a time."""
        yield from map(_read, (self.folder / NOTES).glob("part-*.json"))

    def write(self, source: int, piece: int, rows: Rows, note: Note) -> None:
        """Writes a part, then its note. Raises OSError, which names the file."""
        path = self.path(source, piece)
        with naming(path), replacing(path) as temporary:
            WRITERS[self.form](temporary, self.columns, rows)
        # Last: a part without a note is written again, to the same bytes.
        write_json(self._note_path(source, piece), asdict(note))


def _read(path: Path) -> Note:
    """The note in a file. Raises ConfigError for one that is damaged."""
    try:
        return Note(**dict(read_json(path)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged: delete it, and --resume goes on") from error


def _write_csv(path: Path, columns: Mapping[str, str], rows: Rows) -> None:
    with TableWriter(path, list(columns), [], resume=False) as table:
        table.append(rows)


def _write_parquet(path: Path, columns: Mapping[str, str], rows: Rows) -> None:
    import pyarrow
    from pyarrow import parquet

    # Stated, not inferred: a part whose pictures all lack a value would have another type.
    types = {"text": pyarrow.string(), "whole": pyarrow.int32(), "number": pyarrow.float64()}
    arrays = {
        name: pyarrow.array([_valid(row[place]) for row in rows], types[kind])
        for place, (name, kind) in enumerate(columns.items())
    }
    parquet.write_table(pyarrow.table(arrays), path)


def _valid(value: Any) -> Any:
    """A value as Parquet takes it: bytes of names that are no UTF-8 become backslash escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


WRITERS: Mapping[str, Callable[[Path, Mapping[str, str], Rows], None]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
}
