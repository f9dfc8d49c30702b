"""Metrics of a detector's logits, each with its bootstrap interval.

Labels are 1 = synthetic, 0 = real; every rate is a fraction in [0, 1]. Ranking metrics read the
logits, never sigmoid scores: those saturate at 0 and 1 and tie pictures that the detector told
apart. Equal logits share one threshold, as in scikit-learn.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .table import ScoreRow

AP = "AP"
AUROC = "AUROC"
ACCURACY = "accuracy"
BALANCED_ACCURACY = "balanced_accuracy"
ACCURACY_REAL = "accuracy_real"
ACCURACY_SYNTHETIC = "accuracy_synthetic"
TPR_AT_1 = "TPR@1%FPR"
TPR_AT_5 = "TPR@5%FPR"
DETECTION_RATE = "detection_rate"

METRICS = (
    AP,
    AUROC,
    ACCURACY,
    BALANCED_ACCURACY,
    ACCURACY_REAL,
    ACCURACY_SYNTHETIC,
    TPR_AT_1,
    TPR_AT_5,
)

# Elements of one chunk of resamples: small enough for the processor's cache.
CHUNK = 1 << 16

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Cell = tuple[str, str]


class Estimate(NamedTuple):
    """A fraction in [0, 1] and the ends of its bootstrap interval, NaN where none was drawn."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metrics:
    """What a set of pictures says about a detector.

    `estimates` has every name of `METRICS` when both classes are there, `DETECTION_RATE` alone
    for synthetic pictures only, `ACCURACY_REAL` alone for real ones only, nothing for no picture.
    `n_errors` counts the pictures that have no logit and therefore entered no metric.
    """

    n_real: int
    n_synthetic: int
    estimates: dict[str, Estimate] = field(default_factory=dict)
    n_errors: int = 0

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of one metric; KeyError where this set of pictures does not define it."""
        return self.estimates[name]


class Curve(NamedTuple):
    """Confusion counts when everything at or above `thresholds` is called synthetic.

    `thresholds` (U,) are the distinct logits in descending order; `tps`, `fps` (U,) the synthetic
    and the real pictures among those called synthetic.
    """

    tps: Ints
    fps: Ints
    thresholds: Floats


def _checked(labels: ArrayLike, logits: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
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


def _both_classes(
    labels: ArrayLike, logits: ArrayLike, name: str
) -> tuple[NDArray[np.bool_], Floats]:
    synthetic, scores = _checked(labels, logits)
    if synthetic.all() or not synthetic.any():
        raise ValueError(
            f"{name} needs real and synthetic pictures, found {(~synthetic).sum()} real and "
            f"{synthetic.sum()} synthetic; report a rate of the one class instead"
        )
    return synthetic, scores


def threshold_logit(threshold: float) -> float:
    """The logit of a threshold given as a probability in [0, 1]; ValueError outside."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"expected a threshold between 0 and 1 (a probability), found {threshold}")
    if threshold in (0.0, 1.0):
        return math.copysign(math.inf, threshold - 0.5)
    return math.log(threshold) - math.log1p(-threshold)


def curve(labels: ArrayLike, logits: ArrayLike) -> Curve:
    """Cumulated counts at every distinct logit; either class may be missing."""
    synthetic, scores = _checked(labels, logits)
    thresholds, positions = _ranked(scores)
    tps = np.bincount(positions[synthetic], minlength=thresholds.size).cumsum()
    fps = np.bincount(positions[~synthetic], minlength=thresholds.size).cumsum()
    return Curve(tps, fps, thresholds)


def _ranked(scores: Floats) -> tuple[Floats, Ints]:
    """Distinct logits in descending order (U,), and each picture's position in them (N,)."""
    negated, positions = np.unique(-scores, return_inverse=True)
    return -negated, positions.reshape(-1)


# Below, `synthetic` and `real` (R, U) count the pictures of R samples at each of U distinct
# logits in descending order, `tps` and `fps` (R, U) are their sums along the row: (R,) comes out.


def _areas_roc(synthetic: Ints, real: Ints, tps: Ints, fps: Ints) -> Floats:
    pairs = tps[:, -1] * fps[:, -1]
    # A real picture loses to the synthetic ones above it and half to those at its own logit.
    return (real * (2 * tps - synthetic)).sum(axis=1) / (2.0 * pairs)


def _average_precisions(synthetic: Ints, tps: Ints, fps: Ints) -> Floats:
    # A sample may miss the highest logits: there 0 of 0 pictures are found, and add 0.
    precision = tps / np.maximum(tps + fps, 1)
    return np.einsum("ru,ru->r", synthetic.astype(np.float64), precision) / tps[:, -1]


def _counts_before(sums: Ints, ends: Ints) -> Ints:
    """Entry `ends - 1` of each row of (R, U), 0 where `ends` (R,) is 0."""
    found = np.take_along_axis(sums, np.maximum(ends - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(ends > 0, found, 0)


def _tprs_at_fpr(tps: Ints, fps: Ints, fpr: float) -> Floats:
    # The number of reals is the same in every sample, so the rate becomes one whole number; it
    # is found by the division that defines the rate, lest 0.07 * 100 round above 7.
    n_real = int(fps[0, -1])
    allowed = np.flatnonzero(np.arange(n_real + 1) / n_real <= fpr)[-1]
    return _counts_before(tps, (fps <= allowed).sum(axis=1)) / tps[:, -1]


def _statistics(synthetic: Ints, real: Ints, cut: int) -> dict[str, Floats]:
    """Every metric of `METRICS` for R samples; the first `cut` distinct logits count as fake."""
    tps, fps = synthetic.cumsum(axis=1), real.cumsum(axis=1)
    n_synthetic, n_real = tps[:, -1], fps[:, -1]
    ends = np.full(len(tps), cut)
    found, kept = _counts_before(tps, ends), n_real - _counts_before(fps, ends)
    return {
        AP: _average_precisions(synthetic, tps, fps),
        AUROC: _areas_roc(synthetic, real, tps, fps),
        ACCURACY: (found + kept) / (n_synthetic + n_real),
        BALANCED_ACCURACY: (found / n_synthetic + kept / n_real) / 2,
        ACCURACY_REAL: kept / n_real,
        ACCURACY_SYNTHETIC: found / n_synthetic,
        TPR_AT_1: _tprs_at_fpr(tps, fps, 0.01),
        TPR_AT_5: _tprs_at_fpr(tps, fps, 0.05),
    }


def auroc(labels: ArrayLike, logits: ArrayLike) -> float:
    """Area under the ROC curve of labels (N,), logits (N,); ValueError without both classes."""
    found = curve(*_both_classes(labels, logits, AUROC))
    tps, fps = found.tps[None], found.fps[None]
    return float(_areas_roc(np.diff(tps, prepend=0), np.diff(fps, prepend=0), tps, fps)[0])


def average_precision(labels: ArrayLike, logits: ArrayLike) -> float:
    """Average precision of "synthetic", the step sum; ValueError without both classes."""
    found = curve(*_both_classes(labels, logits, AP))
    tps, fps = found.tps[None], found.fps[None]
    return float(_average_precisions(np.diff(tps, prepend=0), tps, fps)[0])


def tpr_at_fpr(labels: ArrayLike, logits: ArrayLike, fpr: float) -> float:
    """Highest share of synthetic pictures found while at most `fpr` of the reals are flagged.

    `fpr` in [0, 1]. Raises ValueError without both classes.
    """
    if not 0.0 <= fpr <= 1.0:
        raise ValueError(f"expected a false positive rate between 0 and 1, found {fpr}")
    found = curve(*_both_classes(labels, logits, "TPR at FPR"))
    return float(_tprs_at_fpr(found.tps[None], found.fps[None], fpr)[0])


def _correct(
    labels: ArrayLike, logits: ArrayLike, threshold: float
) -> tuple[NDArray[np.bool_], ...]:
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


def _resampled(rng: np.random.Generator, positions: Ints, samples: int, width: int) -> Ints:
    """Counts (samples, width) at each distinct logit of as many draws with replacement."""
    drawn = positions[rng.integers(0, positions.size, size=(samples, positions.size))]
    drawn += np.arange(samples)[:, None] * width
    return np.bincount(drawn.reshape(-1), minlength=samples * width).reshape(samples, width)


def _bootstrap(
    fakes: Ints, reals: Ints, width: int, cut: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Every metric of `METRICS` on `resamples` stratified resamples, in chunks of bounded size."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // (fakes.size + reals.size))
    chunks = []
    for start in range(0, resamples, step):
        samples = min(step, resamples - start)
        synthetic = _resampled(rng, fakes, samples, width)
        chunks.append(_statistics(synthetic, _resampled(rng, reals, samples, width), cut))
    return {name: np.concatenate([[], *(chunk[name] for chunk in chunks)]) for name in METRICS}


def _estimate(value: float, samples: Floats, confidence: float) -> Estimate:
    if not samples.size:
        return Estimate(value, math.nan, math.nan)
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    # A percentile interval of few pictures can miss the value that was measured; it is widened.
    return Estimate(value, min(float(low), value), max(float(high), value))


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
    synthetic pictures separately; they are widened to contain the measured value. The same seed
    gives the same intervals; with 0 resamples their ends are NaN. Raises ValueError for labels
    other than 0 and 1, NaN logits, negative `resamples`, or `confidence` outside (0, 1).
    """
    synthetic, scores = _checked(labels, logits)
    limit = threshold_logit(threshold)
    if resamples < 0 or not 0.0 < confidence < 1.0:
        raise ValueError(
            "expected a number of resamples and a confidence between 0 and 1, "
            f"found {resamples} and {confidence}"
        )
    n_synthetic = int(synthetic.sum())
    n_real = synthetic.size - n_synthetic
    if not n_real or not n_synthetic:
        right = (scores > limit) == synthetic
        name = DETECTION_RATE if n_synthetic else ACCURACY_REAL
        only = _one_class(right, resamples, seed, confidence) if right.size else None
        return Metrics(n_real, n_synthetic, {name: only} if only else {})
    thresholds, positions = _ranked(scores)
    fakes, reals = positions[synthetic], positions[~synthetic]
    width, cut = thresholds.size, int((thresholds > limit).sum())
    measured = _statistics(
        np.bincount(fakes, minlength=width)[None], np.bincount(reals, minlength=width)[None], cut
    )
    samples = _bootstrap(fakes, reals, width, cut, resamples, seed)
    estimates = {
        name: _estimate(float(measured[name][0]), samples[name], confidence) for name in METRICS
    }
    return Metrics(n_real, n_synthetic, estimates)


def _one_class(right: NDArray[np.bool_], resamples: int, seed: int, confidence: float) -> Estimate:
    value = float(right.mean())
    # Resampling a rate with replacement is a binomial draw.
    draws = np.random.default_rng(seed).binomial(right.size, value, size=resamples)
    return _estimate(value, draws / right.size, confidence)


def reason_unusable(row: ScoreRow) -> str:
    """Why a row enters no metric: its error, or that its logit is NaN; empty for a usable row."""
    if row.error or row.logit is None:
        return row.error or "it has no logit"
    return "its logit is NaN" if math.isnan(row.logit) else ""


def labels_logits(rows: Iterable[ScoreRow]) -> tuple[Ints, Floats]:
    """Labels (N,) and logits (N,) of the labelled rows that a metric can use, in their order."""
    pairs = [
        (row.label, row.logit) for row in rows if row.label is not None and not reason_unusable(row)
    ]
    labels = np.array([label for label, _ in pairs], dtype=np.int64)
    return labels, np.array([logit for _, logit in pairs], dtype=np.float64)


def evaluate_rows(
    rows: Sequence[ScoreRow], threshold: float, resamples: int = 1000, seed: int = 0
) -> Metrics:
    """`evaluate` of the usable rows; the unusable labelled ones are counted in `n_errors`."""
    found = evaluate(*labels_logits(rows), threshold, resamples, seed)
    n_errors = sum(row.label is not None and bool(reason_unusable(row)) for row in rows)
    return Metrics(found.n_real, found.n_synthetic, found.estimates, n_errors)


def cells(rows: Iterable[ScoreRow]) -> dict[Cell, list[ScoreRow]]:
    """(source, generator) -> the reals a generator is measured against, then its fakes; sorted.

    The reals are those of the fakes' own source, or all reals of the table when that source has
    none. Rows with an error are kept, rows without a label are not. A table without synthetic
    pictures has no cells.
    """
    reals: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    fakes: defaultdict[Cell, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.label == 0:
            reals[row.source].append(row)
        elif row.label == 1:
            fakes[row.source, row.generator].append(row)
    every_real = [row for group in reals.values() for row in group]
    return {cell: reals.get(cell[0], every_real) + fakes[cell] for cell in sorted(fakes)}
