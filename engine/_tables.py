"""Tables of metrics as text: percents, their intervals, and published figures beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from . import metrics
from ._document import Table
from .metrics import Estimate, Metrics

UNDEFINED = "–"
NAMES = {
    metrics.BALANCED_ACCURACY: "balanced accuracy",
    metrics.ACCURACY_REAL: "accuracy on real",
    metrics.ACCURACY_SYNTHETIC: "accuracy on synthetic",
    metrics.BEST_ACCURACY: "best accuracy",
    metrics.LOG_LOSS: "log loss",
    metrics.DETECTION_RATE: "detection rate",
}
ONE_CLASS = (metrics.DETECTION_RATE, metrics.ACCURACY_REAL)
COUNTS = ("real", "synthetic", "errors")


@dataclass(frozen=True)
class Line:
    """One line of a table: its names, its metrics, the figures published for it in percent, how
    many pictures it is about, where that can be said, and over how many the mean of a metric is,
    where that is another number than is said beside it."""

    names: Sequence[str]
    values: Mapping[str, Estimate | float]
    published: Mapping[str, float] = field(default_factory=dict)
    counts: tuple[int, int, int] | None = None
    over: Mapping[str, int] = field(default_factory=dict)


def line(names: Sequence[str], found: Metrics, published: Mapping[str, float]) -> Line:
    """The line of a set of pictures."""
    return Line(names, found.estimates, published, counts(found))


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
    plain = isinstance(estimate, metrics.PlainEstimate)
    value = f"{estimate.value:.3f}" if plain else f"{100 * estimate.value:.{decimals}f}"
    found = interval(estimate, decimals)
    return f"{value} {found}" if found else value


def interval(estimate: Estimate, decimals: int = 1) -> str:
    """Its interval alone, as `percent` states it; empty where it has none."""
    if math.isnan(estimate.low):
        return ""
    if isinstance(estimate, metrics.PlainEstimate):
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


def _metric(each: Line, name: str, decimals: int | None) -> list[str]:
    """What a line says about a metric: its value; with so many `decimals` also what was published,
    and the difference."""
    value = each.values.get(name)
    over = f" (over {each.over[name]})" if name in each.over else ""
    if decimals is None:
        return [percent(value) + over]
    ours, theirs = percent(value, decimals) + over, each.published.get(name)
    if value is None or theirs is None:
        return [ours, UNDEFINED if theirs is None else f"{theirs:.{decimals}f}", UNDEFINED]
    plain = value.value if isinstance(value, Estimate) else value
    return [ours, f"{theirs:.{decimals}f}", points(plain - theirs / 100, decimals)]


def numbers(
    heads: Sequence[str],
    lines: Sequence[Line],
    wanted: Sequence[str],
    counted: bool = True,
    decimals: Mapping[str, int] = {},
) -> Table:
    """A table of the wanted metrics, each followed by what was published and the difference where
    any line has it. `heads` stand over the lines' names, `counted` adds numbers of pictures.
    `decimals`: how many the figures of a metric were published with."""
    shown = columns(lines, wanted)
    compared = {
        name: decimals.get(name, 1)
        for name in shown
        if any(name in each.published for each in lines)
    }
    header = [*heads, *(COUNTS if counted else ())]
    for name in shown:
        header += [metric_name(name), *(("published", "difference") if name in compared else ())]
    rows = []
    for each in lines:
        row = list(each.names)
        if counted:
            row += [""] * len(COUNTS) if each.counts is None else map(str, each.counts)
        for name in shown:
            row += _metric(each, name, compared.get(name))
        rows.append(row)
    return Table(header, rows, names=len(heads))
