"""Scores of pictures that others computed, such as aesthetic ones, for sheets and distributions.

The script of contact sheets sorts and annotates by them. Tables name pictures by paths of another
machine, so that a picture is told by the end of its path, and one that two rows could mean is left
without a score rather than with a guessed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import LayoutError, Record
from datasets._csv import found_columns, read_csv

from . import drawing

NAMES = ("image", "path", "file", "filename", "name", "key", "img")
TAILS = (3, 2, 1)  # parts of a path that tell a picture, the surest first
AMBIGUOUS = math.nan


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _value_column(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """The one column of numbers. Raises LayoutError for none and for several."""
    numbers = [
        column
        for column in columns
        if column.lower() not in NAMES and all(_number(row[column]) is not None for row in rows)
    ]
    if "score" in numbers:
        return "score"
    if len(numbers) != 1:
        raise LayoutError(
            f"{file}: expected a column score, or one of numbers; found {len(numbers)} among "
            f"{found_columns(list(columns))}"
        )
    return numbers[0]


def _tails(path: str) -> Iterable[str]:
    """The ends of a path that may tell it, the longest first."""
    parts = path.replace("\\", "/").strip("/").split("/")
    return dict.fromkeys("/".join(parts[-count:]) for count in TAILS)


class PictureScores:
    """Scores out of CSV files with a column that names pictures (NAMES) and one of numbers.

    Raises:
        LayoutError: no such file, or one without these columns.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._scores: dict[str, float] = {}
        for file in files:
            columns, rows = read_csv(file)
            named = next((column for column in columns if column.lower() in NAMES), None)
            if named is None:
                raise LayoutError(
                    f"{file}: expected a column {' or '.join(NAMES)}; found "
                    f"{found_columns(columns)}"
                )
            value = _value_column(file, columns, rows)
            for row in rows:
                for tail in _tails(row[named]):
                    score = float(row[value])
                    same = self._scores.setdefault(tail, score) == score
                    self._scores[tail] = score if same else AMBIGUOUS

    def score(self, record: Record) -> float | None:
        """A picture's score; None where no row, or more than one, is of it."""
        values = [self._scores[tail] for tail in _tails(record.key) if tail in self._scores]
        return None if not values or math.isnan(values[0]) else values[0]

    def by_score(self, records: Iterable[Record]) -> list[Record]:
        """Records from the highest score to the lowest, those without one last."""

        def place(record: Record) -> tuple[bool, float]:
            score = self.score(record)
            return score is None, -(score or 0.0)

        return sorted(records, key=place)


def distributions(groups: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG with a box of each group's scores: quartiles, and whiskers to the 5th and 95th
    percentile. Raises ImportError without matplotlib."""
    names = [name for name, values in groups.items() if values][::-1]
    canvas, axes = drawing.single(7.0, 1.2 + 0.32 * len(names), "score", "")
    axes.boxplot(
        [list(groups[name]) for name in names], orientation="horizontal", showfliers=False,
        whis=(5, 95), positions=range(len(names)), medianprops={"color": drawing.VERMILION},
    )  # fmt: skip
    drawing.name_rows(axes, [f"{name} ({len(groups[name]):,})" for name in names])
    return drawing.png(canvas)
