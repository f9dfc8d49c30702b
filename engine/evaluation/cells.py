"""Which rows of a table a metric can use, and which it is measured on together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from ..config import FILE
from ..scoring.table import ScoreRow

Cell = tuple[str, str]


@dataclass(frozen=True, config=FILE)
class Pairing:
    """Which real pictures a generator is measured against, and how many of each class."""

    mode: Literal["own", "crossed"] = "own"
    """own: the reals of the fakes' own source; a cell is (source, generator). Where that source
    has none, all reals of the table, and the cell is ("", generator). crossed: the reals of every
    source that has any, in turn, whatever the source of the fakes; a cell is (source of the reals,
    generator)."""
    cap: Annotated[StrictInt | None, Field(ge=1)] = None
    """At most the first so many rows of each class, in the order of the table."""
    balanced: StrictBool = False
    """As many rows of one class as of the other: the first n of each, n = min(cap, reals, fakes),
    which counts the unreadable ones too. A cell of one class is not cut."""

    def cut(self, reals: Sequence[ScoreRow], fakes: Sequence[ScoreRow]) -> list[ScoreRow]:
        """The rows of a cell that enter it: its reals, then its fakes."""
        bounds = [] if self.cap is None else [self.cap]
        if self.balanced and reals:
            bounds += [len(reals), len(fakes)]
        n = min(bounds, default=None)
        return [*reals[:n], *fakes[:n]]


OWN = Pairing()


def reason_unusable(row: ScoreRow) -> str:
    """Why a row enters no metric: its error, or that its logit is NaN; empty for a usable row."""
    if row.error or row.logit is None:
        return row.error or "it has no logit"
    return "its logit is NaN" if math.isnan(row.logit) else ""


def labels_logits(rows: Iterable[ScoreRow]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (N,) and logits (N,) of the labelled rows that a metric can use, in their order."""
    usable = [row for row in rows if row.label is not None and not reason_unusable(row)]
    labels = np.fromiter((row.label for row in usable), np.int64, len(usable))
    return labels, np.fromiter((row.logit for row in usable), np.float64, len(usable))


def by_cell(rows: Iterable[ScoreRow], pairing: Pairing = OWN) -> dict[Cell, list[ScoreRow]]:
    """(source, generator) -> the reals a generator is measured against, then its fakes; sorted.

    The rows of either class keep the order of the table. Rows with an error are kept, rows
    without a label are not. A table without synthetic pictures has no cells; `crossed` without
    real ones has those of source "".
    """
    crossed, rows = pairing.mode == "crossed", list(rows)
    with_reals = {row.source for row in rows if row.label == 0}

    def pool(row: ScoreRow) -> str:
        """The source whose reals a fake is measured against, empty for all of them: those of
        several sources without any are one set, not many of a few pictures each."""
        own = not crossed and (row.source in with_reals or not with_reals)
        return row.source if own else ""

    reals: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    fakes: defaultdict[Cell, list[ScoreRow]] = defaultdict(list)
    every_real: list[ScoreRow] = []
    for row in rows:
        if row.label == 0:
            reals[row.source].append(row)
            every_real.append(row)
        elif row.label == 1:
            fakes[pool(row), row.generator].append(row)
    if not crossed:
        return {
            cell: pairing.cut(reals.get(cell[0], every_real), fakes[cell]) for cell in sorted(fakes)
        }
    return {
        (source, generator): pairing.cut(reals.get(source, []), fakes["", generator])
        for source in sorted(reals) or [""]
        for _, generator in sorted(fakes)
    }
