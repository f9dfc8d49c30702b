"""The cluster bootstrap: intervals over generators and sources, beside those over pictures.

Pictures of one generator, or of one source of real ones, resemble each other. A resample draws
generators and sources with replacement, then as many pictures of each as it has: its interval says
how far other generators and sources would move a number, not only other pictures of the same ones
(Davison and Hinkley 1997, section 3.8). Pure functions of the table, called by `_analysis`.
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
from .bootstrap import Bools, Floats, Ints
from .cells import Cell, labels_logits, reason_unusable
from .estimates import ACCURACY_REAL, AUROC, DETECTION_RATE, FEWEST, Estimate, Metrics, estimate
from .statistics import joined, statistics

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
    """The clusters that the names of N pictures make."""
    # Codes by sorted names: the same set draws the same clusters, in whatever order rows come.
    codes = {name: code for code, name in enumerate(sorted(set(names)))}
    found = np.fromiter((codes[name] for name in names), np.int64, len(names))
    return Clusters(np.argsort(found, kind="stable"), np.bincount(found))


def streams(kind: str, names: Sequence[str], seed: int) -> Streams:
    """Random numbers for the draws of clusters, and of pictures within.

    They follow from the clusters' names: all cells that share their real pictures draw the same of
    them, as they must for the interval of a mean over these cells.
    """
    # With NULs between, two sets of names do not make one text.
    text = "\0".join([kind, *sorted(set(names))]).encode("utf-8", "surrogateescape")
    first, second = np.random.SeedSequence((seed, zlib.crc32(text))).spawn(2)
    return np.random.default_rng(first), np.random.default_rng(second)


def draw(found: Clusters, resamples: int, random: Streams) -> Drawn:
    """The pictures of a chunk of resamples: K clusters with replacement, then of every drawn one as
    many pictures as it has, with replacement."""
    chosen = random[0].integers(0, found.sizes.size, size=(resamples, found.sizes.size))
    # A resample is as long as its clusters are: they differ in size, so resamples do in length.
    lengths = found.sizes[chosen]
    which = np.repeat(chosen.reshape(-1), lengths.reshape(-1))
    starts = np.cumsum(found.sizes) - found.sizes
    # integers() with a bound for each is slower; doubles hold sizes below 2 ** 53 exactly.
    within = (random[1].random(which.size) * found.sizes[which]).astype(np.int64)
    rows = np.repeat(np.arange(resamples), lengths.sum(axis=1))
    return Drawn(rows, found.order[starts[which] + within])


def _chunks(resamples: int, pictures: int) -> Iterator[int]:
    """Sizes of the chunks that resamples are computed in, which bound memory for any table."""
    step = max(1, bootstrap.CHUNK // pictures)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _usable(rows: Sequence[ScoreRow]) -> tuple[Bools, Floats, list[str]]:
    """Of the usable rows (N,): whether each is synthetic, its logit, and its generator, or the
    source of a real picture."""
    kept = [row for row in rows if row.label is not None and not reason_unusable(row)]
    labels, logits = labels_logits(kept)
    return labels.astype(bool), logits, [r.generator if r.label else r.source for r in kept]


def _rates(name: str, right: Bools, names: list[str], resamples: int, seed: int) -> Floats:
    """Resampled share of right answers of one class (R,)."""
    found, random = clusters(names), streams(name, names, seed)
    # Of no resamples nothing is to be joined: an empty part keeps that a (0,) array.
    parts = []
    for count in _chunks(resamples, right.size):
        rows, pictures = draw(found, count, random)
        parts.append(
            np.bincount(rows, right[pictures], minlength=count) / np.bincount(rows, minlength=count)
        )
    return np.concatenate([[], *parts])


def samples(
    rows: Sequence[ScoreRow], threshold: float, resamples: int, seed: int
) -> dict[str, Floats]:
    """Metric -> its values (R,) in resamples of clusters, for every metric that the rows define.

    `threshold` is a probability. The clusters of synthetic pictures are their generators, those of
    real ones their sources.
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
    for kind, label, places in (("fake", True, ranking.fakes), ("real", False, ranking.reals)):
        own = [name for name, is_fake in zip(names, synthetic, strict=True) if is_fake == label]
        classes.append((places, clusters(own), streams(kind, own, seed)))

    def chunk(count: int) -> dict[str, Floats]:
        counts = []
        for places, found, random in classes:
            drawn = draw(found, count, random)
            shape = count, ranking.thresholds.size
            counts.append(bootstrap.counts_of(places[drawn.pictures], drawn.resamples, shape))
        return statistics(bootstrap.samples_of(ranking, counts[0], counts[1]), cut)

    return joined(chunk(count) for count in _chunks(resamples, ranking.size))


def numbers(rows: Sequence[ScoreRow]) -> tuple[int, int]:
    """How many generators the usable rows have, and how many sources of real pictures."""
    synthetic, _, names = _usable(rows)
    kinds: tuple[set[str], set[str]] = set(), set()
    for name, is_fake in zip(names, synthetic, strict=True):
        kinds[0 if is_fake else 1].add(name)
    return len(kinds[0]), len(kinds[1])


def intervals(
    rows: Sequence[ScoreRow], measured: Metrics, threshold: float, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The measured metrics of all pictures with the interval of the cluster bootstrap; empty where
    there are fewer than `FEWEST` generators, or of real pictures alone sources: so few say nothing
    about others."""
    # Sources are not asked for where there are generators: most benchmarks have one pool of reals,
    # and what varies there is the generator.
    n_generators, n_sources = numbers(rows)
    if (n_generators or n_sources) < FEWEST:
        return {}
    found = samples(rows, threshold, resamples, seed)
    return {
        name: estimate(name, each.value, found[name], CONFIDENCE)
        for name, each in measured.estimates.items()
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
    """ "generators" and "cells" -> metric -> its resampled mean, at most (R,) values.

    Generators are drawn with replacement; where cells are `crossed`, so are the sources, and else
    those among the real pictures of a cell. A resample that drew no cell of a metric has no value.
    """
    found = {cell: samples(rows, threshold, resamples, seed) for cell, rows in cells.items()}
    generators = sorted({generator for _, generator in cells})
    sources = sorted({source for source, _ in cells})
    # Seeds apart, or generators and sources of equal number would be drawn alike.
    seeds = [int(each) for each in np.random.SeedSequence(seed).generate_state(2)]
    by_generator = _weights(generators, resamples, seeds[0])
    ones = dict.fromkeys(sources, np.ones(resamples))
    by_source = _weights(sources, resamples, seeds[1]) if crossed else ones
    result: dict[str, dict[str, Floats]] = {"generators": {}, "cells": {}}
    # A cell without real pictures has a detection rate alone, so each metric has cells of its own.
    for name in dict.fromkeys(name for values in found.values() for name in values):
        having: defaultdict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            if name in found[cell]:
                having[cell[1]].append(cell)
        everything = [cell for group in having.values() for cell in group]
        of_generators = {
            generator: _weighted(
                [found[cell][name] for cell in group], [by_source[cell[0]] for cell in group]
            )
            for generator, group in having.items()
        }
        means = {
            "generators": _weighted(
                list(of_generators.values()),
                [by_generator[g] * ~np.isnan(values) for g, values in of_generators.items()],
            ),
            "cells": _weighted(
                [found[cell][name] for cell in everything],
                [by_source[s] * by_generator[g] for s, g in everything],
            ),
        }
        for kind, values in means.items():
            result[kind][name] = values[~np.isnan(values)]
    return result


def by_source(
    rows: Sequence[ScoreRow], threshold: float, resamples: int, seed: int
) -> dict[str, Metrics]:
    """Source of real pictures -> AUROC of its pictures against all synthetic ones, and the accuracy
    on its own, with intervals over pictures; empty unless there are two sources and a synthetic
    picture."""
    synthetic, logits, names = _usable(rows)
    # By places among the real pictures, as the ranking numbers them.
    members: defaultdict[str, list[int]] = defaultdict(list)
    for place, at in enumerate(np.flatnonzero(~synthetic).tolist()):
        members[names[at]].append(place)
    if len(members) < 2 or not synthetic.any():
        return {}
    ranking = bootstrap.rank(synthetic, logits)
    places = {source: ranking.reals[members[source]] for source in sorted(members)}
    width, n_fake = ranking.thresholds.size, ranking.fakes.size
    random = {source: streams("source", [source], seed)[0] for source in places}
    of_fakes = streams("source", [], seed)[0]
    values: defaultdict[str, list[Floats]] = defaultdict(list)

    def above(drawn: Ints) -> Floats:
        """Share of the drawn synthetic pictures (r, S) above each distinct logit (r, U), those at
        it counted half."""
        rows = np.arange(len(drawn))[:, None]
        counts = bootstrap.counts_of(ranking.fakes[drawn], rows, (len(drawn), width))
        return (counts.cumsum(axis=1) - counts / 2) / n_fake

    # The plain value: every synthetic picture once.
    measured = above(np.arange(n_fake)[None])[0]
    for count in _chunks(resamples, ranking.size):
        # One draw of the synthetic pictures serves all sources, whatever their number.
        shares = above(of_fakes.integers(0, n_fake, size=(count, n_fake)))
        for source, held in places.items():
            drawn = held[random[source].integers(0, held.size, size=(count, held.size))]
            values[source].append(np.take_along_axis(shares, drawn, axis=1).mean(axis=1))
    rows_of: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.label == 0:
            rows_of[row.source].append(row)
    result = {}
    for source, held in places.items():
        few = min(held.size, n_fake) < FEWEST
        drawn_values = np.concatenate([[], *([] if few else values[source])])
        auroc = estimate(AUROC, float(measured[held].mean()), drawn_values, CONFIDENCE)
        alone = metrics.evaluate_rows(rows_of[source], threshold, resamples, seed)
        found = {AUROC: auroc, ACCURACY_REAL: alone[ACCURACY_REAL]}
        result[source] = Metrics(held.size, n_fake, found, alone.n_errors)
    return result
