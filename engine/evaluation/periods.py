"""Metrics by the year in which generators came out, and by their family.

`analysis` calls this for a table whose pictures anything is known of. The synthetic pictures of a
group stand against all real ones of the table, so that groups differ by generators alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from datasets._dates import is_by

from ..scoring.table import ScoreRow
from . import clusters, metrics
from .estimates import FEWEST, Metrics
from .generators import Release

UNKNOWN_DATE, UNKNOWN_FAMILY = "unknown date", "unknown family"
AFTER = ", after training"


@dataclass(frozen=True)
class Group:
    """The metrics of some generators together. `clustered`: whether their intervals resample
    generators and sources, as from `FEWEST` generators on, or pictures alone. `late`: whether the
    generators came out after those that the weights were trained on."""

    measured: Metrics
    generators: int
    clustered: bool
    late: bool = False


def _measure(rows: Sequence[ScoreRow], drawing: tuple[float, int, int]) -> Group:
    """The metrics of synthetic pictures and the real ones that they stand against."""
    threshold, resamples, seed = drawing
    generators, _ = clusters.numbers(rows)
    clustered = generators >= FEWEST
    measured = metrics.evaluate_rows(rows, threshold, 0 if clustered else resamples, seed)
    if clustered:
        wider = clusters.intervals(rows, measured, threshold, resamples, seed)
        measured = replace(measured, estimates=wider)
    return Group(measured, generators, clustered)


def _grouped(
    rows: Sequence[ScoreRow],
    name_of: Callable[[ScoreRow], str],
    drawing: tuple[float, int, int],
) -> dict[str, Group]:
    """The groups of the synthetic pictures, sorted by name, those of unknown ones last."""
    reals = [row for row in rows if row.label == 0]
    fakes: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.label == 1:
            fakes[name_of(row)].append(row)
    names = sorted(fakes, key=lambda name: (name in (UNKNOWN_DATE, UNKNOWN_FAMILY), name))
    return {name: _measure([*reals, *fakes[name]], drawing) for name in names}


def by_year(
    rows: Sequence[ScoreRow],
    releases: Mapping[str, Release],
    until: str,
    drawing: tuple[float, int, int],
) -> dict[str, Group]:
    """Year -> the metrics of the generators that came out in it; none where no date is known.

    Args:
        rows: of one degradation.
        releases: of synthetic pictures by their keys.
        until: the end of the year or month up to which the weights know generators, '' = not known.
            What came out later is a group of its own, its name with `AFTER`; and all up to then,
            and all after, are groups, too.
        drawing: threshold, resamples and seed, as in `metrics.evaluate_rows`.
    """
    dates = {key: release.date for key, release in releases.items() if release.date}
    if not any(row.key in dates for row in rows):
        return {}

    def late(row: ScoreRow) -> bool:
        return bool(until) and not is_by(dates[row.key], until)

    def year(row: ScoreRow) -> str:
        if row.key not in dates:
            return UNKNOWN_DATE
        return dates[row.key][:4] + (AFTER if late(row) else "")

    groups = _grouped(rows, year, drawing)
    if until:
        dated = [row for row in rows if row.label == 0 or row.key in dates]
        groups |= _grouped(
            dated, lambda row: f"all {'after' if late(row) else 'up to'} {until}", drawing
        )
    late_names = (AFTER, f"all after {until}")
    return {name: replace(g, late=name.endswith(late_names)) for name, g in groups.items()}


def by_family(
    rows: Sequence[ScoreRow], releases: Mapping[str, Release], drawing: tuple[float, int, int]
) -> dict[str, Group]:
    """Family -> the metrics of its generators; none where no family is known. Arguments as in
    `by_year`."""
    families = {key: release.family for key, release in releases.items() if release.family}
    if not any(row.key in families for row in rows):
        return {}
    return _grouped(rows, lambda row: families.get(row.key, UNKNOWN_FAMILY), drawing)
