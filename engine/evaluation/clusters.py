"""The cluster bootstrap: intervals over generators and sources, beside those over pictures.

Pictures of one generator, or of one source of real ones, resemble each other. A resample draws
generators and sources with replacement, then as many pictures of each as it has: its interval says
how far other generators and sources would move a number, not only other pictures of the same ones
(Davison and Hinkley 1997, section 3.8). Pure functions of the table, called by `analysis`.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..scoring import probability
from ..scoring.table import ScoreRow
from . import bootstrap, metrics
from .bootstrap import Bools, Floats, Ints, joined, statistics
from .cells import Cell, labels_logits, reason_unusable
from .estimates import ACCURACY_REAL, AUROC, DETECTION_RATE, FEWEST, Estimate, Metrics, estimate

CONFIDENCE = 0.95
Streams = tuple[np.random.Generator, np.random.Generator]


@dataclass(frozen=True)
class Clusters:
    """Pictures of one class (N,) in K clusters: `order` (N,) lists them, one cluster after the
    other, `sizes` (K,) are how many each has."""

    order: Ints
    sizes: Ints


class Drawn(NamedTuple):
    """Pictures that a chunk of resamples draws, T in all: the resample and the picture of each."""

    resamples: Ints
    pictures: Ints


def clusters(names: Sequence[str]) -> Clusters:
    """Pictures (N,) of one class by the names of their generators or sources."""
    # Codes by sorted names: the same set draws the same clusters, in whatever order rows come.
    codes = {name: code for code, name in enumerate(sorted(set(names)))}
    members = np.fromiter((codes[name] for name in names), np.int64, len(names))
    return Clusters(np.argsort(members, kind="stable"), np.bincount(members))


def streams(kind: str, names: Sequence[str], seed: int) -> Streams:
    """Random numbers for the draws of clusters, and for those of pictures within.

    Args:
        kind: what the clusters are, so that generators and sources of one name differ.
        names: of the clusters, which decide the numbers: all cells that share their real pictures
            draw the same of them, as they must for the interval of a mean over these cells.
        seed: of the run.
    """
    # With NULs between, two sets of names do not make one text.
    text = "\0".join([kind, *sorted(set(names))]).encode("utf-8", "surrogateescape")
    first, second = np.random.SeedSequence((seed, zlib.crc32(text))).spawn(2)
    return np.random.default_rng(first), np.random.default_rng(second)


def draw(groups: Clusters, resamples: int, random: Streams) -> Drawn:
    """The pictures of a chunk of resamples.

    Args:
        groups: K clusters; a resample takes K of them with replacement, then of every drawn one
            as many pictures as it has, with replacement.
        resamples: of the chunk.
        random: for the clusters and for the pictures.
    """
    sizes = groups.sizes
    chosen = random[0].integers(0, sizes.size, size=(resamples, sizes.size))
    # A resample is as long as its clusters are: they differ in size, so resamples do in length.
    lengths = sizes[chosen]
    which = np.repeat(chosen.reshape(-1), lengths.reshape(-1))
    starts = np.cumsum(sizes) - sizes
    # integers() with a bound for each is slower; doubles hold sizes below 2 ** 53 exactly.
    within = (random[1].random(which.size) * sizes[which]).astype(np.int64)
    rows = np.repeat(np.arange(resamples), lengths.sum(axis=1))
    return Drawn(rows, groups.order[starts[which] + within])


def _chunks(resamples: int, pictures: int) -> Iterator[int]:
    """Sizes of the chunks that resamples are computed in, which bound memory for any table."""
    step = max(1, bootstrap.CHUNK // pictures)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _usable(rows: Sequence[ScoreRow]) -> tuple[Bools, Floats, list[str]]:
    """Of the usable rows (N,): whether each is synthetic, its logit, and its generator, or the
    source of a real picture."""
    usable = [row for row in rows if row.label is not None and not reason_unusable(row)]
    labels, logits = labels_logits(usable)
    return labels.astype(bool), logits, [r.generator if r.label else r.source for r in usable]


def _rates(name: str, right: Bools, names: list[str], resamples: int, seed: int) -> Floats:
    """Resampled share of right answers of one class (R,)."""
    groups, random = clusters(names), streams(name, names, seed)
    rates: list[Floats] = []
    for count in _chunks(resamples, right.size):
        rows, pictures = draw(groups, count, random)
        detected = np.bincount(rows, right[pictures], minlength=count)
        rates.append(detected / np.bincount(rows, minlength=count))
    # Of no resamples nothing is to be joined: the empty list keeps that a (0,) array.
    return np.concatenate([[], *rates])


def share(marks: Sequence[bool], names: Sequence[str], resamples: int, seed: int) -> Estimate:
    """The share of marked pictures, with an interval over clusters.

    Args:
        marks: of N pictures, at least one.
        names: the cluster of each.
        resamples, seed: as in `samples`.

    Returns:
        Without an interval where there are fewer than `FEWEST` clusters.
    """
    marked = np.array(marks, dtype=bool)
    enough = len(set(names)) >= FEWEST
    values = _rates("share", marked, list(names), resamples if enough else 0, seed)
    return estimate("share", float(marked.mean()), values, CONFIDENCE)


def samples(
    rows: Sequence[ScoreRow], threshold: float, resamples: int, seed: int
) -> dict[str, Floats]:
    """Metric -> its values (R,) in resamples of clusters, for every metric that the rows define.

    Args:
        rows: clustered by generator where they are synthetic, by source where they are real.
        threshold: a probability.
        resamples: R.
        seed: of the draws.
    """
    synthetic, logits, names = _usable(rows)
    limit = probability.threshold_logit(threshold)
    if not logits.size:
        return {}
    if synthetic.all() or not synthetic.any():
        name = DETECTION_RATE if synthetic.all() else ACCURACY_REAL
        return {name: _rates(name, (logits > limit) == synthetic, names, resamples, seed)}
    # Sorted once: all resamples are counts over the same distinct logits.
    ranking = bootstrap.rank(synthetic, logits)
    cut = int((ranking.thresholds > limit).sum())
    classes = []
    for kind, label, ranks in (("fake", True, ranking.fakes), ("real", False, ranking.reals)):
        own = [name for name, is_fake in zip(names, synthetic, strict=True) if is_fake == label]
        classes.append((ranks, clusters(own), streams(kind, own, seed)))

    def chunk(count: int) -> dict[str, Floats]:
        counts = []
        for ranks, groups, random in classes:
            drawn = draw(groups, count, random)
            shape = count, ranking.thresholds.size
            counts.append(bootstrap.counts_of(ranks[drawn.pictures], drawn.resamples, shape))
        return statistics(bootstrap.samples_of(ranking, counts[0], counts[1]), cut)

    return joined(chunk(count) for count in _chunks(resamples, ranking.size))


def numbers(rows: Sequence[ScoreRow]) -> tuple[int, int]:
    """How many generators the usable rows have, and how many sources of real pictures."""
    synthetic, _, names = _usable(rows)
    distinct = set(zip(synthetic.tolist(), names, strict=True))
    generators = sum(is_fake for is_fake, _ in distinct)
    return generators, len(distinct) - generators


def intervals(
    rows: Sequence[ScoreRow], measured: Metrics, threshold: float, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The metrics of all pictures with intervals of the cluster bootstrap.

    Args:
        rows: the pictures.
        measured: their metrics.
        threshold, resamples, seed: as in `samples`.

    Returns:
        Nothing where there are fewer than `FEWEST` generators, or of real pictures alone sources:
        so few say nothing about others.
    """
    # Sources are not asked for where there are generators: most benchmarks have one pool of reals,
    # and what varies there is the generator.
    n_generators, n_sources = numbers(rows)
    if (n_generators or n_sources) < FEWEST:
        return {}
    values = samples(rows, threshold, resamples, seed)
    return {
        name: estimate(name, plain.value, values[name], CONFIDENCE)
        for name, plain in measured.estimates.items()
    }


def _weights(names: Sequence[str], resamples: int, seed: int) -> dict[str, Floats]:
    """How often each name is drawn in every resample (R,)."""
    size = len(names)
    # Counts of a draw with replacement, without the draw.
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), resamples)
    return dict(zip(names, drawn.T.astype(np.float64), strict=True))


def _weighted(values: Sequence[Floats], weights: Sequence[Floats]) -> Floats:
    """The mean of values (C, R) by weights (C, R); NaN where no weight is left."""
    drawn = np.array(weights)
    # An undrawn cell may be infinite, or a mean of nothing.
    sums = (np.where(drawn > 0, np.array(values), 0.0) * drawn).sum(axis=0)
    total = drawn.sum(axis=0)
    return np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0)


def mean_samples(
    cells: Mapping[Cell, Sequence[ScoreRow]],
    crossed: bool,
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Floats]]:
    """Resampled means over generators and over cells.

    Args:
        cells: rows of the cells that enter the means. Generators are drawn with replacement.
        crossed: whether sources are drawn too, or else those among the real pictures of a cell.
        threshold, resamples, seed: as in `samples`.

    Returns:
        "generators" and "cells" -> metric -> its values, at most (R,): a resample that drew no
        cell of a metric has none.
    """
    values = {cell: samples(rows, threshold, resamples, seed) for cell, rows in cells.items()}
    generators = sorted({generator for _, generator in cells})
    sources = sorted({source for source, _ in cells})
    # Seeds apart, or generators and sources of equal number would be drawn alike.
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(2)]
    by_generator = _weights(generators, resamples, seeds[0])
    ones = dict.fromkeys(sources, np.ones(resamples))
    weights = by_generator, _weights(sources, resamples, seeds[1]) if crossed else ones
    result: dict[str, dict[str, Floats]] = {"generators": {}, "cells": {}}
    # A cell without real pictures has a detection rate alone, so each metric has cells of its own.
    for metric in dict.fromkeys(metric for of_cell in values.values() for metric in of_cell):
        having = {cell: values[cell][metric] for cell in cells if metric in values[cell]}
        for kind, means in _means(having, weights).items():
            result[kind][metric] = means[~np.isnan(means)]
    return result


def _means(
    values: Mapping[Cell, Floats], weights: tuple[dict[str, Floats], dict[str, Floats]]
) -> dict[str, Floats]:
    """One metric's resampled mean (R,) over generators and over cells, NaN where none was drawn.

    Args:
        values: cell -> the metric in each resample (R,).
        weights: how often a resample draws each generator, and each source (R,).
    """
    by_generator, by_source = weights
    cells: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in values:
        cells[cell[1]].append(cell)
    of_generators = {
        generator: _weighted([values[c] for c in group], [by_source[c[0]] for c in group])
        for generator, group in cells.items()
    }
    ordered = [cell for group in cells.values() for cell in group]
    return {
        "generators": _weighted(
            list(of_generators.values()),
            [by_generator[g] * ~np.isnan(means) for g, means in of_generators.items()],
        ),
        "cells": _weighted(
            [values[cell] for cell in ordered], [by_source[s] * by_generator[g] for s, g in ordered]
        ),
    }


def _above(ranking: bootstrap.Ranking, drawn: Ints) -> Floats:
    """Share of the drawn synthetic pictures (r, S) above each distinct logit (r, U), those at it
    counted half."""
    rows = np.arange(len(drawn))[:, None]
    shape = len(drawn), ranking.thresholds.size
    counts = bootstrap.counts_of(ranking.fakes[drawn], rows, shape)
    return (counts.cumsum(axis=1) - counts / 2) / ranking.fakes.size


def by_source(
    rows: Sequence[ScoreRow], threshold: float, resamples: int, seed: int
) -> dict[str, Metrics]:
    """AUROC of each source's real pictures against all synthetic ones, and their own accuracy.

    Args:
        rows: of the table.
        threshold, resamples, seed: as in `samples`; the intervals are over pictures.

    Returns:
        Source -> its metrics; nothing unless there are two sources and a synthetic picture.
    """
    synthetic, logits, names = _usable(rows)
    # By positions among the real pictures, as the ranking numbers them.
    members: defaultdict[str, list[int]] = defaultdict(list)
    for position, index in enumerate(np.flatnonzero(~synthetic).tolist()):
        members[names[index]].append(position)
    if len(members) < 2 or not synthetic.any():
        return {}
    ranking = bootstrap.rank(synthetic, logits)
    ranks = {source: ranking.reals[members[source]] for source in sorted(members)}
    n_fake = ranking.fakes.size
    random = {source: streams("source", [source], seed)[0] for source in ranks}
    of_fakes = streams("source", [], seed)[0]
    values: defaultdict[str, list[Floats]] = defaultdict(list)
    for count in _chunks(resamples, ranking.size):
        # One draw of the synthetic pictures serves all sources, whatever their number.
        shares = _above(ranking, of_fakes.integers(0, n_fake, size=(count, n_fake)))
        for source, reals in ranks.items():
            drawn = reals[random[source].integers(0, reals.size, size=(count, reals.size))]
            values[source].append(np.take_along_axis(shares, drawn, axis=1).mean(axis=1))
    # The plain value: every synthetic picture once.
    measured = _above(ranking, np.arange(n_fake)[None])[0]
    rows_of: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.label == 0:
            rows_of[row.source].append(row)
    result = {}
    for source, reals in ranks.items():
        few = min(reals.size, n_fake) < FEWEST
        samples_of = np.concatenate([[], *([] if few else values[source])])
        auroc = estimate(AUROC, float(measured[reals].mean()), samples_of, CONFIDENCE)
        alone = metrics.evaluate_rows(rows_of[source], threshold, resamples, seed)
        both = {AUROC: auroc, ACCURACY_REAL: alone[ACCURACY_REAL]}
        result[source] = Metrics(reals.size, n_fake, both, alone.n_errors)
    return result
