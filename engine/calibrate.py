"""From a detector's raw logits to probabilities that can be believed, and a band of doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FOLDS = 5


@dataclass(frozen=True)
class Platt:
    """calibrated logit = slope * logit + offset (Platt 1999)."""

    slope: float
    offset: float

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of synthetic in [0, 1]."""
        return 1 / (1 + np.exp(-(self.slope * logits + self.offset)))


def fit_platt(labels: Ints, logits: Floats) -> Platt:
    """Fits labels (N,) in {0, 1} on logits (N,) by logistic regression, both classes weighing the
    same, so that 0.5 lies between them whatever their shares.

    Raises:
        ValueError: a class is missing, or higher logits do not mean synthetic.
    """
    from sklearn.linear_model import LogisticRegression

    if set(labels.tolist()) != {0, 1}:
        raise ValueError("expected real and synthetic pictures to calibrate on; found one class")
    model = LogisticRegression(C=1e6, class_weight="balanced")
    model.fit(logits[:, None], labels)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise ValueError("expected higher logits on synthetic pictures; found the opposite")
    return Platt(slope, offset)


def outside(probabilities: Floats, band: tuple[float, float]) -> NDArray[np.bool_]:
    """Which pictures get a verdict: those outside the band, whose ends count as inside."""
    return (probabilities < band[0]) | (probabilities > band[1])


def choose_band(labels: Ints, probabilities: Floats, accuracy: float) -> tuple[float, float]:
    """The narrowest band around 0.5, symmetric and in steps of 0.01, outside which at least
    `accuracy` of the verdicts are right; (0.05, 0.95) when no narrower one does."""
    right = (probabilities > 0.5) == (labels == 1)
    for half in range(0, 46):
        band = (round(0.5 - half / 100, 2), round(0.5 + half / 100, 2))
        judged = outside(probabilities, band)
        if judged.any() and float(right[judged].mean()) >= accuracy:
            return band
    return (0.05, 0.95)


@dataclass(frozen=True)
class Outcome:
    """Share of right verdicts outside the band, and share of pictures outside it; cross-fitted."""

    accuracy: float
    coverage: float
    accuracy_without_band: float


def cross_fitted(
    labels: Ints, logits: Floats, groups: Ints, accuracy: float, seed: int = 0
) -> Outcome:
    """What calibration and band do on pictures they were not fitted on: in turn a fifth of the
    `groups` (N,) is left out, and judged by what the others gave. Pictures of one group, such as
    one picture at two qualities, stay together."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    judged_right, judged, right_all = [], [], []
    for fold in range(FOLDS):
        test = np.isin(groups, names[fold::FOLDS])
        platt = fit_platt(labels[~test], logits[~test])
        band = choose_band(labels[~test], platt(logits[~test]), accuracy)
        probabilities = platt(logits[test])
        right = (probabilities > 0.5) == (labels[test] == 1)
        kept = outside(probabilities, band)
        judged += kept.tolist()
        judged_right += right[kept].tolist()
        right_all += right.tolist()
    share = float(np.mean(judged_right)) if judged_right else math.nan
    return Outcome(share, float(np.mean(judged)), float(np.mean(right_all)))
