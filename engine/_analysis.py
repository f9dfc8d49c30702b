"""Every number of an evaluation, derived from its per-picture table."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import degrade, metrics
from .benchmark import Published
from .metrics import Cell, Metrics, Pairing
from .progress import Progress
from .table import ScoreRow

POOLED = "pooled over pictures"
TOO_MANY_UNREADABLE = 0.01
Values = Mapping[str, float]


@dataclass(frozen=True)
class View:
    """How a table is to be read.

    `pairing`: what makes a cell. `base`: the degradation that the main numbers are of; the others
    are the sweep. `average`: the headline mean, over "generators", "cells" or "pictures".
    `published`: figures to print beside ours. `dataset`: the name that CO-SPY's JSON files give to
    pictures that have no sources of their own. `notes`: what a reader of the numbers must know.
    """

    pairing: Pairing = field(default_factory=Pairing)
    base: str = degrade.NONE
    average: str = "generators"
    published: Published | None = None
    dataset: str = ""
    notes: tuple[str, ...] = ()


WHOLE = View()


@dataclass(frozen=True)
class Average:
    """Metrics averaged over "generators" or "cells", or of all "pictures" together."""

    kind: str
    name: str
    values: Values
    headline: bool


@dataclass(frozen=True)
class Degraded:
    """What the pictures say under one degradation: all together, and the headline average."""

    pooled: Metrics
    headline: Average


@dataclass(frozen=True)
class Analysis:
    """Every number of one table, computed once for all the forms it is printed in.

    `rows` are those of the degradation `base`, and so are `pooled`, `cells` and `averages`.
    `degradations` has `base` first, and is empty when the table has no other. `unreadable` maps
    (source, generator, key) to what is wrong with the picture, under whichever degradation.
    """

    threshold: float
    view: View
    base: str
    rows: Sequence[ScoreRow]
    pooled: Metrics
    cells: dict[Cell, Metrics]
    averages: Sequence[Average]
    degradations: dict[str, Degraded]
    unreadable: dict[tuple[str, str, str], str]
    n_unlabelled: int

    @property
    def headline(self) -> Average:
        """The average that counts."""
        return next(average for average in self.averages if average.headline)

    @property
    def crossed(self) -> bool:
        """Whether a generator was measured against several sources."""
        return len({generator for _, generator in self.cells}) < len(self.cells)


def by_degradation(rows: Sequence[ScoreRow], base: str) -> dict[str, list[ScoreRow]]:
    """The rows of each degradation, those of `base` first.

    In a table without `base` the first degradation takes its place.
    """
    found: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        found[row.degradation].append(row)
    first = {base: found[base]} if base in found or not found else {}
    return {**first, **found}


def means(cells: Mapping[Cell, Metrics], place: int) -> dict[str, Values]:
    """Source (`place` 0) or generator (1) -> each metric's mean over the cells that have it."""
    groups: defaultdict[str, defaultdict[str, list[float]]]
    groups = defaultdict(lambda: defaultdict(list))
    for cell, found in cells.items():
        for name, estimate in found.estimates.items():
            groups[cell[place]][name].append(estimate.value)
    return {
        group: {name: float(np.mean(values)) for name, values in groups[group].items()}
        for group in sorted({cell[place] for cell in cells})
    }


def _mean(groups: Sequence[Values]) -> Values:
    names = dict.fromkeys(name for group in groups for name in group)
    return {
        name: float(np.mean([group[name] for group in groups if name in group])) for name in names
    }


def averages(pooled: Metrics, cells: Mapping[Cell, Metrics], headline: str) -> list[Average]:
    """The named averages: over pictures, over generators (each one's cells averaged first) and
    over cells; one of them, `headline`, is the one that counts.

    A metric is averaged over those that have it. With one cell per generator the last two are one
    and the same, and without cells there is none.
    """
    generators = list(means(cells, 1).values())
    plain = {
        cell: {name: estimate.value for name, estimate in found.estimates.items()}
        for cell, found in cells.items()
    }
    every = {name: estimate.value for name, estimate in pooled.estimates.items()}
    found = [("pictures", POOLED, every)]
    if cells:
        count = len(generators)
        name = f"mean over {count} generator{'s' if count > 1 else ''}"
        found.append(("generators", name, dict(_mean(generators))))
    if len(cells) > len(generators):
        found.append(("cells", f"mean over {len(cells)} cells", dict(_mean([*plain.values()]))))
    kinds = [kind for kind, _, _ in found]
    chosen = headline if headline in kinds else kinds[-1]
    return [Average(kind, name, values, kind == chosen) for kind, name, values in found]


def _measure(
    sets: Sequence[tuple[Sequence[ScoreRow], int]], threshold: float, seed: int
) -> list[Metrics]:
    """`metrics.evaluate_rows` of each set of rows with its number of resamples."""
    found = []
    # In one thread: numpy holds the interpreter's lock for most of it, so that several are slower.
    with Progress(sum(len(rows) for rows, _ in sets), "measuring") as progress:
        for rows, resamples in sets:
            found.append(metrics.evaluate_rows(rows, threshold, resamples, seed))
            progress.advance(len(rows))
    return found


def analyse(
    rows: Sequence[ScoreRow],
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
    view: View = WHOLE,
) -> Analysis:
    """Every number of the table at `threshold`, a probability.

    Intervals are those of `resamples` resamples drawn with `seed`; the cells of the degradations
    beside the base have none, for only their average is shown.
    """
    groups = by_degradation(rows, view.base)
    base, *others = groups
    cells = {name: metrics.cells(members, view.pairing) for name, members in groups.items()}
    sets = [(members, resamples) for members in (*groups.values(), *cells[base].values())]
    sets += [(members, 0) for name in others for members in cells[name].values()]
    measured = iter(_measure(sets, threshold, seed))
    pooled = {name: next(measured) for name in groups}
    values = {name: {cell: next(measured) for cell in cells[name]} for name in groups}
    named = {name: averages(pooled[name], values[name], view.average) for name in groups}
    headlines = {
        name: next(average for average in found if average.headline)
        for name, found in named.items()
    }
    unreadable: dict[tuple[str, str, str], str] = {}
    for members in groups.values():
        for row in members:
            if reason := metrics.reason_unusable(row):
                unreadable.setdefault((row.source, row.generator, row.key), reason)
    return Analysis(
        threshold=threshold,
        view=view,
        base=base,
        rows=groups[base],
        pooled=pooled[base],
        cells=values[base],
        averages=named[base],
        degradations={name: Degraded(pooled[name], headlines[name]) for name in groups if others},
        unreadable=unreadable,
        n_unlabelled=sum(row.label is None for row in groups[base]),
    )


def worst_errors(rows: Sequence[ScoreRow], threshold: float, count: int = 20) -> list[ScoreRow]:
    """The pictures that were most confidently called what they are not, at most `count`.

    Sorted by how far their logit is on the wrong side of `threshold` (a probability), then by
    key; a key appears once, with its worst row.
    """
    limit = metrics.threshold_logit(threshold)
    worst: dict[str, tuple[float, str, ScoreRow]] = {}
    for row in rows:
        if row.label is None or row.logit is None or metrics.reason_unusable(row):
            continue
        if (row.logit > limit) != bool(row.label):
            # Everything is as far from a threshold of 0 or 1: there the logit itself counts.
            distance = row.logit - (limit if math.isfinite(limit) else 0.0)
            found = (distance if row.label else -distance, row.key, row)
            if row.key not in worst or found[0] < worst[row.key][0]:
                worst[row.key] = found
    return [row for _, _, row in heapq.nsmallest(count, worst.values(), key=lambda e: e[:2])]
