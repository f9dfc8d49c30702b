"""The plots of an evaluation, as PNG bytes; matplotlib is optional."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import metrics
from ._document import visible
from .metrics import Cell, Estimate, Floats, Ints, Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito: told apart with every common kind of colour blindness.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#777777"
SOURCE_COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
HISTOGRAM_BINS = 60


def _axes(width: float, height: float, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    # A Figure of its own, not pyplot: no global state and no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")


def _curves(labels: Ints, logits: Floats, pooled: Metrics, threshold: float) -> dict[str, bytes]:
    found = metrics.curve(labels, logits)
    cut = int((found.thresholds > metrics.threshold_logit(threshold)).sum())
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

    roc, axes = _axes(5.2, 5.2, "false positive rate", "true positive rate")
    area = pooled.estimates[metrics.AUROC].value
    axes.plot(fpr, tpr, color=BLUE, label=f"AUROC {100 * area:.1f} %")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
    axes.plot(fpr[cut], tpr[cut], **point)
    _unit_square(axes)
    axes.legend(loc="lower right", frameon=False)

    pr, axes = _axes(5.2, 5.2, "recall", "precision")
    area = pooled.estimates[metrics.AP].value
    # Steps, not slopes: AP is the area under this very line.
    axes.step(tpr, [precision[0], *precision], color=BLUE, label=f"AP {100 * area:.1f} %")
    chance = f"share of synthetic pictures {100 * share:.1f} %"
    axes.axhline(share, color=GREY, linestyle="--", linewidth=1, label=chance)
    if cut:
        axes.plot(tpr[cut], precision[cut - 1], **point)
    _unit_square(axes)
    axes.legend(loc="lower left", frameon=False)
    return {"roc.png": _png(roc), "pr.png": _png(pr)}


def _histogram(labels: Ints, logits: Floats, threshold: float) -> bytes:
    limit = metrics.threshold_logit(threshold)
    finite = logits[np.isfinite(logits)]
    # Without the rarest ends one far-off picture would squeeze all others into one bar.
    low, high = np.quantile(finite, [0.002, 0.998]) if finite.size else (-1.0, 1.0)
    if np.isfinite(limit):
        low, high = min(low, limit), max(high, limit)
    margin = 0.02 * (high - low) or 0.5
    edges = np.linspace(low - margin, high + margin, HISTOGRAM_BINS + 1)
    figure, axes = _axes(7, 4, "logit (natural-log odds of synthetic)", "share of the class (%)")
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
    axes.legend(frameon=False)
    return _png(figure)


def _dots(name: str, cells: Mapping[Cell, Metrics]) -> dict[str, dict[str, Estimate]]:
    """Generator -> source -> estimate, from the lowest mean to the highest."""
    found: defaultdict[str, dict[str, Estimate]] = defaultdict(dict)
    for (source, generator), cell in cells.items():
        if name in cell.estimates:
            found[generator][source] = cell.estimates[name]
    return dict(
        sorted(found.items(), key=lambda item: float(np.mean([e.value for e in item[1].values()])))
    )


def _generators(cells: Mapping[Cell, Metrics]) -> bytes | None:
    """A row per generator, a dot per source in it; None with fewer than two generators."""
    both = any(metrics.AUROC in cell.estimates for cell in cells.values())
    name = metrics.AUROC if both else metrics.DETECTION_RATE
    dots = _dots(name, cells)
    if len(dots) < 2:
        return None
    sources = sorted({source for row in dots.values() for source in row})
    # Sources that each have generators of their own tell nothing that the row does not.
    crossed = any(len(row) > 1 for row in dots.values())
    title = f"{name.replace('_', ' ')} (%), with its 95 % interval"
    spread = max(0.32, 0.1 * len(sources)) if crossed else 0.32
    figure, axes = _axes(7.5, 1.2 + spread * len(dots), title, "generator")
    for place, source in enumerate(sources):
        shift = 0.6 * ((place + 0.5) / len(sources) - 0.5) if crossed else 0.0
        ordered = [(y, row[source]) for y, row in enumerate(dots.values()) if source in row]
        values = np.array([estimate for _, estimate in ordered]) * 100
        errors = np.abs(values[:, 1:].T - values[:, 0])
        style = place if crossed else 0
        axes.errorbar(
            values[:, 0],
            [y + shift for y, _ in ordered],
            xerr=errors,
            fmt=MARKERS[style % len(MARKERS)],
            color=SOURCE_COLOURS[style % len(SOURCE_COLOURS)],
            markersize=4.5,
            linewidth=1.3,
        )
    axes.set_yticks(range(len(dots)), [visible(name) for name in dots], parse_math=False)
    axes.set_ylim(-0.6, len(dots) - 0.4)
    if both:
        axes.axvline(50, color=GREY, linestyle="--", linewidth=1)
    if crossed:
        _source_legend(figure, sources)
    return _png(figure)


def _source_legend(figure: Figure, sources: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=MARKERS[place % len(MARKERS)],
            color=SOURCE_COLOURS[place % len(SOURCE_COLOURS)],
        )
        for place in range(len(sources))
    ]
    names = [visible(source) for source in sources]
    legend = figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def draw(
    labels: Ints, logits: Floats, pooled: Metrics, cells: Mapping[Cell, Metrics], threshold: float
) -> dict[str, bytes]:
    """PNG bytes by file name, of labels (N,) and logits (N,); plots without data are left out.

    Raises ImportError when matplotlib is not installed.
    """
    import matplotlib.figure  # noqa: F401

    plots: dict[str, bytes] = {}
    if pooled.n_real and pooled.n_synthetic:
        plots |= _curves(labels, logits, pooled, threshold)
    if logits.size:
        plots["histogram.png"] = _histogram(labels, logits, threshold)
    generators = _generators(cells)
    if generators is not None:
        plots["generators.png"] = generators
    return plots
