"""Other programs' scores of pictures, out of CSV files: for an ensemble that takes them as members,
and for the leaderboard.

The requests of phases eval and train, and `pages/leaderboard.py`, read them for pictures that they
list; none is opened. A file says of a picture what its program said, or nothing; nothing is made up
here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Record
from datasets._csv import found_columns, read_csv

from ..config import ConfigError
from .degradations import NONE
from .probability import threshold_logit

if TYPE_CHECKING:
    from torch import Tensor

# Columns that say which picture a score is of: that of its file's sum, and those of its name.
DIGEST, NAMED_BY = "digest", ("key", "path", "image")
MOST_CERTAIN = 1e-9  # a score of 0 or 1 counts as this far from it, for a logit is finite


@dataclass(frozen=True)
class OtherScore:
    """What a row says: the picture's `name`, the degradation, '' where none is stated, and the
    logit."""

    name: str
    degradation: str
    logit: float


def _number(file: Path, row: Mapping[str, str], column: str, low: float, high: float) -> float:
    """A number of a row. Raises ConfigError for anything else, or one beyond the bounds."""
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        wanted = "a number, 0 to 1" if high == 1 else "a finite number"
        raise ConfigError(f"{file}, column {column}: expected {wanted}; found {row[column]!r}")
    return value


def read(file: Path, named_by: Sequence[str] = (DIGEST, *NAMED_BY)) -> tuple[str, list[OtherScore]]:
    """The column that names pictures, and what a stranger's CSV says of them, rows without a score
    left out: a column `logit`, or `score`, the probability of synthetic.

    Args:
        file: the CSV.
        named_by: columns that may name a picture, the one to take first.

    Raises:
        LayoutError: no CSV. ConfigError: other columns, or a number that is none.
    """
    columns, lines = read_csv(file)
    named = next((column for column in named_by if column in columns), None)
    valued = next((column for column in ("logit", "score") if column in columns), None)
    if named is None or valued is None:
        raise ConfigError(
            f"{file}: expected a column {' or '.join(named_by)} and one logit or score; found "
            f"{found_columns(columns)}"
        )
    rows = []
    for row in lines:
        if not row[valued].strip():
            continue
        if valued == "logit":
            logit = _number(file, row, "logit", -1e300, 1e300)
        else:
            score = _number(file, row, "score", 0, 1)
            logit = threshold_logit(min(max(score, MOST_CERTAIN), 1 - MOST_CERTAIN))
        rows.append(OtherScore(row[named].strip(), row.get("degradation", "").strip(), logit))
    return named, rows


def logits(file: Path, records: Sequence[Record]) -> dict[str, float]:
    """Logits of records by their keys, NaN for those that a file says nothing of.

    A row names a picture by its key, or by its path as seen from the file's folder. Rows of
    degraded pictures do not count.

    Raises:
        LayoutError, ConfigError: see `read`; or the file says nothing of any record, or two things
            of one.
    """
    # By names alone, for no picture is read here that would give a sum to compare.
    rows = [row for row in read(file, NAMED_BY)[1] if row.degradation in ("", NONE)]
    by_name: dict[str, float] = {}
    for row in rows:
        if row.name in by_name:
            raise ConfigError(f"{file}: expected each picture once; found {row.name!r} again")
        by_name[row.name] = row.logit
    by_place = {(file.parent / name).resolve(): logit for name, logit in by_name.items()}
    known = {
        record.key: by_name.get(record.key, by_place.get(record.path.resolve(), math.nan))
        for record in records
    }
    if all(math.isnan(logit) for logit in known.values()):
        raise ConfigError(
            f"{file}: expected rows of these pictures, such as {records[0].key}; found none of them"
        )
    return known


def columns(files: Sequence[Path], records: Sequence[Record]) -> dict[str, Tensor]:
    """The logits (files,) float32 of each record in several files, by its key."""
    import torch  # which the leaderboard, that reads such files too, does not need

    tables = [logits(file, records) for file in files]
    return {r.key: torch.tensor([table[r.key] for table in tables]) for r in records}
