"""Metrics of a detector's logits, each with its bootstrap interval.

Labels are 1 = synthetic, 0 = real; every rate is a fraction in [0, 1]. All are computed from the
logits, never from sigmoid scores: those saturate at 0 and 1 and tie pictures that the detector
told apart. Equal logits share one threshold, as in scikit-learn; infinite ones are allowed. Called
by the analysis of a table, by training's validation and by the scripts that tabulate scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..scoring.probability import threshold_logit
from ..scoring.table import ScoreRow
from . import bootstrap
from .bootstrap import Bools, Floats, Ints, Samples, joined, statistics
from .cells import labels_logits, reason_unusable
from .estimates import (
    ACCURACY_REAL,
    AP,
    AUROC,
    DETECTION_RATE,
    FEWEST,
    METRICS,
    Difference,
    Estimate,
    Metrics,
    estimate,
    p_value,
)


class Curve(NamedTuple):
    """Confusion counts when everything at or above `thresholds` is called synthetic.

    `thresholds` (U,) are the distinct logits in descending order; `tps`, `fps` (U,) the synthetic
    and the real pictures among those called synthetic.
    """

    tps: Ints
    fps: Ints
    thresholds: Floats


class CalibrationBin(NamedTuple):
    """The pictures whose scores lie in one bin: their mean score, the share of synthetic ones
    among them (both in [0, 1]), and their number, at least one."""

    score: float
    share: float
    size: int


def _checked(labels: ArrayLike, logits: ArrayLike) -> tuple[Bools, Floats]:
    values, scores = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    if values.ndim != 1 or values.shape != scores.shape:
        raise ValueError(
            f"expected labels and logits of one shape (N,), found {values.shape} and {scores.shape}"
        )
    if not np.isin(values, (0, 1)).all():
        raise ValueError("expected labels 0 (real) and 1 (synthetic), found others; convert them")
    if np.isnan(scores).any():
        raise ValueError(
            f"expected numbers as logits, found {np.isnan(scores).sum()} NaN; leave them out"
        )
    return values.astype(bool), scores


def _both_classes(labels: ArrayLike, logits: ArrayLike, name: str) -> tuple[Bools, Floats]:
    synthetic, scores = _checked(labels, logits)
    if synthetic.all() or not synthetic.any():
        raise ValueError(
            f"{name} needs real and synthetic pictures, found {(~synthetic).sum()} real and "
            f"{synthetic.sum()} synthetic; report a rate of the one class instead"
        )
    return synthetic, scores


def _compared(labels: ArrayLike, logits: ArrayLike, name: str) -> Samples:
    return bootstrap.measured(bootstrap.rank(*_both_classes(labels, logits, name)))


def curve(labels: ArrayLike, logits: ArrayLike) -> Curve:
    """Cumulated counts at every distinct logit; either class may be missing."""
    samples = bootstrap.measured(bootstrap.rank(*_checked(labels, logits)))
    return Curve(samples.tps[0], samples.fps[0], samples.ranking.thresholds)


def auroc(labels: ArrayLike, logits: ArrayLike) -> float:
    """Area under the ROC curve of labels (N,), logits (N,); ValueError without both classes."""
    return float(bootstrap.areas_roc(_compared(labels, logits, AUROC))[0])


def average_precision(labels: ArrayLike, logits: ArrayLike) -> float:
    """Average precision of "synthetic", the step sum; ValueError without both classes."""
    return float(bootstrap.average_precisions(_compared(labels, logits, AP))[0])


def calibration_bins(labels: ArrayLike, logits: ArrayLike) -> list[CalibrationBin]:
    """Score against share of synthetic pictures, in the bins that hold a picture, ascending.

    Bin k of 15 holds k / 15 <= score < (k + 1) / 15, the last one score 1 as well; a picture's
    bin is found from its logit. Raises ValueError for no pictures.
    """
    synthetic, scores = _checked(labels, logits)
    if not scores.size:
        raise ValueError("calibration needs at least one picture, found none")
    ranking = bootstrap.rank(synthetic, scores)
    samples, starts = bootstrap.measured(ranking), ranking.bin_starts
    fakes, both = samples.synthetic[0], samples.synthetic[0] + samples.real[0]
    sizes = np.add.reduceat(both, starts)
    means = np.add.reduceat(both * ranking.scores, starts) / sizes
    shares = np.add.reduceat(fakes, starts) / sizes
    bins = zip(means.tolist(), shares.tolist(), sizes.tolist(), strict=True)
    # The ranking is in descending order, the bins of a plot are not.
    return [CalibrationBin(score, share, int(size)) for score, share, size in bins][::-1]


def accuracy(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """Share of right answers, "synthetic" where logit > logit(threshold), strictly.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        logits: (N,), in the same order.
        threshold: a probability.

    Raises:
        ValueError: no pictures.
    """
    synthetic, scores = _checked(labels, logits)
    if not scores.size:
        raise ValueError("accuracy needs at least one picture, found none")
    return float(((scores > threshold_logit(threshold)) == synthetic).mean())


def balanced_accuracy(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """Mean of the accuracies on real and on synthetic pictures, as `accuracy` counts them.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        logits: (N,), in the same order.
        threshold: a probability.

    Raises:
        ValueError: a class is missing.
    """
    synthetic, scores = _both_classes(labels, logits, "balanced accuracy")
    called = scores > threshold_logit(threshold)
    return float((~called)[~synthetic].mean() + called[synthetic].mean()) / 2


def _check_resampling(resamples: int, confidence: float) -> None:
    if resamples < 0 or not 0.0 < confidence < 1.0:
        raise ValueError(
            "expected a number of resamples and a confidence between 0 and 1, "
            f"found {resamples} and {confidence}"
        )


def evaluate(
    labels: ArrayLike,
    logits: ArrayLike,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Metrics:
    """Every metric of a set of pictures, with bootstrap intervals.

    The intervals are percentiles of resamples that draw the real and the synthetic pictures
    separately; they are widened to contain the measured value, and infinite where the log losses
    of resamples are.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        logits: (N,), in the same order.
        threshold: a probability, above which a picture is called synthetic.
        resamples: their number; with 0 the ends of all intervals are NaN.
        seed: of the draws; the same one gives the same intervals.
        confidence: the share of resamples that an interval holds.

    Returns:
        The metrics that the classes define; none for no pictures.

    Raises:
        ValueError: labels other than 0 and 1, NaN logits, a threshold outside [0, 1], negative
            `resamples`, or `confidence` outside (0, 1).
    """
    synthetic, scores = _checked(labels, logits)
    limit = threshold_logit(threshold)
    _check_resampling(resamples, confidence)
    n_synthetic = int(synthetic.sum())
    n_real = synthetic.size - n_synthetic
    if not n_real or not n_synthetic:
        right = (scores > limit) == synthetic
        name = DETECTION_RATE if n_synthetic else ACCURACY_REAL
        only = _one_class(name, right, resamples, seed, confidence) if right.size else None
        return Metrics(n_real, n_synthetic, {name: only} if only else {})
    ranking = bootstrap.rank(synthetic, scores)
    cut = int((ranking.thresholds > limit).sum())
    measured = statistics(bootstrap.measured(ranking), cut)
    samples = joined(
        statistics(bootstrap.drawn_samples(ranking, drawn), cut)
        for drawn in bootstrap.draws(n_synthetic, n_real, resamples, seed)
    )
    return Metrics(
        n_real,
        n_synthetic,
        {
            name: estimate(name, float(measured[name][0]), samples[name], confidence)
            for name in METRICS
        },
    )


def _one_class(name: str, right: Bools, resamples: int, seed: int, confidence: float) -> Estimate:
    value = float(right.mean())
    # Resampling a rate with replacement is a binomial draw.
    draws = np.random.default_rng(seed).binomial(right.size, value, size=resamples)
    return estimate(name, value, draws / right.size, confidence)


def _minus(first: Floats, second: Floats) -> Floats:
    # Two infinite log losses are equally bad; their difference as numbers would be NaN.
    return np.subtract(first, second, out=np.zeros(first.shape), where=first != second)


def _rate_differences(
    name: str, first: Bools, second: Bools, resamples: int, seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Measured and resampled differences in the share of right answers of one class."""
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    shares = np.array([better, worse, first.size - better - worse]) / first.size
    drawn = np.random.default_rng(seed).multinomial(first.size, shares, size=resamples)
    samples = (drawn[:, 0] - drawn[:, 1]) / first.size
    return {name: np.array([(better - worse) / first.size])}, {name: samples}


def _differences(
    synthetic: Bools, runs: Sequence[Floats], limit: float, resamples: int, seed: int
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Measured and resampled differences of every metric of `METRICS`."""
    ranked = [bootstrap.rank(synthetic, scores) for scores in runs]
    cuts = [int((ranking.thresholds > limit).sum()) for ranking in ranked]

    def difference(samples: Iterable[Samples]) -> dict[str, Floats]:
        first, second = map(statistics, samples, cuts)
        return {name: _minus(first[name], second[name]) for name in METRICS}

    drawn = bootstrap.draws(ranked[0].fakes.size, ranked[0].reals.size, resamples, seed)
    return difference(map(bootstrap.measured, ranked)), joined(
        difference([bootstrap.drawn_samples(ranking, chunk) for ranking in ranked])
        for chunk in drawn
    )


def paired_difference(
    labels: ArrayLike,
    logits_a: ArrayLike,
    logits_b: ArrayLike,
    names: Collection[str],
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """How far each named metric of run a is above that of run b, on the very same pictures.

    Every resample draws the same pictures for both runs, each class for itself, as in `evaluate`.
    The p-value is the percentile interval's: twice the share of resamples on the other side of 0,
    or on it, the measured difference counted among them; it is never below 2 / (resamples + 1).
    Two infinite log losses do not differ.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        logits_a, logits_b: (N,), in the same order.
        names: of the metrics to compare.
        threshold, resamples, seed, confidence: as in `evaluate`.

    Returns:
        Difference and p-value of each named metric.

    Raises:
        ValueError: what `evaluate` refuses, no pictures, or a name that `evaluate` has no estimate
            of for such labels.
    """
    synthetic, first = _checked(labels, logits_a)
    _, second = _checked(labels, logits_b)
    limit = threshold_logit(threshold)
    _check_resampling(resamples, confidence)
    if not synthetic.size:
        raise ValueError("a paired difference needs at least one picture, found none")
    both = synthetic.any() and not synthetic.all()
    only = DETECTION_RATE if synthetic.any() else ACCURACY_REAL
    defined = METRICS if both else (only,)
    if unknown := [name for name in names if name not in defined]:
        raise ValueError(f"expected metrics among {', '.join(defined)}; found {unknown[0]!r}")
    if both:
        measured, samples = _differences(synthetic, (first, second), limit, resamples, seed)
    else:
        right = [(scores > limit) == synthetic for scores in (first, second)]
        measured, samples = _rate_differences(only, right[0], right[1], resamples, seed)
    return {
        name: Difference(
            estimate(name, float(measured[name][0]), samples[name], confidence),
            p_value(samples[name]),
        )
        for name in names
    }


def resamples_for(labels: Ints, resamples: int) -> int:
    """Number of resamples to draw: `resamples`, or 0 where a class of labels (N,) is too small."""
    # Percentiles of fewer than FEWEST pictures say nothing, and 0.0 [0.0, 100.0] of one misleads.
    counts = np.bincount(labels, minlength=2)
    return resamples if counts[counts > 0].min(initial=FEWEST) >= FEWEST else 0


def evaluate_rows(
    rows: Sequence[ScoreRow], threshold: float, resamples: int = 1000, seed: int = 0
) -> Metrics:
    """Metrics of the usable rows of a table, as `evaluate` gives them.

    Args:
        rows: of a score table; those without a label are passed over.
        threshold, resamples, seed: as in `evaluate`; there are no intervals where a class has
            fewer than `FEWEST` usable rows.

    Returns:
        The metrics, the labelled rows that are unusable counted in `n_errors`.
    """
    labels, logits = labels_logits(rows)
    n_errors = sum(row.label is not None and bool(reason_unusable(row)) for row in rows)
    measured = evaluate(labels, logits, threshold, resamples_for(labels, resamples), seed)
    return replace(measured, n_errors=n_errors)
