"""Plots that set runs beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation import metrics
from ..evaluation.bootstrap import Floats, Ints
from ..evaluation.cells import Cell
from ..evaluation.estimates import Estimate
from . import drawing
from .drawing import COLOURS, GREY, LINES
from .plots_groups import dots


def roc(labels: Ints, logits: Floats, names: Sequence[str]) -> bytes:
    """The ROC curves of runs (R, N) over the same pictures of both classes (N,)."""
    figure, axes = drawing.single(5.6, 5.6, "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    for place, (name, scores) in enumerate(zip(names, logits, strict=True)):
        found = metrics.curve(labels, scores)
        tps, fps = np.concatenate([[0], found.tps]), np.concatenate([[0], found.fps])
        axes.plot(
            fps / fps[-1],
            tps / tps[-1],
            color=COLOURS[place % len(COLOURS)],
            linestyle=LINES[place % len(LINES)],
            label=f"{drawing.label(name)}: AUROC {100 * metrics.auroc(labels, scores):.1f} %",
        )
    drawing.unit_square(axes)
    for text in axes.legend(loc="lower right", frameon=False).get_texts():
        text.set_parse_math(False)
    return drawing.png(figure)


def differences(found: Mapping[Cell, Estimate], metric: str) -> bytes | None:
    """Differences of a metric per generator with their intervals; None for fewer than two."""
    title = f"difference in {metric} (percentage points), 95 % interval"
    return dots(found, title, 0, differences=True)
