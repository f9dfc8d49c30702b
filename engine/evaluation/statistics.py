"""Every metric of many samples at once, by its name; what all bootstraps here have in common."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from . import bootstrap, estimates
from .bootstrap import Floats, Samples


def statistics(samples: Samples, cut: int) -> dict[str, Floats]:
    """Every metric of `METRICS` for R samples; the first `cut` distinct logits count as fake."""
    n_synthetic, n_real = samples.n_synthetic, samples.n_real
    found, kept = bootstrap.right_answers(samples, cut)
    return {
        estimates.AP: bootstrap.average_precisions(samples),
        estimates.AUROC: bootstrap.areas_roc(samples),
        estimates.ACCURACY: (found + kept) / samples.sizes,
        estimates.BALANCED_ACCURACY: (found / n_synthetic + kept / n_real) / 2,
        estimates.ACCURACY_REAL: kept / n_real,
        estimates.ACCURACY_SYNTHETIC: found / n_synthetic,
        estimates.TPR_AT_1: bootstrap.tprs_at_fpr(samples, 0.01),
        estimates.TPR_AT_5: bootstrap.tprs_at_fpr(samples, 0.05),
        estimates.EER: bootstrap.equal_error_rates(samples),
        estimates.BEST_ACCURACY: bootstrap.best_accuracies(samples),
        estimates.ECE: bootstrap.calibration_errors(samples),
        estimates.BRIER: bootstrap.brier_scores(samples),
        estimates.LOG_LOSS: bootstrap.log_losses(samples),
    }


def joined(chunks: Iterable[dict[str, Floats]]) -> dict[str, Floats]:
    """The metrics of chunks of samples as those of all (R,)."""
    found = list(chunks)
    return {
        name: np.concatenate([[], *(chunk[name] for chunk in found)]) for name in estimates.METRICS
    }
