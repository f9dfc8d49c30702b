"""The saved per-picture table, scores.csv: its columns, and how it is read.

Every number that is printed derives from it. The scorer writes it row by row; reports, comparisons
and resumed runs read it here. A damaged row is an error, never left out. Imports no torch.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from datasets._csv import plain

from ..config import ConfigError


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The result of scoring one picture under one degradation.

    `logit` is in natural-log odds of "synthetic", `score` = sigmoid(logit) in [0, 1]; both are
    None exactly when `error` is not empty. `label`: 1 synthetic, 0 real, None unknown. `digest`:
    of the picture's file, as datasets/_images.py has it, empty where it was not asked for.
    """

    key: str
    source: str
    generator: str
    label: int | None
    logit: float | None
    score: float | None
    error: str
    degradation: str
    width: int | None
    height: int | None
    digest: str = ""


COLUMNS = tuple(field.name for field in fields(ScoreRow))


def _parse(record: dict[str, str]) -> ScoreRow:
    """The row of a line's values by column. Raises ValueError saying what is wrong with one."""

    def number(name: str) -> float | None:
        return float(record[name]) if record[name] else None

    def integer(name: str) -> int | None:
        return int(record[name]) if record[name] else None

    if record["label"] not in ("", "0", "1"):
        raise ValueError(f"expected the label 0 or 1, found {record['label']!r}")

    logit, score = number("logit"), number("score")
    if not (score is None or 0 <= score <= 1):
        raise ValueError(f"expected a score between 0 and 1, found {score}")
    if not (logit is None or math.isfinite(logit)):
        raise ValueError(f"expected a finite logit, found {logit}")

    return ScoreRow(
        key=plain(record["key"]),
        # Millions of rows share a few of these.
        source=sys.intern(plain(record["source"])),
        generator=sys.intern(plain(record["generator"])),
        label=integer("label"),
        logit=logit,
        score=score,
        error=plain(record["error"]),
        degradation=sys.intern(plain(record["degradation"])),
        width=integer("width"),
        height=integer("height"),
        digest=record["digest"],
    )


def _parsed(rows: Iterator[list[str]]) -> Iterator[ScoreRow]:
    """The rows below the header. Raises ValueError saying what is wrong with one."""
    header = next(rows, [])
    if tuple(header) != COLUMNS:
        names = ", ".join(header) or "an empty file"
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}, found {names}")
    # Twice the same picture would count twice in every figure.
    seen = set()
    for values in rows:
        if len(values) != len(COLUMNS):
            raise ValueError(f"expected {len(COLUMNS)} values, found {len(values)}")
        row = _parse(dict(zip(COLUMNS, values, strict=True)))
        name = row.key, row.degradation
        if name in seen:
            raise ValueError(f"expected each picture once, found {row.key!r} again")
        seen.add(name)
        yield row


def read_table(path: Path) -> list[ScoreRow]:
    """Rows of a scores.csv, in its order.

    Raises:
        ConfigError: other columns, a damaged row, or a picture twice under one degradation.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            return list(_parsed(reader))
        except (ValueError, csv.Error) as error:
            raise ConfigError(f"{path}, line {reader.line_num}: {error}") from error


def count_pictures(rows: Iterable[ScoreRow]) -> int:
    """Number of pictures that the rows are of; each has a row for every degradation."""
    return len({row.key for row in rows})
