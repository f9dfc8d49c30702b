"""From a detector's raw logits to probabilities that can be believed, and a band of doubt.

Fitted on pictures that the detector was not trained on, by the training of an ensemble and by the
script that fits the shipped detector. A fit is refused rather than turned upside down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors._platt import platt

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Platt:
    """calibrated logit = slope * logit + offset (Platt 1999)."""

    slope: float
    offset: float

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities of synthetic in [0, 1]."""
        return 1 / (1 + np.exp(-(self.slope * logits + self.offset)))


def fit_platt(labels: Ints, logits: Floats) -> Platt:
    """Logistic regression of labels (N,) in {0, 1} on logits (N,), both classes weighing the same,
    so that 0.5 lies between them whatever their shares.

    Raises:
        ValueError: a class is missing, or higher logits do not mean synthetic.
    """
    slope, offset = platt(labels, logits)
    if slope <= 0:
        raise ValueError("expected higher logits on synthetic pictures; found the opposite")
    return Platt(slope, offset)


def doubt_band(
    labels: Ints, probabilities: Floats, false_alarms: float, missed: float
) -> tuple[float, float]:
    """Ends (low, high) of the probabilities that give no verdict, 0.5 among them.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        probabilities: (N,), of synthetic, in the same order.
        false_alarms: the most that may lie above, as a share of the real pictures.
        missed: the most that may lie below, as a share of the synthetic ones.

    Returns:
        The narrowest band in steps of 0.01.
    """
    real, fake = probabilities[labels == 0], probabilities[labels == 1]
    steps = np.arange(101) / 100
    high = next(float(p) for p in steps if float((real > p).mean()) <= false_alarms)
    low = next(float(p) for p in steps[::-1] if float((fake < p).mean()) <= missed)
    return min(low, 0.5), max(high, 0.5)
