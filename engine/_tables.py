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
    """One line of a table: its names, its metrics, the figures published for it in percent, and
    how many pictures it is about, where that can be said."""

    names: Sequence[str]
    values: Mapping[str, Estimate | float]
    published: Mapping[str, float] = field(default_factory=dict)
    counts: tuple[int, int, int] | None = None


def line(names: Sequence[str], found: Metrics, published: Mapping[str, float]) -> Line:
    """The line of a set of pictures."""
    return Line(names, found.estimates, published, counts(found))


def counts(found: Metrics) -> tuple[int, int, int]:
    """How many pictures there are, as `COUNTS` names them."""
    return found.n_real, found.n_synthetic, found.n_errors


def percent(estimate: Estimate | float | None) -> str:
    """A fraction as percent, with its interval where it has one: `93.1 [91.0, 94.9]`; an estimate
    that is no fraction as it is: `0.345 [0.301, 0.402]`."""
    if estimate is None:
        return UNDEFINED
    if isinstance(estimate, Estimate):
        plain = isinstance(estimate, metrics.PlainEstimate)
        value, low, high = (f"{part:.3f}" if plain else f"{100 * part:.1f}" for part in estimate)
        return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"
    return f"{100 * estimate:.1f}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign: `-2.5`."""
    # Adding zero makes the -0.0 that rounding can leave a plain one.
    return f"{round(100 * difference, 1) + 0.0:+.1f}"


def metric_name(metric: str) -> str:
    """A metric's name as people write it."""
    return NAMES.get(metric, metric)


def columns(lines: Iterable[Line], wanted: Sequence[str]) -> list[str]:
    """The wanted metrics that some line has, a rate of one class where a line has nothing else."""
    held = [set(each.values) for each in lines]
    rates = {name for names in held if len(names) == 1 for name in names}
    found = [name for name in wanted if any(name in names for names in held if len(names) > 1)]
    return found + [name for name in ONE_CLASS if name in rates and name not in found]


def _metric(each: Line, name: str, published: bool) -> list[str]:
    value = each.values.get(name)
    if not published:
        return [percent(value)]
    theirs = each.published.get(name)
    if value is None or theirs is None:
        return [percent(value), UNDEFINED if theirs is None else f"{theirs:.1f}", UNDEFINED]
    ours = value.value if isinstance(value, Estimate) else value
    return [percent(value), f"{theirs:.1f}", points(ours - theirs / 100)]


def numbers(
    heads: Sequence[str], lines: Sequence[Line], wanted: Sequence[str], counted: bool = True
) -> Table:
    """A table of the wanted metrics, each followed by what was published and the difference where
    any line has it. `heads` stand over the lines' names, `counted` adds numbers of pictures."""
    shown = columns(lines, wanted)
    compared = {name for name in shown if any(name in each.published for each in lines)}
    header = [*heads, *(COUNTS if counted else ())]
    for name in shown:
        header += [metric_name(name), *(("published", "difference") if name in compared else ())]
    rows = []
    for each in lines:
        row = list(each.names)
        if counted:
            row += [""] * len(COUNTS) if each.counts is None else map(str, each.counts)
        for name in shown:
            row += _metric(each, name, name in compared)
        rows.append(row)
    return Table(header, rows, names=len(heads))
