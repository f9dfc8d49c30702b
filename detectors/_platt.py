"""Platt's calibration (1999): a logistic regression of labels on one number.

Detectors that are fitted rather than trained use it for their last layer, the engine for members of
an ensemble and for the shipped detector. It imports no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def platt(
    labels: NDArray[np.int64], values: NDArray[np.float64], penalty: float = 1e-6
) -> tuple[float, float]:
    """Slope and offset of the logit of synthetic, slope * value + offset. Both classes weigh the
    same, so that 0 lies between them whatever their shares.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        values: (N,), of whatever direction: a negative slope says that they fall.
        penalty: of the squared slope; keeps it finite where the classes are separable.

    Raises:
        ValueError: a class is missing.
    """
    from sklearn.linear_model import LogisticRegression

    if set(labels.tolist()) != {0, 1}:
        raise ValueError("expected real and synthetic pictures to calibrate on; found one class")
    model = LogisticRegression(C=1 / penalty, class_weight="balanced")
    model.fit(values[:, None], labels)
    return float(model.coef_[0, 0]), float(model.intercept_[0])
