"""Every metric of many samples at once, by its name; what all bootstraps here have in common."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from . import _bootstrap, _estimates
from ._bootstrap import Floats, Samples


def statistics(samples: Samples, cut: int) -> dict[str, Floats]:
    """Every metric of `METRICS` for R samples; the first `cut` distinct logits count as fake."""
    n_synthetic, n_real = samples.n_synthetic, samples.n_real
    found, kept = _bootstrap.right_answers(samples, cut)
    return {
        _estimates.AP: _bootstrap.average_precisions(samples),
        _estimates.AUROC: _bootstrap.areas_roc(samples),
        _estimates.ACCURACY: (found + kept) / samples.sizes,
        _estimates.BALANCED_ACCURACY: (found / n_synthetic + kept / n_real) / 2,
        _estimates.ACCURACY_REAL: kept / n_real,
        _estimates.ACCURACY_SYNTHETIC: found / n_synthetic,
        _estimates.TPR_AT_1: _bootstrap.tprs_at_fpr(samples, 0.01),
        _estimates.TPR_AT_5: _bootstrap.tprs_at_fpr(samples, 0.05),
        _estimates.EER: _bootstrap.equal_error_rates(samples),
        _estimates.BEST_ACCURACY: _bootstrap.best_accuracies(samples),
        _estimates.ECE: _bootstrap.calibration_errors(samples),
        _estimates.BRIER: _bootstrap.brier_scores(samples),
        _estimates.LOG_LOSS: _bootstrap.log_losses(samples),
    }


def joined(chunks: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """The metrics of chunks of samples as those of all (R,)."""
    found = list(chunks)
    return {
        name: np.concatenate([[], *(chunk[name] for chunk in found)]) for name in _estimates.METRICS
    }
