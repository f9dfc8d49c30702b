"""Plots of the parts of an evaluation: its generators, its cells, its degradations."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.analysis import WHOLE, Analysis, Degraded, Values, View, ordered
from ..evaluation.cells import Cell
from ..evaluation.estimates import (
    ACCURACY,
    ACCURACY_REAL,
    ACCURACY_SYNTHETIC,
    AP,
    AUROC,
    DETECTION_RATE,
    Estimate,
    Metrics,
)
from ..scoring import degradations as degrade
from . import drawing
from .drawing import COLOURS, GREY, MARKERS
from .tables import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What the curves of a degradation show.
SWEPT = (
    AUROC,
    AP,
    ACCURACY,
    ACCURACY_REAL,
    ACCURACY_SYNTHETIC,
    DETECTION_RATE,
)
QUALITY = ("jpeg", "webp", "avif")  # whose lower values degrade more


def estimates(name: str, cells: Mapping[Cell, Metrics]) -> dict[Cell, Estimate]:
    """One metric of the cells that have it."""
    return {cell: found.estimates[name] for cell, found in cells.items() if name in found.estimates}


def by_generator(
    found: Mapping[Cell, Estimate], known: Sequence[str] = ()
) -> dict[str, dict[str, Estimate]]:
    """Generator -> source -> estimate, from the bottom of a plot to its top: there the first of
    `known` is, below it the others sorted by name, as in the tables."""
    rows: defaultdict[str, dict[str, Estimate]] = defaultdict(dict)
    for (source, generator), estimate in found.items():
        rows[generator][source] = estimate
    return {name: rows[name] for name in reversed(ordered(rows, known))}


def dots(
    found: Mapping[Cell, Estimate],
    title: str,
    reference: float | None,
    view: View = WHOLE,
    few: Collection[Cell] = (),
    differences: bool = False,
) -> bytes | None:
    """A row per generator, a dot per source in it; None with fewer than two generators.

    `title` stands at the x axis, in percent, or percentage points of `differences`; `reference` is
    a value to mark; the dots of `few` are hollow.
    """
    rows = by_generator(found, view.generators)
    if len(rows) < 2:
        return None
    names = list(rows)
    sources = ordered((source for row in rows.values() for source in row), view.sources)
    # Sources that each have generators of their own tell nothing that the row does not.
    crossed = any(len(row) > 1 for row in rows.values())
    spread = max(0.32, 0.1 * len(sources)) if crossed else 0.32
    figure, axes = drawing.single(7.5, 1.2 + spread * len(rows), title, "generator")
    for place, source in enumerate(sources):
        shift = 0.6 * (0.5 - (place + 0.5) / len(sources)) if crossed else 0.0
        points = [(y, row[source]) for y, row in enumerate(rows.values()) if source in row]
        values = np.array([estimate for _, estimate in points]) * 100
        heights = np.array([y + shift for y, _ in points])
        style = place if crossed else 0
        look: dict[str, Any] = {
            "fmt": MARKERS[style % len(MARKERS)],
            "color": COLOURS[style % len(COLOURS)],
            "markersize": 4.5,
            "linewidth": 1.3,
        }
        hollow = np.array([(source, names[y]) in few for y, _ in points])
        for chosen, face in ((~hollow, look["color"]), (hollow, "white")):
            middle, ends = values[chosen, 0], values[chosen, 1:].T
            bars = np.abs(ends - middle)
            axes.errorbar(middle, heights[chosen], xerr=bars, markerfacecolor=face, **look)
    drawing.name_rows(axes, names)
    if reference is not None:
        axes.axvline(reference, color=GREY, linestyle="--", linewidth=1)
    if not differences:
        axes.set_xlim(drawing.within_percent(*axes.get_xlim()))
    if crossed:
        drawing.source_legend(figure, sources)
    return drawing.png(figure)


def generators(analysis: Analysis) -> bytes | None:
    """AUROC of each generator, or the detection rate where there are no real pictures."""
    found = estimates(AUROC, analysis.cells)
    name = AUROC if found else DETECTION_RATE
    title = f"{metric_name(name)} (%), with its 95 % interval"
    shown = found or estimates(DETECTION_RATE, analysis.cells)
    few = analysis.cells.keys() - analysis.counted.keys()
    return dots(shown, title, 50 if found else None, analysis.view, few)


def heat_metric(analysis: Analysis) -> str:
    """What the heat map shows: AP where that was published, else AUROC; never of fakes alone."""
    if not estimates(AUROC, analysis.cells):
        return DETECTION_RATE
    published = analysis.view.published
    return AP if published and AP in published.metrics else AUROC


def heatmap(analysis: Analysis) -> bytes | None:
    """Generators x sources; None unless two generators and two sources are crossed."""
    name = heat_metric(analysis)
    rows = by_generator(estimates(name, analysis.cells), analysis.view.generators)
    sources = ordered((s for row in rows.values() for s in row), analysis.view.sources)
    several = {source: sum(source in row for row in rows.values()) for source in sources}
    if max(map(len, rows.values()), default=0) < 2 or max(several.values(), default=0) < 2:
        return None
    values = np.array(
        [
            [100 * row[source].value if source in row else math.nan for source in sources]
            for row in rows.values()
        ]
    )
    across = max(len(drawing.label(generator)) for generator in rows)
    below = max(len(drawing.label(source)) for source in sources)
    figure = drawing.figure(
        1.8 + 0.08 * across + 0.85 * len(sources), 1.3 + 0.045 * below + 0.3 * len(rows)
    )
    axes = figure.add_subplot()
    axes.set_facecolor("#eeeeee")  # of cells that were not measured
    lowest = 10 * math.floor(float(np.nanmin(values)) / 10)
    image = axes.imshow(
        values, cmap="cividis", vmin=min(lowest, 90), vmax=100, aspect="auto", origin="lower"
    )
    _cell_values(axes, values, min(lowest, 90))
    axes.set_xticks(
        range(len(sources)),
        [drawing.label(source) for source in sources],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
        parse_math=False,
    )
    drawing.name_rows(axes, list(rows), height=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("source")
    axes.set_ylabel("generator")
    bar = figure.colorbar(image, ax=axes, label=f"{metric_name(name)} (%)", pad=0.02)
    bar.outline.set_visible(False)
    return drawing.png(figure)


def _cell_values(axes: Axes, values: np.ndarray, lowest: float) -> None:
    for (y, x), value in np.ndenumerate(values):
        if not math.isnan(value):
            # The lower half of the colour map is dark.
            ink = "white" if value < (lowest + 100) / 2 else "black"
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color=ink, fontsize=8)


def robustness(degradations: Mapping[str, Degraded], base: str) -> bytes | None:
    """The headline average over the value of each step of the sweep, a small plot per step.

    None where no degradation is one step with a number.
    """
    curves = degrade.curves(degradations, base)
    if not curves:
        return None
    found = {name: degraded.headline.values for name, degraded in degradations.items()}
    shown = {
        name: place
        for place, name in enumerate(SWEPT)
        if any(name in each for each in found.values())
    }
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = drawing.figure(max(5.5, 3.6 * columns), 0.9 + 2.9 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (step, points) in zip(grid.flat[: len(curves)], curves.items(), strict=True):
        _step(axes, step, points, found, shown)
        for name, place in shown.items():
            if name in found[base]:
                colour = COLOURS[place % len(COLOURS)]
                axes.axhline(100 * found[base][name], color=colour, linestyle=":", linewidth=1)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("%")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return drawing.png(figure)


def _step(
    axes: Axes,
    step: str,
    points: Sequence[tuple[float, str]],
    found: Mapping[str, Values],
    shown: Mapping[str, int],
) -> None:
    """The curves of one step, each metric with the colour and the marker of its place."""
    drawing.style(axes, step, "")
    for name, place in shown.items():
        measured = [(x, 100 * found[each][name]) for x, each in points if name in found[each]]
        axes.plot(
            [x for x, _ in measured],
            [y for _, y in measured],
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=4,
            # AP often lies on top of AUROC.
            linestyle="--" if name == AP else "-",
            linewidth=1.4,
            label=metric_name(name),
        )
    axes.set_ylim(-3, 103)
    if step in QUALITY:
        axes.invert_xaxis()
