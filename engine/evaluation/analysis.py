"""Every number of an evaluation, derived from its per-picture table."""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..runtime.progress import Progress
from ..scoring import degradations as degrade
from ..scoring import probability
from ..scoring.table import ScoreRow
from . import clusters as _clusters
from . import metrics
from .benchmark_file import Facts, Published, Reported
from .cells import Cell, Pairing, by_cell, reason_unusable
from .estimates import FEWEST, Estimate, Metrics
from .estimates import estimate as with_interval

POOLED = "pooled over pictures"
CLUSTERED = "interval over generators and sources"
TOO_MANY_UNREADABLE = 0.01
# Of a class, below which a cell enters no mean: there one picture would weigh as much as hundreds.
MIN_PICTURES = 10
Values = Mapping[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """How a table is to be read.

    `pairing`: what makes a cell. `base`: the degradation that the main numbers are of; the others
    are the sweep. `average`: the headline mean, over "generators", "cells" or "pictures".
    `published`: figures to print beside ours. `dataset`: the name that CO-SPY's JSON files give to
    pictures that have no sources of their own. `generators`, `sources`: what the whole benchmark
    holds, in the order of its tables; empty where it is open-ended. `notes`: what a reader of the
    numbers must know. `min_pictures`: how many of either class a cell must have to enter a mean.
    `facts`: what is known of the benchmark's pictures. `reported`: figures to name, not to compare.
    """

    pairing: Pairing = field(default_factory=Pairing)
    base: str = degrade.NONE
    average: str = "generators"
    published: Published | None = None
    dataset: str = ""
    generators: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    min_pictures: int = MIN_PICTURES
    facts: Facts = field(default_factory=Facts)
    reported: tuple[Reported, ...] = ()

    def counts(self, found: Metrics) -> bool:
        """Whether the metrics of a cell enter the means. One of a single class has its rate, and is
        asked for pictures of that class alone."""
        sizes = [size for size in (found.n_real, found.n_synthetic) if size]
        return min(sizes, default=0) >= self.min_pictures


WHOLE = View()


@dataclass(frozen=True)
class Average:
    """Metrics averaged over "generators" or "cells", or of all "pictures" together.

    `counts`: over how many each metric's mean is; empty for pictures. `left_out`: how many
    generators or cells have too few pictures to enter it. `estimates`: the values with their
    intervals of the cluster bootstrap, where there are generators or sources enough.
    """

    kind: str
    values: Values
    headline: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Over how many the means of most metrics are."""
        found = Counter(self.counts.values())
        return max(found, key=lambda number: (found[number], number), default=0)

    @property
    def name(self) -> str:
        """What it is called, with its `number`."""
        if self.kind == "pictures":
            return POOLED
        return f"mean over {self.number} {self.kind[:-1] if self.number == 1 else self.kind}"

    @property
    def title(self) -> str:
        """Its name, with how many generators or cells it leaves out."""
        return f"{self.name}, {self.left_out} left out" if self.left_out else self.name

    def others(self, number: int) -> dict[str, int]:
        """The counts of the metrics whose mean is not over so many."""
        return {metric: count for metric, count in self.counts.items() if count != number}


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
    `clustered`: the pooled metrics with intervals that resample generators and sources, so many as
    `clusters` says; empty where these are too few. `sources_real`: each source of real pictures
    against all synthetic ones. `hints`: what is odd about the table.
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
    clustered: Mapping[str, Estimate] = field(default_factory=dict)
    clusters: tuple[int, int] = (0, 0)
    sources_real: Mapping[str, Metrics] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    @property
    def counted(self) -> dict[Cell, Metrics]:
        """The cells that enter the means."""
        return {cell: found for cell, found in self.cells.items() if self.view.counts(found)}

    @property
    def headline(self) -> Average:
        """The average that counts."""
        return next(average for average in self.averages if average.headline)

    @property
    def crossed(self) -> bool:
        """Whether a generator was measured against several sources."""
        return len({generator for _, generator in self.cells}) < len(self.cells)

    @property
    def generators(self) -> list[str]:
        """Those of the cells, in the order of every table and plot."""
        return ordered((generator for _, generator in self.cells), self.view.generators)

    @property
    def sources(self) -> list[str]:
        """Those of the cells, in the order of every table and plot."""
        return ordered((source for source, _ in self.cells), self.view.sources)


def by_degradation(rows: Sequence[ScoreRow], base: str) -> dict[str, list[ScoreRow]]:
    """The rows of each degradation, those of `base` first.

    In a table without `base` the first degradation takes its place.
    """
    found: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        found[row.degradation].append(row)
    first = {base: found[base]} if base in found or not found else {}
    return {**first, **found}


def ordered(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names without repetitions: those of `known` in its order, then the others, sorted."""
    found = set(names)
    return [*(name for name in known if name in found), *sorted(found.difference(known))]


def arranged(cells: Mapping[Cell, T], view: View) -> dict[Cell, T]:
    """Cells by source and then generator; where no generator has several, by generator."""
    sources = ordered((source for source, _ in cells), view.sources)
    generators = ordered((generator for _, generator in cells), view.generators)
    crossed = len(generators) < len(cells)

    def place(cell: Cell) -> tuple[int, int]:
        source, generator = sources.index(cell[0]), generators.index(cell[1])
        return (source, generator) if crossed else (generator, source)

    return {cell: cells[cell] for cell in sorted(cells, key=place)}


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


def _mean(kind: str, groups: Sequence[Values]) -> Average:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for group in groups:
        for name, value in group.items():
            found[name].append(value)
    return Average(
        kind,
        {name: float(np.mean(values)) for name, values in found.items()},
        headline=False,
        counts={name: len(values) for name, values in found.items()},
    )


def averages(pooled: Metrics, cells: Mapping[Cell, Metrics], view: View) -> list[Average]:
    """The named averages: over pictures, over generators (each one's cells averaged first) and
    over cells; one of them, `view.average`, is the one that counts.

    A metric is averaged over those that have it, cells of too few pictures left out. With one cell
    per generator the last two are one and the same, and without cells there is none.
    """
    counted = {cell: found for cell, found in cells.items() if view.counts(found)}
    generators = list(means(counted, 1).values())
    plain = [
        {name: estimate.value for name, estimate in each.estimates.items()}
        for each in (pooled, *counted.values())
    ]
    found = [Average("pictures", plain[0], headline=False)]
    if counted:
        left_out = len({generator for _, generator in cells}) - len(generators)
        found.append(replace(_mean("generators", generators), left_out=left_out))
    if len(counted) > len(generators):
        left_out = len(cells) - len(counted)
        found.append(replace(_mean("cells", plain[1:]), left_out=left_out))
    kinds = [average.kind for average in found]
    chosen = view.average if view.average in kinds else kinds[-1]
    return [replace(average, headline=average.kind == chosen) for average in found]


def _with_intervals(
    found: Sequence[Average],
    cells: Mapping[Cell, Sequence[ScoreRow]],
    crossed: bool,
    threshold: float,
    resamples: int,
    seed: int,
) -> list[Average]:
    """The averages; those over generators or cells with their intervals of the cluster bootstrap,
    if there are generators enough. `cells`: those that enter."""
    if len({generator for _, generator in cells}) < FEWEST:
        return list(found)
    drawn = _clusters.mean_samples(cells, crossed, threshold, resamples, seed)
    return [
        replace(
            average,
            estimates={
                name: with_interval(name, value, drawn[average.kind][name], _clusters.CONFIDENCE)
                for name, value in average.values.items()
            },
        )
        if average.kind in drawn
        else average
        for average in found
    ]


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
    cells = {
        name: arranged(by_cell(members, view.pairing), view) for name, members in groups.items()
    }
    sets = [(members, resamples) for members in (*groups.values(), *cells[base].values())]
    sets += [(members, 0) for name in others for members in cells[name].values()]
    measured = iter(_measure(sets, threshold, seed))
    pooled = {name: next(measured) for name in groups}
    values = {name: {cell: next(measured) for cell in cells[name]} for name in groups}
    named = {name: averages(pooled[name], values[name], view) for name in groups}
    entering = {cell: cells[base][cell] for cell, m in values[base].items() if view.counts(m)}
    crossed = len({generator for _, generator in entering}) < len(entering)
    drawing = (threshold, resamples, seed)
    named[base] = _with_intervals(named[base], entering, crossed, *drawing)
    headlines = {
        name: next(average for average in found if average.headline)
        for name, found in named.items()
    }
    unreadable: dict[tuple[str, str, str], str] = {}
    for members in groups.values():
        for row in members:
            if reason := reason_unusable(row):
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
        clustered=_clusters.intervals(groups[base], pooled[base], *drawing),
        clusters=_clusters.numbers(groups[base]),
        sources_real=_clusters.by_source(groups[base], *drawing),
    )


def worst_errors(rows: Sequence[ScoreRow], threshold: float, count: int = 20) -> list[ScoreRow]:
    """The pictures that were most confidently called what they are not, at most `count`.

    Sorted by how far their logit is on the wrong side of `threshold` (a probability), then by
    key; a key appears once, with its worst row.
    """
    limit = probability.threshold_logit(threshold)
    worst: dict[str, tuple[float, str, ScoreRow]] = {}
    for row in rows:
        if row.label is None or row.logit is None or reason_unusable(row):
            continue
        if (row.logit > limit) != bool(row.label):
            # Everything is as far from a threshold of 0 or 1: there the logit itself counts.
            distance = row.logit - (limit if math.isfinite(limit) else 0.0)
            found = (distance if row.label else -distance, row.key, row)
            if row.key not in worst or found[0] < worst[row.key][0]:
                worst[row.key] = found
    return [row for _, _, row in heapq.nsmallest(count, worst.values(), key=lambda e: e[:2])]
