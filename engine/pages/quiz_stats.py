"""Statistics of people's answers, beside detectors on the very same pictures.

Pure functions of answers: rates with intervals, signal detection (d' and criterion; Macmillan and
Creelman, Detection Theory, chapters 1, 2 and 7), agreement, calibration of confidence. The end page
and the report take them from here. Imports no torch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from .quiz import Quiz, Trial
from .quiz_answers import Answer

NORMAL = NormalDist()
Z = NORMAL.inv_cdf(0.975)
RESAMPLES, SEED = 1000, 0
BINS = (50, 60, 70, 80, 90, 101)  # percent of confidence


@dataclass(frozen=True)
class Rate:
    """A share in [0, 1] of `total` answers, and the ends of its 95 % interval, NaN for none."""

    value: float
    low: float
    high: float
    total: int


NOTHING = Rate(math.nan, math.nan, math.nan, 0)


def wilson(right: int, total: int) -> Rate:
    """The share of right answers of one person, with Wilson's interval."""
    if not total:
        return NOTHING
    p, n = right / total, float(total)
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n))
    scale = 1 + Z**2 / n
    low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    return Rate(p, low, high, total)


def detector_right(quiz: Quiz, detector: str, trial: Trial) -> bool | None:
    """Whether a detector is right in a trial: by its verdict, of two pictures by which has the
    higher score; None where it has no score, or both are equal."""
    verdicts = quiz.detectors[detector]
    if any(name not in verdicts for name in trial.pictures):
        return None
    labels = [quiz.pictures[name].label for name in trial.pictures]
    if len(labels) == 1:
        return verdicts[trial.pictures[0]].synthetic == bool(labels[0])
    scores = [verdicts[name].score for name in trial.pictures]
    return None if scores[0] == scores[1] else (scores[0] > scores[1]) == (labels[0] > labels[1])


def interval(answers: Sequence[Answer], resamples: int = RESAMPLES) -> Rate:
    """The share of right answers, its interval a bootstrap that draws people and pictures, each
    with replacement, and weighs an answer by how often both were drawn."""
    if not answers:
        return NOTHING
    right = np.array([bool(answer.right) for answer in answers], dtype=np.float64)
    axes = [
        np.unique([answer.given.participant for answer in answers], return_inverse=True)[1],
        np.unique(["|".join(sorted(a.trial.pictures)) for a in answers], return_inverse=True)[1],
    ]
    rng, values = np.random.default_rng(SEED), []
    for _ in range(resamples):
        weights = np.ones(right.size)
        for axis in axes:
            size = int(axis.max()) + 1
            weights *= rng.multinomial(size, np.full(size, 1 / size))[axis]
        if weights.sum():
            values.append(float((weights * right).sum() / weights.sum()))
    low, high = (float(end) for end in np.quantile(values, (0.025, 0.975)))
    mean = float(right.mean())
    return Rate(mean, min(low, mean), max(high, mean), right.size)


@dataclass(frozen=True)
class Sensitivity:
    """d', and the criterion c, which is above 0 for a person who leans to "real"; NaN where a class
    is missing. Of two alternatives there is no c: nothing leans, but to a side."""

    d_prime: float
    criterion: float


def sensitivity(quiz: Quiz, answers: Sequence[Answer]) -> Sensitivity:
    """Signal detection over answers, "synthetic" the signal; rates with the log-linear correction
    (n + 0.5) / (N + 1), which keeps them from 0 and 1."""
    if quiz.options.mode == "pair":
        if not answers:
            return Sensitivity(math.nan, math.nan)
        share = (sum(bool(a.right) for a in answers) + 0.5) / (len(answers) + 1)
        return Sensitivity(math.sqrt(2) * NORMAL.inv_cdf(share), math.nan)
    counts = Counter((quiz.pictures[a.trial.pictures[0]].label, bool(a.right)) for a in answers)
    fakes, reals = counts[1, True] + counts[1, False], counts[0, True] + counts[0, False]
    if not (fakes and reals):
        return Sensitivity(math.nan, math.nan)
    hits = NORMAL.inv_cdf((counts[1, True] + 0.5) / (fakes + 1))
    alarms = NORMAL.inv_cdf((counts[0, False] + 0.5) / (reals + 1))
    return Sensitivity(hits - alarms, -(hits + alarms) / 2)


def agreement(answers: Sequence[Answer]) -> float:
    """Krippendorff's alpha of the choices on pictures that several people judged: 1 where all
    agree, 0 as by chance; NaN where nothing can be said."""
    choices: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for answer in answers:
        choices[answer.trial.pictures][str(answer.given.choice)] += 1
    units = [counts for counts in choices.values() if counts.total() > 1]
    totals = sum(units, Counter())
    n = totals.total()
    expected = n * n - sum(count**2 for count in totals.values())
    if not expected:
        return math.nan
    observed = sum(
        (counts.total() ** 2 - sum(c**2 for c in counts.values())) / (counts.total() - 1)
        for counts in units
    )
    return 1 - (n - 1) * observed / expected


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers of similar confidence: their mean confidence and their share of right ones."""

    confidence: float
    right: float
    total: int


def calibration(answers: Sequence[Answer]) -> list[ConfidenceBin]:
    """Confidence against the share of right answers, in the BINS that have any."""
    bins = []
    for low, high in pairwise(BINS):
        inside = [a for a in answers if low <= a.given.confidence < high]
        if inside:
            mean = sum(a.given.confidence for a in inside) / len(inside) / 100
            share = sum(bool(a.right) for a in inside) / len(inside)
            bins.append(ConfidenceBin(mean, share, len(inside)))
    return bins


def calibration_error(answers: Sequence[Answer]) -> float:
    """The mean distance of confidence and share of right answers over the bins, weighted by
    size."""
    bins = calibration(answers)
    total = sum(b.total for b in bins)
    return sum(b.total * abs(b.confidence - b.right) for b in bins) / total if total else math.nan


def kind_of(quiz: Quiz, trial: Trial) -> str:
    """The kind of a trial's pictures; `mixed` of two."""
    kinds = {quiz.pictures[name].kind for name in trial.pictures}
    return next(iter(kinds)) if len(kinds) == 1 else "mixed"


def generator_of(quiz: Quiz, trial: Trial) -> str:
    """The generator of a trial's synthetic picture; '' of a real one alone."""
    return next((quiz.pictures[n].generator for n in trial.pictures if quiz.pictures[n].label), "")
