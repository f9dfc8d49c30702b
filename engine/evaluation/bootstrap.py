"""Metrics of many resamples of one set of pictures at once.

A resample is how often each picture was drawn; sorted by logit, all metrics follow from those
counts and their running sums, whole numbers that are exact. Only what weighs a picture by its
score (calibration, Brier, log loss) is floating point. Called by `metrics` and by `clusters`,
which differ in what they draw.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..scoring.probability import threshold_logit
from . import estimates

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BINS = 15
# Elements of one chunk of resamples: small enough for the processor's cache.
CHUNK = 1 << 15
BIN_EDGES = np.array([threshold_logit(edge / BINS) for edge in range(1, BINS)])


@dataclass(frozen=True)
class Ranking:
    """Pictures by their logit: `thresholds` (U,) are the distinct logits in descending order,
    `fakes` (S,) and `reals` (N,) the place of each synthetic and each real picture in them."""

    thresholds: Floats
    fakes: Ints
    reals: Ints

    @property
    def size(self) -> int:
        """Number of pictures."""
        return self.fakes.size + self.reals.size

    @cached_property
    def scores(self) -> Floats:
        """Probability of synthetic at each distinct logit (U,)."""
        return np.exp(-softplus(-self.thresholds))

    @cached_property
    def complements(self) -> Floats:
        """Probability of real (U,); 1 - `scores` would lose what is left of it near 1."""
        return np.exp(-softplus(self.thresholds))

    @cached_property
    def squared_errors(self) -> tuple[Floats, Floats]:
        """(score - label) ** 2 of a synthetic and of a real picture (U,)."""
        return self.complements**2, self.scores**2

    @cached_property
    def log_losses(self) -> tuple[Floats, Floats]:
        """What a synthetic and a real picture add to the mean log loss (U,), in nats; infinite
        ones are 0 here, lest they spoil the sums of samples that did not draw them."""
        losses = softplus(-self.thresholds), softplus(self.thresholds)
        # Divided before they are summed: the sum of huge losses would overflow, their mean not.
        synthetic, real = (np.where(np.isinf(loss), 0.0, loss / self.size) for loss in losses)
        return synthetic, real

    @cached_property
    def bin_starts(self) -> Ints:
        """Where each bin that holds a picture begins in `thresholds`, from the highest bin."""
        bins = np.searchsorted(BIN_EDGES, self.thresholds, side="right")
        return np.flatnonzero(np.diff(bins, prepend=-1))

    @cached_property
    def reachable(self) -> int:
        """How many distinct logits a threshold can call synthetic: no threshold is below -inf."""
        return int((self.thresholds > -math.inf).sum())


class Samples(NamedTuple):
    """R samples of a ranking's pictures, none without a picture of either class.

    `synthetic`, `real` (R, U) are how many there are at each distinct logit, whole numbers;
    `tps`, `fps` (R, U) their sums along the row.
    """

    ranking: Ranking
    synthetic: Floats
    real: Floats
    tps: Ints
    fps: Ints

    @property
    def n_synthetic(self) -> Ints:
        """Number of synthetic pictures in each sample (R,); drawn clusters differ in size."""
        return self.tps[:, -1]

    @property
    def n_real(self) -> Ints:
        """Number of real pictures in each sample (R,)."""
        return self.fps[:, -1]

    @property
    def sizes(self) -> Ints:
        """Number of pictures in each sample (R,)."""
        return self.n_synthetic + self.n_real


def softplus(logits: Floats) -> Floats:
    """log(1 + exp(logit)), finite for every finite logit."""
    return np.logaddexp(0.0, logits)


def rank(synthetic: Bools, logits: Floats) -> Ranking:
    """The ranking of pictures (N,) by their logits (N,)."""
    negated, positions = np.unique(-logits, return_inverse=True)
    positions = positions.reshape(-1)
    return Ranking(-negated, positions[synthetic], positions[~synthetic])


def samples_of(ranking: Ranking, synthetic: Ints, real: Ints) -> Samples:
    """The samples with these counts (R, U) of pictures at each distinct logit."""
    return Samples(
        ranking,
        synthetic.astype(np.float64),
        real.astype(np.float64),
        synthetic.cumsum(axis=1),
        real.cumsum(axis=1),
    )


def measured(ranking: Ranking) -> Samples:
    """The pictures themselves as the one sample, R = 1."""
    width = ranking.thresholds.size
    synthetic = np.bincount(ranking.fakes, minlength=width)[None]
    return samples_of(ranking, synthetic, np.bincount(ranking.reals, minlength=width)[None])


# Each function of samples gives one metric of every sample: (R,).


def _before(sums: Ints, ends: Ints) -> Ints:
    """Entry `ends - 1` of each row of (R, U), 0 where `ends` (R,) is 0."""
    entries = np.take_along_axis(sums, np.maximum(ends - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(ends > 0, entries, 0)


def areas_roc(samples: Samples) -> Floats:
    """Area under the ROC curve."""
    # A real picture loses to the synthetic ones above it and half to those at its own logit.
    above_or_equal = np.einsum("ru,ru->r", samples.real, samples.tps)
    equal = np.einsum("ru,ru->r", samples.real, samples.synthetic)
    return (2 * above_or_equal - equal) / (2.0 * samples.n_synthetic * samples.n_real)


def average_precisions(samples: Samples) -> Floats:
    """Average precision of "synthetic", the step sum."""
    # A sample may miss the highest logits: there 0 of 0 pictures are found, and add 0.
    called = np.maximum(samples.tps + samples.fps, 1).astype(np.float64)
    precision = np.divide(samples.tps.astype(np.float64), called, out=called)
    return np.einsum("ru,ru->r", samples.synthetic, precision) / samples.n_synthetic


def _allowed(n_real: int, fpr: float) -> int:
    """The most false positives whose rate is at most `fpr`, by the division that defines it:
    0.07 * 100 is above 7."""
    flagged = min(int(fpr * n_real) + 1, n_real)
    while flagged / n_real > fpr:
        flagged -= 1
    return flagged


def tprs_at_fpr(samples: Samples, fpr: float) -> Floats:
    """Highest true positive rate at a false positive rate of at most `fpr`."""
    ends = np.array(
        [np.searchsorted(row, _allowed(int(row[-1]), fpr), side="right") for row in samples.fps]
    )
    return _before(samples.tps, ends) / samples.n_synthetic


def _crossing(tps: Ints, fps: Ints) -> int:
    """The first of the distinct logits (U,) at which fpr >= 1 - tpr."""
    n_synthetic, n_real = int(tps[-1]), int(fps[-1])
    return bisect_left(
        range(tps.size),
        n_synthetic * n_real,
        key=lambda at: int(fps[at]) * n_synthetic + int(tps[at]) * n_real,
    )


def equal_error_rates(samples: Samples) -> Floats:
    """Where the linearly interpolated ROC curve crosses fpr = 1 - tpr."""
    n_synthetic, n_real = samples.n_synthetic, samples.n_real
    ends = np.array([_crossing(*sums) for sums in zip(samples.tps, samples.fps, strict=True)])
    start, stop = _before(samples.fps, ends), _before(samples.fps, ends + 1)
    # fpr - fnr in whole numbers: below 0 at the start of the segment, 0 or more at its end.
    below, above = (
        _before(samples.fps, at) * n_synthetic + (_before(samples.tps, at) - n_synthetic) * n_real
        for at in (ends, ends + 1)
    )
    return (start + (stop - start) * (below / (below - above))) / n_real


def right_answers(samples: Samples, cut: int) -> tuple[Ints, Ints]:
    """Synthetic pictures found and real ones kept, the first `cut` distinct logits called fake."""
    ends = np.full(len(samples.tps), cut)
    return _before(samples.tps, ends), samples.n_real - _before(samples.fps, ends)


def best_accuracies(samples: Samples) -> Floats:
    """The highest accuracy at any threshold."""
    gains = (samples.tps - samples.fps)[:, : samples.ranking.reachable]
    # Where calling anything synthetic costs more than it gains, nothing is.
    return (gains.max(axis=1, initial=0) + samples.n_real) / samples.sizes


def calibration_errors(samples: Samples) -> Floats:
    """Expected calibration error in the bins of `Ranking.bin_starts`."""
    # A bin's number of synthetic pictures less its sum of scores: each synthetic picture adds
    # 1 - score, each real one takes its score away.
    gaps = samples.synthetic * samples.ranking.complements
    gaps -= samples.real * samples.ranking.scores
    sums = np.add.reduceat(gaps, samples.ranking.bin_starts, axis=1)
    return np.abs(sums).sum(axis=1) / samples.sizes


def _sums(samples: Samples, synthetic: Floats, real: Floats) -> Floats:
    """What all pictures add, where one at each distinct logit adds `synthetic`, `real` (U,)."""
    # Not a matrix product: its last bits would depend on how many samples a chunk holds.
    return np.einsum("ru,u->r", samples.synthetic, synthetic) + np.einsum(
        "ru,u->r", samples.real, real
    )


def brier_scores(samples: Samples) -> Floats:
    """Mean squared difference of score and label."""
    return _sums(samples, *samples.ranking.squared_errors) / samples.sizes


def log_losses(samples: Samples) -> Floats:
    """Mean negative log likelihood in nats; infinite where a picture's is."""
    thresholds = samples.ranking.thresholds
    finite = _sums(samples, *samples.ranking.log_losses) * (samples.ranking.size / samples.sizes)
    surely_wrong = np.zeros(len(finite), dtype=bool)
    if thresholds[0] == math.inf:
        surely_wrong |= samples.real[:, 0] > 0
    if thresholds[-1] == -math.inf:
        surely_wrong |= samples.synthetic[:, -1] > 0
    return np.where(surely_wrong, math.inf, finite)


def statistics(samples: Samples, cut: int) -> dict[str, Floats]:
    """Every metric of `METRICS` for R samples, the first `cut` distinct logits called synthetic."""
    n_synthetic, n_real = samples.n_synthetic, samples.n_real
    detected, kept = right_answers(samples, cut)
    return {
        estimates.AP: average_precisions(samples),
        estimates.AUROC: areas_roc(samples),
        estimates.ACCURACY: (detected + kept) / samples.sizes,
        estimates.BALANCED_ACCURACY: (detected / n_synthetic + kept / n_real) / 2,
        estimates.ACCURACY_REAL: kept / n_real,
        estimates.ACCURACY_SYNTHETIC: detected / n_synthetic,
        estimates.TPR_AT_1: tprs_at_fpr(samples, 0.01),
        estimates.TPR_AT_5: tprs_at_fpr(samples, 0.05),
        estimates.EER: equal_error_rates(samples),
        estimates.BEST_ACCURACY: best_accuracies(samples),
        estimates.ECE: calibration_errors(samples),
        estimates.BRIER: brier_scores(samples),
        estimates.LOG_LOSS: log_losses(samples),
    }


def joined(chunks: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """The metrics of all samples (R,) from those of their chunks."""
    parts = list(chunks)
    # Of no resamples nothing is to be joined: the empty list keeps that a (0,) array.
    return {
        name: np.concatenate([[], *(part[name] for part in parts)]) for name in estimates.METRICS
    }


def draws(n_synthetic: int, n_real: int, resamples: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Which synthetic (r, S) and which real (r, N) pictures chunk after chunk of r resamples
    draws, with replacement and each class for itself.

    A class has its own stream of random numbers: chunks of another size give the same draws.
    """
    fakes, reals = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))
    step = max(1, CHUNK // (n_synthetic + n_real))
    for start in range(0, resamples, step):
        samples = min(step, resamples - start)
        yield (
            fakes.integers(0, n_synthetic, size=(samples, n_synthetic)),
            reals.integers(0, n_real, size=(samples, n_real)),
        )


def counts_of(places: Ints, rows: Ints, shape: tuple[int, int]) -> Ints:
    """Counts, of that shape (R, U), of drawn pictures by their sample and their distinct logit,
    two arrays of one shape."""
    flat = (places + rows * shape[1]).reshape(-1)
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)


def drawn_samples(ranking: Ranking, drawn: tuple[Ints, Ints]) -> Samples:
    """The samples of one chunk of `draws`."""
    shape = len(drawn[0]), ranking.thresholds.size
    rows = np.arange(shape[0])[:, None]
    synthetic = counts_of(ranking.fakes[drawn[0]], rows, shape)
    return samples_of(ranking, synthetic, counts_of(ranking.reals[drawn[1]], rows, shape))
