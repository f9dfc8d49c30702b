"""Scores in SPAI's form: for a CSV that came in, its columns and one of scores; for a folder alike.

Phase test writes them from its predictions, when all pictures are scored.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import Record, csv_file
from datasets._csv import plain
from datasets._paths import ALL, split_named
from datasets._splits import TEST
from datasets.csv_file import read_rows

from ..config import ConfigError
from ..runtime.files import replacing
from ..runtime.table_writer import TableWriter
from ..runtime.text import distinct

PREDICTIONS = "predictions.csv"
LONGEST_NAME = 50  # letters of a folder's name, at most four bytes each, that its result's repeats


def read_predictions(output: Path) -> list[dict[str, str]]:
    """The rows of the predictions in a folder, as text by column."""
    path = output / PREDICTIONS
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return [{k: plain(v) for k, v in row.items()} for row in csv.DictReader(stream, restval="")]


def _csv_rows(
    file: Path, root: Path | None, split: str | None, scores: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a CSV that came in, of the split that was scored, and the score of
    each as its last value, empty for an unreadable picture."""
    columns, rows = read_rows(file)
    if split not in (None, ALL):
        rows = [row for row in rows if split_named(row["split"]) == split_named(str(split))]
    keys = [str(csv_file.resolve(row["image"], root or file.parent, file)) for row in rows]
    values = [[row[column] for column in columns] for row in rows]
    return columns, [[*own, scores[key]] for own, key in zip(values, keys, strict=True)]


def _folder_rows(
    folder: Path, split: str | None, records: Sequence[Record], scores: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of SPAI's form for a folder: paths from the folder, no class, for it is
    not known, and the split that was asked for, else test as the published program has it."""
    named = TEST if split in (None, ALL) else str(split)
    below = {r.path: r.key for r in records if not r.member and folder in r.path.parents}
    rows = [
        [path.relative_to(folder).as_posix(), "", named, scores[key]] for path, key in below.items()
    ]
    return ["image", "class", "split"], rows


@dataclass(frozen=True)
class ListedScores:
    """The CSV files that a run writes for CSV files and folders among its inputs. `files`: inputs
    by the names of their results; `roots`: where a CSV's paths start from; `split`: the one that
    was scored; `column`: the name of the scores'."""

    files: Mapping[str, Path]
    roots: Mapping[Path, Path | None]
    split: str | None
    column: str

    def write(self, output: Path, records: Sequence[Record]) -> None:
        """Writes them from the predictions in the folder."""
        scores = {row["path"]: row["score"] for row in read_predictions(output)}
        for name, path in self.files.items():
            if path.is_dir():
                columns, rows = _folder_rows(path, self.split, records, scores)
            else:
                columns, rows = _csv_rows(path, self.roots[path], self.split, scores)
            with (
                replacing(output / name) as temporary,
                TableWriter(temporary, [*columns, self.column], [], resume=False) as table,
            ):
                table.append(rows)


def listed_scores(
    inputs: Sequence[str],
    csv_roots: Sequence[Path],
    split: str | None,
    output: Path,
    column: str,
) -> ListedScores:
    """The result files for the CSV files and folders among the inputs: a CSV's has its name, a
    folder's the folder's name with .csv.

    Raises:
        ConfigError: they could not stand in `output`, or the column's name is taken.
    """
    paths = [Path(name) for name in inputs]
    tag = column
    kinds = {path: datasets.kind_of(path) for path in paths}
    files = [path for path in paths if kinds[path] == "csv_file"]
    names = [file.name for file in files]
    for name in names:
        if name == PREDICTIONS or names.count(name) > 1:
            raise ConfigError(
                f"--output: two result files would be called {name}: rename the input"
            )
    for file in files:
        if file.resolve().parent == output.resolve():
            raise ConfigError(f"--output {output}: expected another folder than that of {file}")
        if tag in read_rows(file)[0]:
            raise ConfigError(f"{file} has a column {tag!r} already: choose another by --tag")
    folders = [path for path, kind in kinds.items() if kind == "folder"]
    if folders and tag in ("image", "class", "split"):
        raise ConfigError(f"--tag: expected no column of SPAI's form; found {tag}")
    stems = [path.resolve().name[:LONGEST_NAME].lstrip(".") or "root" for path in folders]
    taken = [Path(name).stem for name in (PREDICTIONS, *names)]
    own = [f"{stem}.csv" for stem in distinct(stems, taken)]
    roots = dict(zip(paths, datasets.csv_roots(paths, csv_roots), strict=True))
    results = dict(zip([*names, *own], [*files, *folders], strict=True))
    return ListedScores(results, roots, split, column)
