"""The look of all plots, and how they become PNG bytes. Needs matplotlib.

The plots of evaluations, of trainings and of scripts are drawn through this module. Only its
functions import matplotlib, which is optional, and never pyplot: pyplot's figures are global, and
it looks for a display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datasets._paths import visible

from ..runtime.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

DPI = 130
# Okabe-Ito: told apart with every common kind of colour blindness. The style of matplotlib that is
# made for that, tableau-colorblind10, has greys, which stand for references here, and pastels.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#777777"
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":")
REFERENCE: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1}
LONGEST = 48  # characters of a name; longer ones would leave no room for the plot


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def style(axes: Axes, x_label: str, y_label: str) -> Axes:
    """The same axes with labels, a light grid and no frame."""
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def single(width: float, height: float, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A figure of one plot."""
    canvas = figure(width, height)
    return canvas, style(canvas.add_subplot(), x_label, y_label)


def within_percent(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis of percents, near 0 and 100 at most: beyond, there is nothing to read."""
    margin = 0.02 * min(high - low, 100)
    return max(low, -margin), min(high, 100 + margin)


def label(name: str) -> str:
    """A name on one line, its middle left out where it is very long."""
    return one_line(visible(name), LONGEST)


def name_rows(axes: Axes, names: Sequence[str], height: float = 1.0) -> None:
    """Names at 0, 1, … of the y axis, whatever characters are in them."""
    axes.set_yticks(range(len(names)), [label(name) for name in names], parse_math=False)
    axes.set_ylim(-0.5 * height - 0.1, len(names) - 1 + 0.5 * height + 0.1)


def plain(legend: Legend) -> None:
    """Shows dollar signs of a legend as such, and breaks no line."""
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_text(label(text.get_text()))


def series(index: int) -> tuple[str, str]:
    """Colour and marker of one of several things in a plot."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def png(drawn: Figure) -> bytes:
    """A figure as a file that says nothing of when or by what it was made."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
