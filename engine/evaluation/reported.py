"""Published figures beside measured ones: only those of the same pictures are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .analysis import Analysis
from .benchmark import as_stated
from .benchmark_file import Published
from .cells import Cell

Figures = Mapping[str, float]  # metric -> percent
OTHER_PICTURES = "reported, other pictures"  # the column of figures that are not compared


@dataclass(frozen=True)
class Beside:
    """What stands beside a line of measured numbers: the figures `published` of the same pictures,
    and those `reported` of others, with which nothing is compared. A metric is in one at most."""

    published: Figures = field(default_factory=dict)
    reported: Figures = field(default_factory=dict)


NOTHING = Beside()


@dataclass(frozen=True)
class Origins:
    """What the published figures beside an analysis are.

    `cells`: some are of single cells. Of the means, some are as `printed`, and some `taken` here of
    the figures of the same cells. `reported`: some are of other pictures.
    """

    cells: bool
    printed: bool
    taken: bool
    reported: bool


def _mean(values: Iterable[float | None]) -> float | None:
    """Their mean; None where one of them is missing, or there are none."""
    known = list(values)
    given = [value for value in known if value is not None]
    return sum(given) / len(given) if given and len(given) == len(known) else None


class Comparable:
    """The published figures that belong to the cells of an analysis.

    A mean that was published counts only where it is of just the generators and sources that have
    its metric here; otherwise, and where none was published, the mean of the published figures of
    the same cells takes its place. A figure is compared where every cell that it is of has as many
    pictures here as is stated of it, and no generator or source is among the figures' `others`.
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

    def same_pictures(self, cell: Cell) -> bool:
        """Whether a cell was measured on the pictures of its published figures, as far as is
        known."""
        found, stated = self.analysis.cells[cell], self.view.facts.stated(*cell)
        return self.published.others.isdisjoint(cell) and all(
            map(as_stated, (found.n_real, found.n_synthetic), stated)
        )

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

    def _mean_as_printed(self, table: str, metric: str, name: str) -> float | None:
        """A mean as it was published, whatever was measured here."""
        value: float | None = getattr(self.published, table).get(metric, {}).get(name)
        return value

    def _printed(self, table: str, metric: str, name: str) -> float | None:
        """A mean as it was published, where it is of just what was measured."""
        if table == "generators":
            whole = self._all_sources(metric, name)
        elif table == "sources":
            whole = self._all_generators(metric, name)
        else:
            whole = self._everything(metric)
        return self._mean_as_printed(table, metric, name) if whole else None

    def _taken(self, table: str, metric: str, name: str) -> float | None:
        """A mean of the published figures of the same cells."""
        cells = self._measured(metric)
        if table == "averages" and name == "generators":
            generators = dict.fromkeys(generator for _, generator in cells)
            return _mean(self._any("generators", metric, generator) for generator in generators)
        if table == "averages" and name == "pictures":
            return None
        return _mean(self._cell(metric, cell) for cell in self._cells_of(table, metric, name))

    def _cells_of(self, table: str, metric: str, name: str) -> list[Cell]:
        """The cells that a mean is over."""
        cells = self._measured(metric)
        if table == "averages":
            return cells
        return [cell for cell in cells if cell[table == "generators"] == name]

    def _any(self, table: str, metric: str, name: str) -> float | None:
        found = self._printed(table, metric, name)
        return self._taken(table, metric, name) if found is None else found

    def _cell(self, metric: str, cell: Cell) -> float | None:
        source, generator = cell
        found = self.published.cells.get(metric, {}).get(source, {}).get(generator)
        if found is None and self.own_reals:
            return self.published.generators.get(metric, {}).get(generator)
        return found

    def _beside(self, figure: Callable[[str], tuple[float | None, bool]]) -> Beside:
        """The figures of all metrics, each with whether it is of the same pictures."""
        published: dict[str, float] = {}
        reported: dict[str, float] = {}
        for metric in self.published.metrics:
            value, same = figure(metric)
            if value is not None:
                (published if same else reported)[metric] = value
        return Beside(published, reported)

    def cell(self, cell: Cell) -> Beside:
        """The figures of a (source, generator)."""
        same = self.same_pictures(cell)
        return self._beside(lambda metric: (self._cell(metric, cell), same))

    def mean(self, table: str, name: str) -> Beside:
        """The figures of a mean: of one of the "generators" over its sources, of one of the
        "sources" over its generators, or of one of the "averages" over "generators", "cells" or
        "pictures"."""

        def figure(metric: str) -> tuple[float | None, bool]:
            value = self._any(table, metric, name)
            if value is None:
                return self._mean_as_printed(table, metric, name), False
            return value, all(map(self.same_pictures, self._cells_of(table, metric, name)))

        return self._beside(figure)

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
        cells = [self.cell(cell) for cell in self.analysis.cells]
        printed = taken = False
        reported = any(found.reported for found in cells)
        for table, name in self._means():
            found = self.mean(table, name)
            reported = reported or bool(found.reported)
            for metric in found.published:
                as_printed = self._printed(table, metric, name) is not None
                printed, taken = printed or as_printed, taken or not as_printed
        return Origins(any(found.published for found in cells), printed, taken, reported)
