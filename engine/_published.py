"""Published figures beside measured ones: which of them say something about the same pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ._analysis import Analysis
from .benchmark import Published
from .metrics import Cell

Figures = dict[str, float]  # metric -> percent


@dataclass(frozen=True)
class Origins:
    """What the published figures beside an analysis are.

    `cells`: some are of single cells. Of the means, some are as `printed`, some `taken` here of the
    figures of the same cells, and some are `left_out`, for they are of other cells.
    """

    cells: bool
    printed: bool
    taken: bool
    left_out: bool


def _mean(values: Iterable[float | None]) -> float | None:
    """Their mean; None where one of them is missing, or there are none."""
    known = list(values)
    given = [value for value in known if value is not None]
    return sum(given) / len(given) if given and len(given) == len(known) else None


class Comparable:
    """The published figures that belong to the cells of an analysis.

    A mean that was published counts only where it is of just the generators and sources that have
    its metric here; otherwise, and where none was published, the mean of the published figures of
    the same cells takes its place.
    """

    def __init__(self, published: Published, analysis: Analysis) -> None:
        self.published = published
        self.analysis = analysis
        self.view = analysis.view
        # There a generator's figure is a mean over sources.
        self.own_reals = self.view.pairing.mode == "own" and not analysis.crossed

    def _measured(self, metric: str) -> list[Cell]:
        """The cells that have a metric and enter the means here: one that is left out of ours must
        not be in the published mean beside it either."""
        cells = self.analysis.counted
        return [cell for cell, found in cells.items() if metric in found.estimates]

    def _all_sources(self, metric: str, generator: str) -> bool:
        """Whether a generator was measured against just the sources of its published mean."""
        found = {source for source, name in self._measured(metric) if name == generator}
        return self.own_reals or not self.view.sources or found == set(self.view.sources)

    def _all_generators(self, metric: str, source: str) -> bool:
        """Whether just the generators of a source's published mean were measured in it."""
        found = {name for place, name in self._measured(metric) if place == source}
        known = {*self.view.generators, *self.published.cells.get(metric, {}).get(source, {})}
        return found == known if known else bool(found)

    def _everything(self, metric: str) -> bool:
        """Whether just what the published averages are of was measured."""
        table = self.published.cells.get(metric, {})
        cells = {(source, name) for source, row in table.items() for name in row}
        known = {name for _, name in cells} | set(self.view.generators)
        known |= self.published.generators.get(metric, {}).keys()
        measured = set(self._measured(metric))
        found = {name for _, name in measured}
        return (
            bool(found)
            and (not known or found == known)
            and (not cells or cells == measured)
            and all(self._all_sources(metric, name) for name in found)
        )

    def _printed(self, table: str, metric: str, name: str) -> float | None:
        """A mean as it was published, where it is of just what was measured."""
        value: float | None = getattr(self.published, table).get(metric, {}).get(name)
        if table == "generators":
            whole = self._all_sources(metric, name)
        elif table == "sources":
            whole = self._all_generators(metric, name)
        else:
            whole = self._everything(metric)
        return value if whole else None

    def _taken(self, table: str, metric: str, name: str) -> float | None:
        """A mean of the published figures of the same cells."""
        cells = self._measured(metric)
        if table == "averages" and name == "generators":
            generators = dict.fromkeys(generator for _, generator in cells)
            return _mean(self._any("generators", metric, generator) for generator in generators)
        if table == "averages" and name == "pictures":
            return None
        if table != "averages":
            cells = [cell for cell in cells if cell[table == "generators"] == name]
        return _mean(self._cell(metric, cell) for cell in cells)

    def _any(self, table: str, metric: str, name: str) -> float | None:
        found = self._printed(table, metric, name)
        return self._taken(table, metric, name) if found is None else found

    def _cell(self, metric: str, cell: Cell) -> float | None:
        source, generator = cell
        found = self.published.cells.get(metric, {}).get(source, {}).get(generator)
        if found is None and self.own_reals:
            return self.published.generators.get(metric, {}).get(generator)
        return found

    def _known(self, found: Iterable[tuple[str, float | None]]) -> Figures:
        return {metric: value for metric, value in found if value is not None}

    def cell(self, cell: Cell) -> Figures:
        """The figures of a (source, generator)."""
        return self._known((name, self._cell(name, cell)) for name in self.published.metrics)

    def generator(self, name: str) -> Figures:
        """Those of a generator, the mean over its sources."""
        return self._known((m, self._any("generators", m, name)) for m in self.published.metrics)

    def source(self, name: str) -> Figures:
        """Those of a source, the mean over its generators."""
        return self._known((m, self._any("sources", m, name)) for m in self.published.metrics)

    def average(self, kind: str) -> Figures:
        """Those of a mean over "generators", "cells" or "pictures"."""
        return self._known((m, self._any("averages", m, kind)) for m in self.published.metrics)

    def _means(self) -> Iterator[tuple[str, str]]:
        """The means of the analysis: the table that one was published in, and its name there."""
        yield from (("averages", average.kind) for average in self.analysis.averages)
        if self.analysis.crossed:
            yield from (("sources", name) for name in self.analysis.sources)
        if not self.own_reals:
            yield from (("generators", name) for name in self.analysis.generators)

    @property
    def origins(self) -> Origins:
        """Where the figures that stand beside the analysis are from."""
        printed = taken = left_out = False
        for metric in self.published.metrics:
            for table, name in self._means():
                if self._printed(table, metric, name) is not None:
                    printed = True
                elif self._taken(table, metric, name) is not None:
                    taken = True
                elif name in getattr(self.published, table).get(metric, {}):
                    left_out = True
        cells = any(self.cell(cell) for cell in self.analysis.cells)
        return Origins(cells, printed, taken, left_out)
