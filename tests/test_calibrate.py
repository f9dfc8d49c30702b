"""Calibration: Platt scaling, and the band of doubt."""

from __future__ import annotations

import numpy as np
import pytest

from engine.evaluation.calibration import Platt, doubt_band, fit_platt


def drawn(count: int = 4000, slope: float = 0.5, offset: float = 0.8, seed: int = 0):
    """Logits, and labels that follow sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.6, 4.0, count)
    labels = (rng.random(count) < Platt(slope, offset)(logits)).astype(np.int64)
    return labels, logits


def test_platt_finds_the_slope_and_offset_that_made_the_labels() -> None:
    labels, logits = drawn(40_000)
    found = fit_platt(labels, logits)
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.offset == pytest.approx(0.8, abs=0.06)


def test_platt_is_blind_to_the_share_of_the_classes() -> None:
    labels, logits = drawn(40_000)
    keep = (labels == 1) | (np.arange(labels.size) % 10 == 0)
    assert fit_platt(labels[keep], logits[keep]).offset == pytest.approx(
        fit_platt(labels, logits).offset, abs=0.2
    )


@pytest.mark.parametrize("labels", [np.ones(8, int), np.arange(8) < 4])
def test_platt_refuses_one_class_and_upside_down_logits(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_platt(labels.astype(np.int64), np.linspace(-3, 3, 8))


def test_the_band_keeps_to_the_rates_and_is_no_wider() -> None:
    labels, logits = drawn()
    probabilities = fit_platt(labels, logits)(logits)
    real, fake = probabilities[labels == 0], probabilities[labels == 1]
    low, high = doubt_band(labels, probabilities, false_alarms=0.03, missed=0.02)
    assert low < 0.5 < high
    assert (real > high).mean() <= 0.03 < (real > high - 0.01).mean()
    assert (fake < low).mean() <= 0.02 < (fake < low + 0.01).mean()


def test_the_band_holds_one_half_where_the_rates_ask_for_nothing() -> None:
    labels = np.array([0, 0, 1, 1])
    assert doubt_band(labels, np.array([0.1, 0.2, 0.8, 0.9]), 0.0, 0.0) == (0.5, 0.5)
