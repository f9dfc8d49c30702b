"""The plot of a training run, epoch by epoch: losses, validation metrics, learning rate.

The training's outputs are drawn through `draw_curves` from the rows of its log. Needs matplotlib.
What an epoch lacks is a gap in its line, never a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation import estimates
from ..evaluation.bootstrap import Floats
from . import drawing
from .drawing import BLUE, COLOURS, GREY, MARKERS, VERMILION
from .tables import metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (estimates.AUROC, estimates.AP, estimates.ACCURACY, estimates.BALANCED_ACCURACY)
VAL_LOSS = "val_loss"
LOG_FACTOR = 20  # of the largest loss over the smallest one, beyond which the axis is logarithmic
History = Sequence[Mapping[str, float]]


def column(history: History, key: str) -> Floats:
    """(epochs,) values; NaN where an epoch has none, or none that is finite."""
    values = np.array([row.get(key, math.nan) for row in history], np.float64)
    return np.where(np.isfinite(values), values, math.nan)


def sets_of(history: History, names: Iterable[str]) -> list[str]:
    """`x` of every key `x name` in a history, by first appearance: the sets that were tested."""
    keys = dict.fromkeys(key for row in history for key in row)
    ends = tuple(f" {name}" for name in names)
    return list(dict.fromkeys(key.rsplit(" ", 1)[0] for key in keys if key.endswith(ends)))


def _points(count: int, tested: int | None) -> dict[str, Any]:
    """How a line of `count` epochs looks: that of the validation, or of a tested set."""
    # A point everywhere: a value between two that are missing has no line.
    size = min(4.0, max(1.5, 80 / count))
    if tested is None:
        return {"linewidth": 1.6, "marker": "o", "markersize": size}
    marker = MARKERS[1:][tested % (len(MARKERS) - 1)]
    return {"linewidth": 0.8, "linestyle": "--", "marker": marker, "markersize": size}


def _draw(
    axes: Axes, history: History, key: str, scale: float, colour: str, name: str, tested: int | None
) -> Floats:
    """Draws one column over the epochs, if it has any value. Returns its values times `scale`.

    Args:
        axes: of the panel.
        history: a row per epoch.
        key: of the column.
        scale: 100 makes fractions percent.
        colour: of the line.
        name: in the legend; none where empty.
        tested: place of the tested set, None for the validation.
    """
    values = scale * column(history, key)
    if not np.isnan(values).all():
        look = _points(len(history), tested)
        axes.plot(column(history, "epoch"), values, color=colour, label=name, **look)
    return values


def _losses(axes: Axes, history: History, sets: Sequence[str]) -> None:
    """The losses of training and validation, and those of the tested sets."""
    drawn = [
        _draw(axes, history, "loss", 1, BLUE, "training", None),
        _draw(axes, history, VAL_LOSS, 1, VERMILION, "validation", None),
    ]
    for place, name in enumerate(sets):
        drawn.append(_draw(axes, history, f"{name} {VAL_LOSS}", 1, VERMILION, "", place))
    values = np.concatenate(drawn)
    values = values[~np.isnan(values)]
    if values.size and 0 < LOG_FACTOR * values.min() < values.max():
        axes.set_yscale("log")


def _metrics(axes: Axes, history: History, sets: Sequence[str]) -> None:
    """The metrics of the validation, and those of the tested sets, in percent."""
    for metric, colour in zip(SHOWN, COLOURS[: len(SHOWN)], strict=True):
        _draw(axes, history, metric, 100, colour, metric_name(metric), None)
        for place, name in enumerate(sets):
            _draw(axes, history, f"{name} {metric}", 100, colour, "", place)
    axes.set_ylim(drawing.within_percent(*axes.get_ylim()))


def _legend(figure: Figure, best: int, count: int, sets: Sequence[str]) -> None:
    """Below the panels: the mark of the kept epoch, and whose lines are which, if of several."""
    from matplotlib.lines import Line2D

    names = [f"epoch {best}, whose weights are kept"]
    handles = [Line2D([], [], color="black", linestyle=":")]
    if sets:
        names += ["validation", *sets]
        looks = [_points(count, place) for place in (None, *range(len(sets)))]
        handles += [Line2D([], [], color=GREY, **look) for look in looks]
    drawing.plain(figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False))


def draw_curves(history: History, best: int, title: str) -> bytes:
    """PNG of the losses, the validation metrics in percent and the learning rate by epoch.

    Args:
        history: a row per epoch with `epoch` (from 1), `loss`, `lr`, and what was measured: the
            metrics of `SHOWN` as fractions and `val_loss`, those of the set x, tested after each
            epoch, under `x AUROC` and so on (thin and dashed). What is missing, NaN or infinite
            leaves a gap.
        best: the epoch whose weights are kept, marked in all panels.
        title: what was trained, on one line.

    Raises:
        ValueError: no epochs, or `best` is none of them.
        ImportError: matplotlib is not installed.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = column(history, "epoch")
    if best not in epochs:
        raise ValueError(f"best: expected an epoch of the {len(history)} in history; found {best}")
    sets = sets_of(history, (VAL_LOSS, *SHOWN))
    figure = drawing.figure(13, 4.4 + 0.2 * ((len(sets) + 1) // 4))
    panels = figure.subplots(1, 3, width_ratios=(4, 4, 3))
    labels = ("loss", "metrics (%)" if sets else "validation metrics (%)", "learning rate")
    for axes, label in zip(panels, labels, strict=True):
        drawing.style(axes, "epoch", label)
        axes.axvline(best, color="black", linestyle=":", linewidth=1.2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    left, middle, right = panels
    _losses(left, history, sets)
    _metrics(middle, history, sets)
    _draw(right, history, "lr", 1, BLUE, "learning rate", None)
    right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    for axes in (left, middle):
        if axes.get_legend_handles_labels()[0]:
            # Above the panel: inside, it would lie on the lines of one run or another.
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize="small",
                handlelength=1.5, columnspacing=1.2, borderaxespad=0,
            )  # fmt: skip
    figure.suptitle(drawing.label(title)).set_parse_math(False)
    _legend(figure, best, len(history), sets)
    return drawing.png(figure)
