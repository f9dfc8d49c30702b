"""Calibration: Platt scaling, the band of doubt, and honest figures for both."""

from __future__ import annotations

import numpy as np
import pytest

from engine.calibrate import Platt, choose_band, cross_fitted, fit_platt, outside


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


def test_band_is_the_narrowest_that_reaches_the_accuracy() -> None:
    labels, logits = drawn()
    probabilities = fit_platt(labels, logits)(logits)
    band = choose_band(labels, probabilities, accuracy=0.9)
    right = (probabilities > 0.5) == (labels == 1)
    narrower = (band[0] + 0.01, band[1] - 0.01)
    assert band[0] == pytest.approx(1 - band[1])
    assert right[outside(probabilities, band)].mean() >= 0.9
    assert right[outside(probabilities, narrower)].mean() < 0.9


def test_band_has_no_width_where_every_verdict_is_right() -> None:
    labels = np.array([0, 0, 1, 1])
    assert choose_band(labels, np.array([0.1, 0.2, 0.8, 0.9]), 0.95) == (0.5, 0.5)


def test_weak_evidence_leaves_almost_every_picture_undecided() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000)
    logits = rng.normal(0, 1, 3000) + 0.3 * labels
    found = cross_fitted(labels, logits, np.arange(3000), accuracy=0.95)
    # The best possible rule is right on 56 % of these.
    assert 0.5 < found.accuracy_without_band < 0.6
    assert found.coverage < 0.05


def test_cross_fitting_keeps_groups_together() -> None:
    labels, logits = drawn(1000)
    once = cross_fitted(labels, logits, np.arange(1000), accuracy=0.9)
    twice = cross_fitted(
        np.repeat(labels, 2), np.repeat(logits, 2), np.repeat(np.arange(1000), 2), accuracy=0.9
    )
    # The same pictures twice, kept together, say nothing new.
    assert twice.accuracy == pytest.approx(once.accuracy, abs=1e-3)
    assert twice.coverage == pytest.approx(once.coverage, abs=1e-3)
