"""Metrics of a detector's logits, each with its bootstrap interval.

Labels are 1 = synthetic, 0 = real; every rate is a fraction in [0, 1]. All are computed from the
logits, never from sigmoid scores: those saturate at 0 and 1 and tie pictures that the detector
told apart. Equal logits share one threshold, as in scikit-learn; infinite ones are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..scoring.probability import threshold_logit
from ..scoring.table import ScoreRow
from . import bootstrap
from .bootstrap import Bools, Floats, Ints, Samples
from .cells import labels_logits, reason_unusable
from .estimates import (
    ACCURACY_REAL,
    AP,
    AUROC,
    DETECTION_RATE,
    ECE,
    EER,
    FEWEST,
    METRICS,
    Difference,
    Estimate,
    Metrics,
    estimate,
    p_value,
)
from .statistics import joined, statistics


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


def _measured(labels: ArrayLike, logits: ArrayLike, name: str) -> Samples:
    synthetic, scores = _checked(labels, logits)
    if not scores.size:
        raise ValueError(f"{name} needs at least one picture, found none")
    return bootstrap.measured(bootstrap.rank(synthetic, scores))


def _compared(labels: ArrayLike, logits: ArrayLike, name: str) -> Samples:
    return bootstrap.measured(bootstrap.rank(*_both_classes(labels, logits, name)))


def curve(labels: ArrayLike, logits: ArrayLike) -> Curve:
    """Cumulated counts at every distinct logit; either class may be missing."""
    found = bootstrap.measured(bootstrap.rank(*_checked(labels, logits)))
    return Curve(found.tps[0], found.fps[0], found.ranking.thresholds)


def auroc(labels: ArrayLike, logits: ArrayLike) -> float:
    """Area under the ROC curve of labels (N,), logits (N,); ValueError without both classes."""
    return float(bootstrap.areas_roc(_compared(labels, logits, AUROC))[0])


def average_precision(labels: ArrayLike, logits: ArrayLike) -> float:
    """Average precision of "synthetic", the step sum; ValueError without both classes."""
    return float(bootstrap.average_precisions(_compared(labels, logits, AP))[0])


def tpr_at_fpr(labels: ArrayLike, logits: ArrayLike, fpr: float) -> float:
    """Highest share of synthetic pictures found while at most `fpr` of the reals are flagged.

    `fpr` in [0, 1]. Raises ValueError without both classes.
    """
    if not 0.0 <= fpr <= 1.0:
        raise ValueError(f"expected a false positive rate between 0 and 1, found {fpr}")
    return float(bootstrap.tprs_at_fpr(_compared(labels, logits, "TPR at FPR"), fpr)[0])


def equal_error_rate(labels: ArrayLike, logits: ArrayLike) -> float:
    """The rate in [0, 1] at which as large a share of the reals is flagged as of the fakes missed.

    The points (false positive rate, true positive rate) at every distinct logit, and (0, 0), are
    joined by straight lines; it is the false positive rate where these cross fpr = 1 - tpr. Raises
    ValueError without both classes.
    """
    return float(bootstrap.equal_error_rates(_compared(labels, logits, EER))[0])


def best_accuracy(labels: ArrayLike, logits: ArrayLike) -> float:
    """The highest `accuracy` that any threshold gives, `best_threshold` for one.

    Chosen on the pictures it is measured on, it is optimistic. Raises ValueError without both
    classes.
    """
    return float(bootstrap.best_accuracies(_compared(labels, logits, "best accuracy"))[0])


def best_threshold(labels: ArrayLike, logits: ArrayLike) -> float:
    """A threshold t, as a logit, whose rule "synthetic where logit > t" has `best_accuracy`.

    It lies midway between the lowest logit called synthetic and the highest called real, or at
    the latter where no number lies midway; it is inf to call all pictures real and -inf to call
    all synthetic. Of several best cuts it is the highest: the one that flags the fewest pictures.
    Raises ValueError without both classes.
    """
    found = _compared(labels, logits, "best threshold")
    thresholds, gains = found.ranking.thresholds, (found.tps - found.fps)[0]
    cut = int(np.argmax(np.append(0, gains[: found.ranking.reachable])))
    if cut == 0:
        return math.inf
    if cut == thresholds.size:
        return -math.inf
    called, kept = float(thresholds[cut - 1]), float(thresholds[cut])
    # Halved first, lest the sum of huge logits overflow.
    middle = called / 2 + kept / 2
    return middle if kept <= middle < called else kept


def calibration_bins(labels: ArrayLike, logits: ArrayLike) -> list[CalibrationBin]:
    """Score against share of synthetic pictures, in the bins that hold a picture, ascending.

    Bin k of 15 holds k / 15 <= score < (k + 1) / 15, the last one score 1 as well; a picture's
    bin is found from its logit. Raises ValueError for no pictures.
    """
    found = _measured(labels, logits, "calibration")
    at = found.ranking.bin_starts
    synthetic, both = found.synthetic[0], found.synthetic[0] + found.real[0]
    sizes = np.add.reduceat(both, at)
    scores = np.add.reduceat(both * found.ranking.scores, at) / sizes
    shares = np.add.reduceat(synthetic, at) / sizes
    bins = zip(scores.tolist(), shares.tolist(), sizes.tolist(), strict=True)
    return [CalibrationBin(score, share, int(size)) for score, share, size in bins][::-1]


def expected_calibration_error(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean over pictures of |mean score - share of synthetic| of their bin, in [0, 1].

    The 15 bins of `calibration_bins` are of equal width in the score, the probability of
    synthetic (Naeini et al. 2015; not of the confidence in the answer, max(score, 1 - score)).
    Raises ValueError for no pictures.
    """
    return float(bootstrap.calibration_errors(_measured(labels, logits, ECE))[0])


def brier_score(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean of (score - label) ** 2, in [0, 1] (Brier 1950); ValueError for no pictures."""
    return float(bootstrap.brier_scores(_measured(labels, logits, "Brier score"))[0])


def log_loss(labels: ArrayLike, logits: ArrayLike) -> float:
    """Mean of -log(probability given to the right class), in nats; ValueError for no pictures.

    From the logits: it is finite for finite ones, however large, and infinite where a picture is
    wrong with an infinite one.
    """
    return float(bootstrap.log_losses(_measured(labels, logits, "log loss"))[0])


def _correct(labels: ArrayLike, logits: ArrayLike, threshold: float) -> tuple[Bools, ...]:
    synthetic, scores = _checked(labels, logits)
    return synthetic, (scores > threshold_logit(threshold)) == synthetic


def accuracy(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """Share of right answers, "synthetic" where logit > logit(threshold), strictly.

    `threshold` is a probability. Raises ValueError for no pictures.
    """
    _, right = _correct(labels, logits, threshold)
    if not right.size:
        raise ValueError("accuracy needs at least one picture, found none")
    return float(right.mean())


def accuracy_real(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """Share of the real pictures called real; ValueError when there are none."""
    synthetic, right = _correct(labels, logits, threshold)
    if synthetic.all():
        raise ValueError("accuracy on real needs real pictures (label 0), found none")
    return float(right[~synthetic].mean())


def accuracy_synthetic(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """Share of the synthetic pictures called synthetic; ValueError when there are none."""
    synthetic, right = _correct(labels, logits, threshold)
    if not synthetic.any():
        raise ValueError("accuracy on synthetic needs synthetic pictures (label 1), found none")
    return float(right[synthetic].mean())


def detection_rate(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """`accuracy_synthetic` under the name it has where there are no real pictures."""
    return accuracy_synthetic(labels, logits, threshold)


def balanced_accuracy(labels: ArrayLike, logits: ArrayLike, threshold: float) -> float:
    """Mean of the accuracies on real and on synthetic; ValueError without both classes."""
    synthetic, scores = _both_classes(labels, logits, "balanced accuracy")
    return (
        accuracy_real(synthetic, scores, threshold)
        + accuracy_synthetic(synthetic, scores, threshold)
    ) / 2


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
    """Every metric of labels (N,), logits (N,) at `threshold` (a probability), with intervals.

    The intervals are percentiles of `resamples` bootstrap resamples that draw the real and the
    synthetic pictures separately; they are widened to contain the measured value, and infinite
    where the log losses of resamples are. The same seed gives the same intervals; with 0
    resamples their ends are NaN. Raises ValueError for labels
    other than 0 and 1, NaN logits, negative `resamples`, or `confidence` outside (0, 1).
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

    `labels`, `logits_a` and `logits_b` (N,) are in one order; `threshold` is a probability. Every
    resample draws the same pictures for both runs, each class for itself, as in `evaluate`. The
    p-value is the percentile interval's: twice the share of resamples on the other side of 0, or
    on it, the measured difference counted among them; it is never below 2 / (resamples + 1). Two
    infinite log losses do not differ.

    Raises ValueError for what `evaluate` refuses, for no pictures, and for a name that `evaluate`
    has no estimate of for such labels.
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
    """That many resamples, or none where a class has too few pictures for an interval: the
    percentiles of fewer than `FEWEST` say nothing, and 0.0 [0.0, 100.0] of one misleads."""
    counts = np.bincount(labels, minlength=2)
    return resamples if counts[counts > 0].min(initial=FEWEST) >= FEWEST else 0


def evaluate_rows(
    rows: Sequence[ScoreRow], threshold: float, resamples: int = 1000, seed: int = 0
) -> Metrics:
    """`evaluate` of the usable rows, without intervals where a class has fewer than `FEWEST` of
    them; the unusable labelled ones are counted in `n_errors`."""
    labels, logits = labels_logits(rows)
    found = evaluate(labels, logits, threshold, resamples_for(labels, resamples), seed)
    n_errors = sum(row.label is not None and bool(reason_unusable(row)) for row in rows)
    return Metrics(found.n_real, found.n_synthetic, found.estimates, n_errors)
