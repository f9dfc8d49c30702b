"""What the plots have in common: their look, and how they become PNG bytes. Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from datasets._paths import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

DPI = 130
# Okabe-Ito: told apart with every common kind of colour blindness.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#777777"
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":")
LONGEST = 48  # characters of a name; longer ones would leave no room for the plot


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    # A Figure of its own, not pyplot: no global state and no display.
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
    found = figure(width, height)
    return found, style(found.add_subplot(), x_label, y_label)


def unit_square(axes: Axes) -> None:
    """Both axes from 0 to 1, of one scale."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")


def within_percent(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis of percents, near 0 and 100 at most: beyond, there is nothing to read."""
    margin = 0.02 * min(high - low, 100)
    return max(low, -margin), min(high, 100 + margin)


def label(name: str) -> str:
    """A name on one line, its middle left out where it is very long."""
    shown = visible(name)
    half = LONGEST // 2
    return shown if len(shown) <= LONGEST else f"{shown[:half]}…{shown[-half + 1 :]}"


def name_rows(axes: Axes, names: Sequence[str], height: float = 1.0) -> None:
    """Names at 0, 1, … of the y axis, whatever characters are in them."""
    axes.set_yticks(range(len(names)), [label(name) for name in names], parse_math=False)
    axes.set_ylim(-0.5 * height - 0.1, len(names) - 1 + 0.5 * height + 0.1)


def plain(legend: Legend) -> None:
    """Shows dollar signs of a legend as such, and breaks no line."""
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_text(label(text.get_text()))


def source_legend(found: Figure, names: Sequence[str]) -> None:
    """A legend above the figure: the marker and the colour of each name, in their order."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
        )
        for place in range(len(names))
    ]
    plain(found.legend(handles, list(names), loc="outside upper center", ncols=5, frameon=False))


def png(found: Figure) -> bytes:
    """The figure as a file that says nothing of when or by what it was made."""
    buffer = io.BytesIO()
    found.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
