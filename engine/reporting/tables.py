"""Tables of metrics as text: percents, their intervals, and a paper's figures beside them.

The reports of evaluations, of series of them and the cards of weights print numbers through these
functions, so that a number looks the same everywhere. Nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..evaluation import estimates
from ..evaluation.analysis import Analysis
from ..evaluation.cells import Cell
from ..evaluation.estimates import Estimate, Metrics
from ..evaluation.periods import Group
from ..evaluation.reported import NOTHING, OTHER_PICTURES, Beside, Comparable
from .document import Table

UNDEFINED = "–"
NAMES = {
    estimates.BALANCED_ACCURACY: "balanced accuracy",
    estimates.ACCURACY_REAL: "accuracy on real",
    estimates.ACCURACY_SYNTHETIC: "accuracy on synthetic",
    estimates.BEST_ACCURACY: "best accuracy",
    estimates.LOG_LOSS: "log loss",
    estimates.DETECTION_RATE: "detection rate",
}
ONE_CLASS = (estimates.DETECTION_RATE, estimates.ACCURACY_REAL)
COUNTS = ("real", "synthetic", "errors")


def paper_of(analysis: Analysis) -> Comparable | None:
    """The figures of a paper that may stand beside the numbers."""
    reported = analysis.view.published
    return Comparable(reported, analysis) if reported else None


def average_beside(analysis: Analysis, kind: str) -> Beside:
    """A paper's figures beside the average over "generators", "cells" or "pictures"."""
    paper = paper_of(analysis)
    return paper.average(kind) if paper else NOTHING


def cells_beside(analysis: Analysis) -> dict[Cell, Beside]:
    """A paper's figures beside each cell."""
    paper = paper_of(analysis)
    return {cell: paper.cell(cell) if paper else NOTHING for cell in analysis.cells}


@dataclass(frozen=True)
class Line:
    """One line of a table.

    `names` stand first, then the metrics in `values`, each with what a paper has in `beside`.
    `counts`: numbers of pictures, as `COUNTS` names them, where they can be said. `over`: of how
    many a metric's mean is, where that is another number than the line's name says.
    """

    names: Sequence[str]
    values: Mapping[str, Estimate | float]
    beside: Beside = NOTHING
    counts: tuple[int, int, int] | None = None
    over: Mapping[str, int] = field(default_factory=dict)


def line(names: Sequence[str], measured: Metrics, beside: Beside = NOTHING) -> Line:
    """The line of a set of pictures."""
    return Line(names, measured.estimates, beside, counts(measured))


def counts(measured: Metrics) -> tuple[int, int, int]:
    """Numbers of pictures, as `COUNTS` names them."""
    return measured.n_real, measured.n_synthetic, measured.n_errors


def interval_over(group: Group) -> str:
    """What the intervals of a group of generators resample."""
    return "generators and sources" if group.clustered else "pictures"


def percent(estimate: Estimate | float | None, decimals: int = 1) -> str:
    """A fraction as percent, with its interval where it has one: `93.1 [91.0, 94.9]`; an estimate
    that is no fraction as it is: `0.345 [0.301, 0.402]`."""
    if estimate is None:
        return UNDEFINED
    if not isinstance(estimate, Estimate):
        return f"{100 * estimate:.{decimals}f}"
    plain = isinstance(estimate, estimates.PlainEstimate)
    value = f"{estimate.value:.3f}" if plain else f"{100 * estimate.value:.{decimals}f}"
    return f"{value} {interval(estimate, decimals)}".rstrip()


def interval(estimate: Estimate, decimals: int = 1) -> str:
    """The interval of an estimate alone, as `percent` states it; empty where it has none."""
    if math.isnan(estimate.low):
        return ""
    if isinstance(estimate, estimates.PlainEstimate):
        return f"[{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"[{100 * estimate.low:.{decimals}f}, {100 * estimate.high:.{decimals}f}]"


def points(difference: float, decimals: int = 1) -> str:
    """A difference of fractions in percentage points, with its sign: `-2.5`."""
    # Adding zero makes the -0.0 that rounding can leave a plain one.
    return f"{round(100 * difference, decimals) + 0.0:+.{decimals}f}"


def metric_name(metric: str) -> str:
    """The name of a metric as people write it."""
    return NAMES.get(metric, metric)


def columns(lines: Iterable[Line], wanted: Sequence[str]) -> list[str]:
    """The wanted metrics that some line has, and the rate of one class of a line that has nothing
    else."""
    metrics = [set(each.values) for each in lines]
    rates = {name for names in metrics if len(names) == 1 for name in names}
    shown = [name for name in wanted if any(name in names for names in metrics if len(names) > 1)]
    return shown + [name for name in ONE_CLASS if name in rates and name not in shown]


@dataclass(frozen=True)
class _Column:
    """A metric in a table: whether any line has a paper's figure that is `compared` with it, and
    whether any has one `of_others`, of other pictures. `decimals`: of the figures."""

    metric: str
    compared: bool
    of_others: bool
    decimals: int

    def header(self) -> list[str]:
        """The metric's name, and what stands over the figures beside it."""
        beside = ["published", "difference"] if self.compared else []
        return [metric_name(self.metric), *beside, *([OTHER_PICTURES] if self.of_others else [])]

    def cells(self, row: Line) -> list[str]:
        """A line's value, a paper's figure and the difference, a figure of other pictures."""
        value = row.values.get(self.metric)
        over = f" (over {row.over[self.metric]})" if self.metric in row.over else ""
        cells = [percent(value, self.decimals) + over]
        if self.compared:
            figure = row.beside.published.get(self.metric)
            cells += [self._figure(figure), self._difference(value, figure)]
        if self.of_others:
            cells.append(self._figure(row.beside.reported.get(self.metric)))
        return cells

    def _figure(self, figure: float | None) -> str:
        return UNDEFINED if figure is None else f"{figure:.{self.decimals}f}"

    def _difference(self, value: Estimate | float | None, figure: float | None) -> str:
        """Ours minus the paper's, in percentage points."""
        if value is None or figure is None:
            return UNDEFINED
        ours = value.value if isinstance(value, Estimate) else value
        return points(ours - figure / 100, self.decimals)


def numbers(
    heads: Sequence[str],
    lines: Sequence[Line],
    wanted: Sequence[str],
    counted: bool = True,
    decimals: Mapping[str, int] = {},
) -> Table:
    """A table of metrics, each followed by what a paper has where any line has it.

    Args:
        heads: what stands over the names of the lines.
        lines: a row each.
        wanted: metrics to show, as far as `columns` finds them.
        counted: whether the numbers of pictures are shown.
        decimals: how many the paper gives of a metric; one where it has no figures.
    """
    shown: list[_Column] = []
    for metric in columns(lines, wanted):
        compared = any(metric in each.beside.published for each in lines)
        of_others = any(metric in each.beside.reported for each in lines)
        places = decimals.get(metric, 1) if compared or of_others else 1
        shown.append(_Column(metric, compared, of_others, places))
    header = [*heads, *(COUNTS if counted else ())]
    header += [title for column in shown for title in column.header()]
    rows = []
    for each in lines:
        known = [""] * len(COUNTS) if each.counts is None else list(map(str, each.counts))
        cells = [cell for column in shown for cell in column.cells(each)]
        rows.append([*each.names, *(known if counted else ()), *cells])
    return Table(header, rows, names=len(heads))
