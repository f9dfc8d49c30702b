"""Every number of an evaluation, derived from its per-picture table.

`analyse` computes them once, in the order that all tables and plots have; the reports only print.
Pure functions of rows, called by phase eval and by reporting: they read no file, and never score.
"""

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
from . import clusters, metrics, periods
from .benchmark_file import Facts, Published, Reported
from .cells import Cell, Pairing, by_cell, reason_unusable
from .estimates import FEWEST, Estimate, Metrics
from .estimates import estimate as with_interval
from .generators import Release

POOLED = "pooled over pictures"
CLUSTERED = "interval over generators and sources"
TOO_MANY_UNREADABLE = (
    0.01  # of the pictures: without more of them a mean moves as far as papers differ
)
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
    `releases`: date and family of synthetic pictures' generators, by key. `until`: the end of the
    year or month up to which the weights know generators, '' where nothing says so.
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
    releases: Mapping[str, Release] = field(default_factory=dict)
    until: str = ""

    def counts(self, measured: Metrics) -> bool:
        """Whether the metrics of a cell enter the means. One of a single class has its rate, and is
        asked for pictures of that class alone."""
        sizes = [size for size in (measured.n_real, measured.n_synthetic) if size]
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
        numbers = Counter(self.counts.values())
        return max(numbers, key=lambda number: (numbers[number], number), default=0)

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
    """The numbers of one table, computed once for all the forms they are printed in.

    `rows` are those of the degradation `base`, and so are `pooled`, `cells` and `averages`.
    `degradations` has `base` first, and is empty when the table has no other. `unreadable` maps
    (source, generator, key) to what is wrong with the picture, under whichever degradation.
    `clustered`: the pooled metrics with intervals that resample generators and sources, so many as
    `clusters` says; empty where these are too few. `sources_real`: each source of real pictures
    against all synthetic ones. `years`, `families`: the generators by when they came out and what
    they are, where that is known. `hints`: what is odd about the table.
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
    years: Mapping[str, periods.Group] = field(default_factory=dict)
    families: Mapping[str, periods.Group] = field(default_factory=dict)
    hints: tuple[str, ...] = ()

    @property
    def counted(self) -> dict[Cell, Metrics]:
        """The cells that enter the means."""
        return {cell: m for cell, m in self.cells.items() if self.view.counts(m)}

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
        """Generators of the cells, in the order of every table and plot."""
        return ordered((generator for _, generator in self.cells), self.view.generators)

    @property
    def sources(self) -> list[str]:
        """Sources of the cells, in the order of every table and plot."""
        return ordered((source for source, _ in self.cells), self.view.sources)


def by_degradation(rows: Sequence[ScoreRow], base: str) -> dict[str, list[ScoreRow]]:
    """The rows of each degradation, those of `base` first.

    In a table without `base` the first degradation takes its place.
    """
    groups: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        groups[row.degradation].append(row)
    # A dict keeps its order, and the main numbers are those of its first entry.
    first = {base: groups[base]} if base in groups or not groups else {}
    return {**first, **groups}


def ordered(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names without repetitions: those of `known` in its order, then the others, sorted."""
    distinct = set(names)
    return [*(name for name in known if name in distinct), *sorted(distinct.difference(known))]


def arranged(cells: Mapping[Cell, T], view: View) -> dict[Cell, T]:
    """Cells by source and then generator; where no generator has several, by generator."""
    sources = ordered((source for source, _ in cells), view.sources)
    generators = ordered((generator for _, generator in cells), view.generators)
    crossed = len(generators) < len(cells)

    def position(cell: Cell) -> tuple[int, int]:
        source, generator = sources.index(cell[0]), generators.index(cell[1])
        return (source, generator) if crossed else (generator, source)

    return {cell: cells[cell] for cell in sorted(cells, key=position)}


def _values(measured: Metrics) -> Values:
    return {name: estimate.value for name, estimate in measured.estimates.items()}


def _mean(kind: str, groups: Iterable[Values]) -> Average:
    """Each metric's mean over the groups that have it."""
    columns: defaultdict[str, list[float]] = defaultdict(list)
    for group in groups:
        for name, value in group.items():
            columns[name].append(value)
    return Average(
        kind,
        {name: float(np.mean(values)) for name, values in columns.items()},
        headline=False,
        counts={name: len(values) for name, values in columns.items()},
    )


def means(cells: Mapping[Cell, Metrics], axis: int) -> dict[str, Values]:
    """Source (`axis` 0) or generator (1) -> each metric's mean over the cells that have it."""
    groups: defaultdict[str, list[Values]] = defaultdict(list)
    for cell, measured in cells.items():
        groups[cell[axis]].append(_values(measured))
    return {group: _mean("cells", groups[group]).values for group in sorted(groups)}


def averages(pooled: Metrics, cells: Mapping[Cell, Metrics], view: View) -> list[Average]:
    """The averages over pictures, over generators (the cells of each first) and over cells.

    Args:
        pooled: of all pictures together.
        cells: a metric is averaged over those that have it, cells of too few pictures left out.
        view: whose `average` is the one that counts.

    Returns:
        Two or three; with one cell per generator the last two are one and the same, and without
        cells there is none.
    """
    # What a handful of pictures gives stands in the tables, but moves no mean.
    counted = {cell: measured for cell, measured in cells.items() if view.counts(measured)}
    generators = means(counted, 1)
    named = [Average("pictures", _values(pooled), headline=False)]
    if counted:
        left_out = len({generator for _, generator in cells}) - len(generators)
        named.append(replace(_mean("generators", generators.values()), left_out=left_out))
    # Else each generator has one cell, and the mean over cells would be printed twice.
    if len(counted) > len(generators):
        left_out = len(cells) - len(counted)
        named.append(replace(_mean("cells", map(_values, counted.values())), left_out=left_out))
    kinds = [average.kind for average in named]
    chosen = view.average if view.average in kinds else kinds[-1]
    return [replace(average, headline=average.kind == chosen) for average in named]


def _with_intervals(
    plain: Sequence[Average],
    cells: Mapping[Cell, Sequence[ScoreRow]],
    crossed: bool,
    drawing: tuple[float, int, int],
) -> list[Average]:
    """The averages; those over generators or cells with their intervals of the cluster bootstrap,
    if there are generators enough. `cells`: those that enter."""
    # Fewer say nothing of the generators that were not measured.
    if len({generator for _, generator in cells}) < FEWEST:
        return list(plain)
    drawn = clusters.mean_samples(cells, crossed, *drawing)
    return [
        replace(
            average,
            estimates={
                name: with_interval(name, value, drawn[average.kind][name], clusters.CONFIDENCE)
                for name, value in average.values.items()
            },
        )
        if average.kind in drawn
        else average
        for average in plain
    ]


def _unreadable(rows: Sequence[ScoreRow]) -> dict[tuple[str, str, str], str]:
    """What is wrong with the unusable pictures, the first reason of each."""
    reasons: dict[tuple[str, str, str], str] = {}
    for row in rows:
        if reason := reason_unusable(row):
            reasons.setdefault((row.source, row.generator, row.key), reason)
    return reasons


def _measure(
    tables: Mapping[str, tuple[Sequence[ScoreRow], Mapping[Cell, Sequence[ScoreRow]]]],
    drawing: tuple[float, int, int],
) -> dict[str, tuple[Metrics, dict[Cell, Metrics]]]:
    """Metrics of the rows of each degradation, and of each of its cells.

    Args:
        tables: degradation -> its rows and its cells, the main one first: only its cells have
            intervals, for of the others the average alone is shown.
        drawing: threshold, resamples and seed, as in `metrics.evaluate_rows`.
    """
    threshold, resamples, seed = drawing
    main = next(iter(tables))
    measured: dict[str, tuple[Metrics, dict[Cell, Metrics]]] = {}
    total = sum(len(rows) + sum(map(len, cells.values())) for rows, cells in tables.values())
    # In one thread: numpy holds the interpreter's lock for most of it, so that several are slower.
    with Progress(total, "measuring") as progress:
        for name, (rows, cells) in tables.items():
            pooled = metrics.evaluate_rows(rows, threshold, resamples, seed)
            progress.advance(len(rows))
            of_cells: dict[Cell, Metrics] = {}
            for cell, members in cells.items():
                draws = resamples if name == main else 0
                of_cells[cell] = metrics.evaluate_rows(members, threshold, draws, seed)
                progress.advance(len(members))
            measured[name] = pooled, of_cells
    return measured


def analyse(
    rows: Sequence[ScoreRow],
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
    view: View = WHOLE,
) -> Analysis:
    """Every number of a table.

    Args:
        rows: the table, of one or several degradations.
        threshold: a probability, above which a picture is called synthetic.
        resamples, seed: of the bootstrap intervals.
        view: how the table is to be read.
    """
    drawing = threshold, resamples, seed
    groups = by_degradation(rows, view.base)
    base = next(iter(groups))
    tables = {
        name: (members, arranged(by_cell(members, view.pairing), view))
        for name, members in groups.items()
    }
    measured = _measure(tables, drawing)
    named = {name: averages(pooled, cells, view) for name, (pooled, cells) in measured.items()}
    pooled, cells = measured[base]
    # An interval is of the same cells as the mean that it stands beside.
    entering = {c: rows for c, rows in tables[base][1].items() if view.counts(cells[c])}
    crossed = len({generator for _, generator in entering}) < len(entering)
    named[base] = _with_intervals(named[base], entering, crossed, drawing)
    degraded = {
        name: Degraded(measured[name][0], next(a for a in named[name] if a.headline))
        for name in groups
    }
    return Analysis(
        threshold=threshold,
        view=view,
        base=base,
        rows=groups[base],
        pooled=pooled,
        cells=cells,
        averages=named[base],
        degradations=degraded if len(groups) > 1 else {},
        # Of all degradations: one that a format cannot hold fails on pictures that were readable.
        unreadable=_unreadable([row for members in groups.values() for row in members]),
        n_unlabelled=sum(row.label is None for row in groups[base]),
        clustered=clusters.intervals(groups[base], pooled, *drawing),
        clusters=clusters.numbers(groups[base]),
        sources_real=clusters.by_source(groups[base], *drawing),
        years=periods.by_year(groups[base], view.releases, view.until, drawing),
        families=periods.by_family(groups[base], view.releases, drawing),
    )


def worst_errors(rows: Sequence[ScoreRow], threshold: float, count: int = 20) -> list[ScoreRow]:
    """The pictures that were most confidently called what they are not.

    Args:
        rows: of the table; those without a label or a score are passed over.
        threshold: a probability.
        count: the most that are listed.

    Returns:
        Rows by how far their logit is on the wrong side of the threshold, then by key; a key
        appears once, with its worst row.
    """
    limit = probability.threshold_logit(threshold)
    worst: dict[str, tuple[float, str, ScoreRow]] = {}
    for row in rows:
        if row.label is None or row.logit is None or reason_unusable(row):
            continue
        if (row.logit > limit) != bool(row.label):
            # Everything is as far from a threshold of 0 or 1: there the logit itself counts.
            distance = row.logit - (limit if math.isfinite(limit) else 0.0)
            error = (distance if row.label else -distance, row.key, row)
            if row.key not in worst or error[0] < worst[row.key][0]:
                worst[row.key] = error
    return [row for _, _, row in heapq.nsmallest(count, worst.values(), key=lambda e: e[:2])]
