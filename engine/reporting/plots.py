"""The plots of an evaluation, as PNG bytes; matplotlib is optional."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluation import cells, estimates, metrics
from ..evaluation.analysis import Analysis
from ..evaluation.bootstrap import BINS, Floats, Ints
from ..evaluation.estimates import Metrics
from ..scoring import probability
from . import drawing, plots_groups
from .drawing import BLUE, GREY, VERMILION

HISTOGRAM_BINS = 60
CAPTIONS = {
    "roc.png": "ROC curve, pooled over pictures",
    "pr.png": "Precision-recall curve, pooled over pictures",
    "histogram.png": "Logits of the real and the synthetic pictures; the outermost bars hold "
    "what lies beyond them",
    "calibration.png": "Calibration: how many of the pictures with about this score are synthetic; "
    "below, how many pictures that is",
    "generators.png": "Generators, each with its 95 % interval; hollow, those of too few pictures "
    "to enter the mean",
    "heatmap.png": "Generators by sources",
    "robustness.png": "Robustness: the headline average over the value of each degradation; "
    "dotted, the pictures without it",
}


def _curves(labels: Ints, logits: Floats, pooled: Metrics, threshold: float) -> dict[str, bytes]:
    found = metrics.curve(labels, logits)
    cut = int((found.thresholds > probability.threshold_logit(threshold)).sum())
    tps, fps = np.concatenate([[0], found.tps]), np.concatenate([[0], found.fps])
    tpr, fpr = tps / tps[-1], fps / fps[-1]
    precision, share = tps[1:] / (tps + fps)[1:], tps[-1] / labels.size
    point: dict[str, Any] = {
        "marker": "o",
        "linestyle": "none",
        "color": VERMILION,
        "label": f"threshold {threshold:g}",
        "clip_on": False,
        "zorder": 3,
    }

    roc, axes = drawing.single(5.2, 5.2, "false positive rate", "true positive rate")
    area = pooled.estimates[estimates.AUROC].value
    axes.plot(fpr, tpr, color=BLUE, label=f"AUROC {100 * area:.1f} %")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.plot(fpr[cut], tpr[cut], **point)
    drawing.unit_square(axes)
    axes.legend(loc="lower right", frameon=False)

    pr, axes = drawing.single(5.2, 5.2, "recall", "precision")
    area = pooled.estimates[estimates.AP].value
    # Steps, not slopes: AP is the area under this very line.
    axes.step(tpr, [precision[0], *precision], color=BLUE, label=f"AP {100 * area:.1f} %")
    chance = f"share of synthetic pictures {100 * share:.1f} %"
    axes.axhline(share, color=GREY, linestyle="--", linewidth=1, label=chance)
    if cut:
        axes.plot(tpr[cut], precision[cut - 1], **point)
    drawing.unit_square(axes)
    axes.legend(loc="lower left", frameon=False)
    return {"roc.png": drawing.png(roc), "pr.png": drawing.png(pr)}


def _histogram(labels: Ints, logits: Floats, threshold: float) -> bytes:
    limit = probability.threshold_logit(threshold)
    finite = logits[np.isfinite(logits)]
    # Without the rarest ends one far-off picture would squeeze all others into one bar.
    low, high = np.quantile(finite, [0.002, 0.998]) if finite.size else (-1.0, 1.0)
    if np.isfinite(limit):
        low, high = min(low, limit), max(high, limit)
    margin = 0.02 * (high - low) or 0.5
    edges = np.linspace(low - margin, high + margin, HISTOGRAM_BINS + 1)
    x_label, y_label = "logit (natural-log odds of synthetic)", "share of the class (%)"
    figure, axes = drawing.single(7, 4, x_label, y_label)
    classes = ((0, "real", BLUE, "-"), (1, "synthetic", VERMILION, "--"))
    for label, name, colour, line in classes:
        values = logits[labels == label]
        if not values.size:
            continue
        heights = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        heights = 100 * heights / values.size
        title = f"{name} ({values.size})"
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(heights, edges, color=colour, linestyle=line, linewidth=1.4, label=title)
    if np.isfinite(limit):
        axes.axvline(limit, color="black", linewidth=1, label=f"threshold {threshold:g}")
    # Above the plot: inside, the line of the threshold or a bar would run through it.
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return drawing.png(figure)


def _calibration(labels: Ints, logits: Floats, pooled: Metrics) -> bytes:
    bins = metrics.calibration_bins(labels, logits)
    scores, shares, counts = (np.array(part) for part in zip(*bins, strict=True))
    error = pooled.estimates[estimates.ECE].value
    figure = drawing.figure(5.2, 6.6)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    drawing.style(upper, "", "share of synthetic pictures")
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    upper.plot(scores, shares, color=BLUE, marker="o", label=f"ECE {100 * error:.1f} %")
    few = counts < estimates.FEWEST
    if few.any():
        hollow = {"color": BLUE, "markerfacecolor": "white", "linestyle": "none", "marker": "o"}
        name = f"fewer than {estimates.FEWEST} pictures"
        upper.plot(scores[few], shares[few], **hollow, label=name)
    upper.set_ylim(-0.02, 1.02)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    drawing.style(lower, "score", "pictures (log scale)")
    # Bars where the bins are, not at the means of their scores, where neighbours would overlap.
    starts = np.minimum((scores * BINS).astype(int), BINS - 1) / BINS
    lower.bar(starts, counts, width=0.9 / BINS, align="edge", color=BLUE, alpha=0.6)
    lower.set_yscale("log")
    lower.set_ylim(bottom=0.7)
    lower.set_xlim(-0.02, 1.02)
    return drawing.png(figure)


def draw(analysis: Analysis) -> dict[str, bytes]:
    """PNG bytes by file name, in the order of `CAPTIONS`; plots without data are left out.

    Raises ImportError when matplotlib is not installed.
    """
    import matplotlib.figure  # noqa: F401

    labels, logits = cells.labels_logits(analysis.rows)
    pooled, threshold = analysis.pooled, analysis.threshold
    plots: dict[str, bytes | None] = {}
    both = pooled.n_real and pooled.n_synthetic
    if both:
        plots |= _curves(labels, logits, pooled, threshold)
    if logits.size:
        plots["histogram.png"] = _histogram(labels, logits, threshold)
    if both:
        plots["calibration.png"] = _calibration(labels, logits, pooled)
    plots["generators.png"] = plots_groups.generators(analysis)
    plots["heatmap.png"] = plots_groups.heatmap(analysis)
    plots["robustness.png"] = plots_groups.robustness(analysis.degradations, analysis.base)
    return {name: plot for name, plot in plots.items() if plot is not None}
