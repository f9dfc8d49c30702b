"""The plots of evaluations and of comparisons of them, as PNG bytes.

`report` calls `draw`, `comparison` calls `roc_of_runs` and `differences`. Every function needs
matplotlib, which is optional. Nothing is measured here but the points of curves.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation import cells, estimates, metrics
from ..evaluation.analysis import WHOLE, Analysis, Values, View, ordered
from ..evaluation.bootstrap import BINS, Floats, Ints
from ..evaluation.cells import Cell
from ..evaluation.estimates import AP, AUROC, DETECTION_RATE, Estimate, Metrics
from ..evaluation.periods import AFTER
from ..scoring import degradations as degrade
from ..scoring import probability
from . import drawing
from .drawing import BLUE, LINES, REFERENCE, VERMILION
from .tables import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HISTOGRAM_BINS = 60
QUALITY = ("jpeg", "webp", "avif")  # whose lower values degrade more
# What the curves of a degradation show.
SWEPT = (
    AUROC, AP, estimates.ACCURACY, estimates.ACCURACY_REAL, estimates.ACCURACY_SYNTHETIC,
    DETECTION_RATE,
)  # fmt: skip
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
    "years.png": "Generators by the year in which they came out, with 95 % intervals; red, those "
    "later than what the weights were trained on",
    "robustness.png": "Robustness: the headline average over the value of each degradation; "
    "dotted, the pictures without it",
}

# All pictures


def _rates(curve: metrics.Curve) -> tuple[Floats, Floats]:
    """True and false positives (U + 1,) as the threshold falls, as shares of their class."""
    tps, fps = np.concatenate([[0], curve.tps]), np.concatenate([[0], curve.fps])
    return tps / tps[-1], fps / fps[-1]


def _unit_square(size: float, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A figure of one plot, both axes from 0 to 1."""
    figure, axes = drawing.single(size, size, x_label, y_label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return figure, axes


def _curves(labels: Ints, logits: Floats, pooled: Metrics, threshold: float) -> dict[str, bytes]:
    """ROC and precision-recall curves, the threshold marked on both."""
    curve = metrics.curve(labels, logits)
    tpr, fpr = _rates(curve)
    share = labels.mean()
    called = tpr[1:] * share + fpr[1:] * (1 - share)
    precision = tpr[1:] * share / called
    cut = int((curve.thresholds > probability.threshold_logit(threshold)).sum())
    point: dict[str, Any] = {
        "marker": "o", "linestyle": "none", "color": VERMILION, "clip_on": False, "zorder": 3,
        "label": f"threshold {threshold:g}",
    }  # fmt: skip

    roc, axes = _unit_square(5.2, "false positive rate", "true positive rate")
    area = pooled.estimates[AUROC].value
    axes.plot(fpr, tpr, color=BLUE, label=f"AUROC {100 * area:.1f} %")
    axes.plot([0, 1], [0, 1], label="chance", **REFERENCE)
    axes.plot(fpr[cut], tpr[cut], **point)
    axes.legend(loc="lower right", frameon=False)

    pr, axes = _unit_square(5.2, "recall", "precision")
    area = pooled.estimates[AP].value
    # Steps, not slopes: AP is the area under this very line.
    axes.step(tpr, [precision[0], *precision], color=BLUE, label=f"AP {100 * area:.1f} %")
    axes.axhline(share, label=f"share of synthetic pictures {100 * share:.1f} %", **REFERENCE)
    if cut:
        axes.plot(tpr[cut], precision[cut - 1], **point)
    axes.legend(loc="lower left", frameon=False)
    return {"roc.png": drawing.png(roc), "pr.png": drawing.png(pr)}


def roc_of_runs(labels: Ints, logits: Floats, names: Sequence[str]) -> bytes:
    """The ROC curves of runs (R, N) over the same pictures of both classes (N,)."""
    figure, axes = _unit_square(5.6, "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], **REFERENCE)
    for index, (name, scores) in enumerate(zip(names, logits, strict=True)):
        tpr, fpr = _rates(metrics.curve(labels, scores))
        title = f"{drawing.label(name)}: AUROC {100 * metrics.auroc(labels, scores):.1f} %"
        line = LINES[index % len(LINES)]
        axes.plot(fpr, tpr, color=drawing.series(index)[0], linestyle=line, label=title)
    for text in axes.legend(loc="lower right", frameon=False).get_texts():
        text.set_parse_math(False)
    return drawing.png(figure)


def _histogram(labels: Ints, logits: Floats, threshold: float) -> bytes:
    """The logits of both classes, each class as shares of its own number."""
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
    for kind, name, colour, line in ((0, "real", BLUE, "-"), (1, "synthetic", VERMILION, "--")):
        values = logits[labels == kind]
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
    """Shares of synthetic pictures over scores, and how many pictures each share is of."""
    bins = metrics.calibration_bins(labels, logits)
    scores, shares, counts = (np.array(part) for part in zip(*bins, strict=True))
    error = pooled.estimates[estimates.ECE].value
    figure = drawing.figure(5.2, 6.6)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    drawing.style(upper, "", "share of synthetic pictures")
    upper.plot([0, 1], [0, 1], label="calibrated", **REFERENCE)
    upper.plot(scores, shares, color=BLUE, marker="o", label=f"ECE {100 * error:.1f} %")
    few = counts < estimates.FEWEST
    if few.any():
        name = f"fewer than {estimates.FEWEST} pictures"
        upper.plot(scores[few], shares[few], "o", color=BLUE, markerfacecolor="white", label=name)
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


# Generators, cells, degradations


def _of_cells(measured: Mapping[Cell, Metrics], metric: str) -> dict[Cell, Estimate]:
    """One metric of the cells that have it."""
    return {
        cell: each.estimates[metric] for cell, each in measured.items() if metric in each.estimates
    }


def _by_generator(
    values: Mapping[Cell, Estimate], known: Sequence[str] = ()
) -> dict[str, dict[str, Estimate]]:
    """Generator -> source -> estimate, from the bottom of a plot to its top: there the first of
    `known` is, below it the others sorted by name, as in the tables."""
    rows: defaultdict[str, dict[str, Estimate]] = defaultdict(dict)
    for (source, generator), estimate in values.items():
        rows[generator][source] = estimate
    return {name: rows[name] for name in reversed(ordered(rows, known))}


def _dots(
    values: Mapping[Cell, Estimate],
    title: str,
    reference: float | None,
    view: View = WHOLE,
    few: Collection[Cell] = (),
    differences: bool = False,
) -> bytes | None:
    """A row per generator, a dot per source in it; None with fewer than two generators.

    Args:
        values: estimates with their intervals, which become bars.
        title: what stands at the x axis, in percent or percentage points.
        reference: a value to mark.
        view: the order of generators and sources.
        few: the cells whose dots are hollow.
        differences: whether values may lie below 0.
    """
    rows = _by_generator(values, view.generators)
    if len(rows) < 2:
        return None
    sources = ordered((source for row in rows.values() for source in row), view.sources)
    # Sources that each have generators of their own tell nothing that the row does not.
    crossed = any(len(row) > 1 for row in rows.values())
    spread = max(0.32, 0.1 * len(sources)) if crossed else 0.32
    figure, axes = drawing.single(7.5, 1.2 + spread * len(rows), title, "generator")
    handles: list[Any] = []
    for index, source in enumerate(sources):
        shift = 0.6 * (0.5 - (index + 0.5) / len(sources)) if crossed else 0.0
        colour, marker = drawing.series(index if crossed else 0)
        for hollow in (False, True):
            chosen = [
                (y + shift, 100 * np.array(row[source]))
                for y, (generator, row) in enumerate(rows.items())
                if source in row and ((source, generator) in few) == hollow
            ]
            middles = [value for _, (value, _, _) in chosen]
            bars = [np.abs(ends - value) for _, (value, *ends) in chosen]
            handle = axes.errorbar(
                middles, [y for y, _ in chosen], xerr=np.reshape(bars, (-1, 2)).T, fmt=marker,
                color=colour, markerfacecolor="white" if hollow else colour, markersize=4.5,
                linewidth=1.3,
            )  # fmt: skip
            handles += [] if hollow else [handle]
    drawing.name_rows(axes, list(rows))
    if reference is not None:
        axes.axvline(reference, **REFERENCE)
    if crossed:
        legend = figure.legend(handles, sources, loc="outside upper center", ncols=5, frameon=False)
        drawing.plain(legend)
    if not differences:
        axes.set_xlim(drawing.within_percent(*axes.get_xlim()))
    return drawing.png(figure)


def generators(analysis: Analysis) -> bytes | None:
    """AUROC of each generator, or the detection rate where there are no real pictures."""
    metric = AUROC if _of_cells(analysis.cells, AUROC) else DETECTION_RATE
    title = f"{metric_name(metric)} (%), with its 95 % interval"
    few = analysis.cells.keys() - analysis.counted.keys()
    reference = 50 if metric == AUROC else None
    return _dots(_of_cells(analysis.cells, metric), title, reference, analysis.view, few)


def differences(values: Mapping[Cell, Estimate], metric: str) -> bytes | None:
    """Differences of a metric per generator with their intervals; None for fewer than two."""
    title = f"difference in {metric} (percentage points), 95 % interval"
    return _dots(values, title, 0, differences=True)


def heat_metric(analysis: Analysis) -> str:
    """What the heat map shows: AP where a paper has it, else AUROC; never of fakes alone."""
    if not _of_cells(analysis.cells, AUROC):
        return DETECTION_RATE
    reported = analysis.view.published
    return AP if reported and AP in reported.metrics else AUROC


def heatmap(analysis: Analysis) -> bytes | None:
    """Generators x sources; None unless two generators and two sources are crossed."""
    metric = heat_metric(analysis)
    rows = _by_generator(_of_cells(analysis.cells, metric), analysis.view.generators)
    sources = ordered((s for row in rows.values() for s in row), analysis.view.sources)
    values = np.array(
        [[100 * row[s].value if s in row else math.nan for s in sources] for row in rows.values()]
    ).reshape(len(rows), len(sources))
    measured = ~np.isnan(values)
    if max(measured.sum(0), default=0) < 2 or max(measured.sum(1), default=0) < 2:
        return None
    names = [drawing.label(source) for source in sources]
    width = 1.8 + 0.08 * max(len(drawing.label(name)) for name in rows) + 0.85 * len(sources)
    figure = drawing.figure(width, 1.3 + 0.045 * max(map(len, names)) + 0.3 * len(rows))
    axes = figure.add_subplot()
    axes.set_facecolor("#eeeeee")  # of cells that were not measured
    lowest = min(90, 10 * math.floor(float(np.nanmin(values)) / 10))
    image = axes.imshow(
        values, cmap="cividis", vmin=lowest, vmax=100, aspect="auto", origin="lower"
    )
    for (y, x), value in np.ndenumerate(values):
        if measured[y, x]:
            # The lower half of the colour map is dark.
            ink = "white" if value < (lowest + 100) / 2 else "black"
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8)
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(sources)), names, parse_math=False, **slanted)
    drawing.name_rows(axes, list(rows), height=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("source")
    axes.set_ylabel("generator")
    bar = figure.colorbar(image, ax=axes, label=f"{metric_name(metric)} (%)", pad=0.02)
    bar.outline.set_visible(False)
    return drawing.png(figure)


def years(analysis: Analysis) -> bytes | None:
    """AUROC, or the detection rate where there are no real pictures, over the year of release; None
    for fewer than two years."""
    metric = AUROC if analysis.pooled.n_real else DETECTION_RATE
    points = {
        name: group
        for name, group in analysis.years.items()
        if name.removesuffix(AFTER).isdigit() and metric in group.measured.estimates
    }
    ticks = sorted({int(name[:4]) for name in points})
    if len(ticks) < 2:
        return None
    figure, axes = drawing.single(6.5, 3.6, "year of release", f"{metric_name(metric)} (%)")
    for late, colour, marker in ((False, BLUE, "o"), (True, VERMILION, "s")):
        own = {n: g for n, g in points.items() if g.late == late}
        if own:
            values = 100 * np.array([g.measured.estimates[metric] for g in own.values()])
            axes.errorbar(
                # A year of both kinds has two points, side by side.
                [int(name[:4]) + 0.12 * late for name in own], values[:, 0],
                yerr=np.abs(values[:, 1:] - values[:, :1]).T, fmt=marker, color=colour,
                label="after training" if late else None,
            )  # fmt: skip
    if any(group.late for group in points.values()):
        figure.legend(loc="outside upper center", frameon=False)
    if metric == AUROC:
        axes.axhline(50, **REFERENCE)
    axes.set_xticks(ticks)
    axes.set_ylim(drawing.within_percent(*axes.get_ylim()))
    return drawing.png(figure)


def robustness(analysis: Analysis) -> bytes | None:
    """The headline average over the value of each step of the sweep, a small plot per step.

    None where no degradation is one step with a number.
    """
    curves = degrade.curves(analysis.degradations, analysis.base)
    if not curves:
        return None
    values = {name: each.headline.values for name, each in analysis.degradations.items()}
    shown = [name for name in SWEPT if any(name in each for each in values.values())]
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = drawing.figure(max(5.5, 3.6 * columns), 0.9 + 2.9 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (step, points) in zip(grid.flat[: len(curves)], curves.items(), strict=True):
        drawing.style(axes, step, "")
        for metric in shown:
            _curve(axes, metric, points, values, analysis.base)
        axes.set_ylim(-3, 103)
        if step in QUALITY:
            axes.invert_xaxis()
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("%")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return drawing.png(figure)


def _curve(
    axes: Axes,
    metric: str,
    points: Sequence[tuple[float, str]],
    values: Mapping[str, Values],
    base: str,
) -> None:
    """One metric over the value of a step, and dotted that of the pictures without it.

    Args:
        axes: of the step.
        metric: one of `SWEPT`, whose place there decides how it looks.
        points: the value of each degradation and its name, by value.
        values: metrics by the name of their degradation.
        base: name of the degradation that the main numbers are of.
    """
    colour, marker = drawing.series(SWEPT.index(metric))
    measured = [(x, 100 * values[name][metric]) for x, name in points if metric in values[name]]
    # AP often lies on top of AUROC.
    look: dict[str, Any] = {"linestyle": "--" if metric == AP else "-", "marker": marker}
    xs, ys = zip(*measured, strict=True) if measured else ((), ())
    name = metric_name(metric)
    axes.plot(xs, ys, color=colour, markersize=4, linewidth=1.4, label=name, **look)
    if metric in values[base]:
        axes.axhline(100 * values[base][metric], color=colour, linestyle=":", linewidth=1)


def draw(analysis: Analysis) -> dict[str, bytes]:
    """PNG bytes by file name, in the order of `CAPTIONS`; plots without data are left out.

    Raises ImportError when matplotlib is not installed.
    """
    import matplotlib.figure  # noqa: F401

    labels, logits = cells.labels_logits(analysis.rows)
    pooled, threshold = analysis.pooled, analysis.threshold
    images: dict[str, bytes | None] = {}
    both = pooled.n_real and pooled.n_synthetic
    if both:
        images |= _curves(labels, logits, pooled, threshold)
    if logits.size:
        images["histogram.png"] = _histogram(labels, logits, threshold)
    if both:
        images["calibration.png"] = _calibration(labels, logits, pooled)
    images["generators.png"] = generators(analysis)
    images["heatmap.png"] = heatmap(analysis)
    images["years.png"] = years(analysis)
    images["robustness.png"] = robustness(analysis)
    return {name: image for name, image in images.items() if image is not None}
