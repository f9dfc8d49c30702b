"""What is measured, and how it is stated: a value with its bootstrap interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AP = "AP"
AUROC = "AUROC"
ACCURACY = "accuracy"
BALANCED_ACCURACY = "balanced_accuracy"
ACCURACY_REAL = "accuracy_real"
ACCURACY_SYNTHETIC = "accuracy_synthetic"
TPR_AT_1 = "TPR@1%FPR"
TPR_AT_5 = "TPR@5%FPR"
EER = "EER"
BEST_ACCURACY = "best_accuracy"
ECE = "ECE"
BRIER = "Brier"
LOG_LOSS = "log_loss"
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
    EER,
    BEST_ACCURACY,
    ECE,
    BRIER,
    LOG_LOSS,
)
# These depend on the threshold above which a picture counts as synthetic.
AT_THRESHOLD = (ACCURACY, BALANCED_ACCURACY, ACCURACY_REAL, ACCURACY_SYNTHETIC, DETECTION_RATE)
LOWER_IS_BETTER = frozenset({EER, ECE, BRIER, LOG_LOSS})
# No shares of anything, and never printed as percent.
PLAIN = frozenset({BRIER, LOG_LOSS})
# Pictures of a class, or clusters of them, below which no interval is stated.
FEWEST = 5


class Estimate(NamedTuple):
    """A fraction in [0, 1] and the ends of its bootstrap interval, NaN where none was drawn.

    A difference of fractions is in [-1, 1].
    """

    value: float
    low: float
    high: float


class PlainEstimate(Estimate):
    """An estimate of a metric in `PLAIN`: Brier score in [0, 1], log loss in [0, inf] nats.

    A difference of log losses may be any number, or infinite.
    """

    __slots__ = ()


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


class Difference(NamedTuple):
    """How far one run is above another on the same pictures, and how easily by chance.

    `estimate` is the metric of the first minus that of the second; `p_value` in (0, 1] that of
    the two-sided test that they do not differ, NaN without resamples.
    """

    estimate: Estimate
    p_value: float


def _interval(samples: Floats, confidence: float) -> tuple[float, float]:
    """The ends that hold the middle `confidence` of the samples (R,), R > 0; rounded outwards to
    samples, for between a finite and an infinite one nothing can be interpolated."""
    tail = (1 - confidence) / 2
    return (
        float(np.quantile(samples, tail, method="lower")),
        float(np.quantile(samples, 1 - tail, method="higher")),
    )


def estimate(name: str, value: float, samples: Floats, confidence: float) -> Estimate:
    """The metric `name` with its `confidence` interval from resampled values (R,), R >= 0."""
    kind = PlainEstimate if name in PLAIN else Estimate
    if not samples.size:
        return kind(value, math.nan, math.nan)
    low, high = _interval(samples, confidence)
    # A percentile interval of few pictures can miss the value that was measured; it is widened.
    return kind(value, min(low, value), max(high, value))


def p_value(samples: Floats) -> float:
    """Two-sided, of the resampled differences (R,): twice the smaller share on one side of 0 or
    on it, the measured one counted with them (Davison and Hinkley 1997, section 4.2)."""
    if not samples.size:
        return math.nan
    beyond = min((samples <= 0).sum(), (samples >= 0).sum())
    return min(1.0, 2 * (int(beyond) + 1) / (samples.size + 1))
