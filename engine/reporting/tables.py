"""Tables of metrics as text: percents, their intervals, and published figures beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..evaluation import estimates
from ..evaluation.estimates import Estimate, Metrics
from ..evaluation.reported import NOTHING, OTHER_PICTURES, Beside
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


@dataclass(frozen=True)
class Line:
    """One line of a table: its names, its metrics, the figures of others that stand beside it, how
    many pictures it is about, where that can be said, and over how many the mean of a metric is,
    where that is another number than is said beside it."""

    names: Sequence[str]
    values: Mapping[str, Estimate | float]
    beside: Beside = NOTHING
    counts: tuple[int, int, int] | None = None
    over: Mapping[str, int] = field(default_factory=dict)


def line(names: Sequence[str], found: Metrics, beside: Beside = NOTHING) -> Line:
    """The line of a set of pictures."""
    return Line(names, found.estimates, beside, counts(found))


def counts(found: Metrics) -> tuple[int, int, int]:
    """How many pictures there are, as `COUNTS` names them."""
    return found.n_real, found.n_synthetic, found.n_errors


def percent(estimate: Estimate | float | None, decimals: int = 1) -> str:
    """A fraction as percent, with its interval where it has one: `93.1 [91.0, 94.9]`; an estimate
    that is no fraction as it is: `0.345 [0.301, 0.402]`."""
    if estimate is None:
        return UNDEFINED
    if not isinstance(estimate, Estimate):
        return f"{100 * estimate:.{decimals}f}"
    plain = isinstance(estimate, estimates.PlainEstimate)
    value = f"{estimate.value:.3f}" if plain else f"{100 * estimate.value:.{decimals}f}"
    found = interval(estimate, decimals)
    return f"{value} {found}" if found else value


def interval(estimate: Estimate, decimals: int = 1) -> str:
    """Its interval alone, as `percent` states it; empty where it has none."""
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
    """A metric's name as people write it."""
    return NAMES.get(metric, metric)


def columns(lines: Iterable[Line], wanted: Sequence[str]) -> list[str]:
    """The wanted metrics that some line has, a rate of one class where a line has nothing else."""
    held = [set(each.values) for each in lines]
    rates = {name for names in held if len(names) == 1 for name in names}
    found = [name for name in wanted if any(name in names for names in held if len(names) > 1)]
    return found + [name for name in ONE_CLASS if name in rates and name not in found]


def _difference(value: Estimate | float | None, theirs: float | None, decimals: int) -> str:
    """Ours minus the published figure, in percentage points."""
    if value is None or theirs is None:
        return UNDEFINED
    plain = value.value if isinstance(value, Estimate) else value
    return points(plain - theirs / 100, decimals)


def _metric(
    each: Line, name: str, decimals: int | None, compared: bool, reported: bool
) -> list[str]:
    """What a line says about a metric: its value; if any line is `compared`, what was published and
    the difference; if any has figures `reported` of other pictures, these. `decimals`: of figures,
    None where the table has none."""
    value = each.values.get(name)
    over = f" (over {each.over[name]})" if name in each.over else ""
    if decimals is None:
        return [percent(value) + over]

    def shown(figure: float | None) -> str:
        return UNDEFINED if figure is None else f"{figure:.{decimals}f}"

    cells = [percent(value, decimals) + over]
    if compared:
        theirs = each.beside.published.get(name)
        cells += [shown(theirs), _difference(value, theirs, decimals)]
    return [*cells, *([shown(each.beside.reported.get(name))] if reported else [])]


def numbers(
    heads: Sequence[str],
    lines: Sequence[Line],
    wanted: Sequence[str],
    counted: bool = True,
    decimals: Mapping[str, int] = {},
) -> Table:
    """A table of the wanted metrics, each followed by what was published and the difference where
    any line has it, and by what was reported of other pictures. `heads` stand over the lines'
    names, `counted` adds numbers of pictures. `decimals`: how many the figures of a metric were
    published with."""
    shown = columns(lines, wanted)
    compared = {name for name in shown if any(name in each.beside.published for each in lines)}
    reported = {name for name in shown if any(name in each.beside.reported for each in lines)}
    header = [*heads, *(COUNTS if counted else ())]
    for name in shown:
        header += [metric_name(name), *(("published", "difference") if name in compared else ())]
        header += [OTHER_PICTURES] if name in reported else []
    rows = []
    for each in lines:
        row = list(each.names)
        if counted:
            row += [""] * len(COUNTS) if each.counts is None else map(str, each.counts)
        for name in shown:
            of_others = name in compared, name in reported
            row += _metric(
                each, name, decimals.get(name, 1) if any(of_others) else None, *of_others
            )
        rows.append(row)
    return Table(header, rows, names=len(heads))
