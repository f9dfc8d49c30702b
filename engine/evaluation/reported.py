"""Reported figures of papers beside measured numbers: only those of the same pictures compare.

A figure stands beside a cell, or beside a mean over cells; the reports ask for both. No measured
number is ever changed here, and no figure is shown as that of pictures it was not measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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
    """What the reported figures beside an analysis are.

    `cells`: some are of single cells. Of the means, some are as `printed`, and some `taken` here of
    the figures of the same cells. `reported`: some are of other pictures.
    """

    cells: bool
    printed: bool
    taken: bool
    reported: bool


class _Figure(NamedTuple):
    """A figure in percent, whether it is of the `same` pictures, and its origin: `printed` in the
    paper, `taken` here as the mean of its figures, or printed, but a mean over `other` cells."""

    value: float
    same: bool
    origin: Literal["printed", "taken", "other"]


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of all values; None where one of them is missing, or there are none."""
    known = list(values)
    given = [value for value in known if value is not None]
    return sum(given) / len(given) if given and len(given) == len(known) else None


def _beside(figures: Mapping[str, _Figure]) -> Beside:
    """The figures of all metrics, those of the same pictures apart from the others."""
    return Beside(
        {metric: figure.value for metric, figure in figures.items() if figure.same},
        {metric: figure.value for metric, figure in figures.items() if not figure.same},
    )


class Comparable:
    """The reported figures that belong to the cells of an analysis.

    A mean that was printed counts only where it is of just the generators and sources that have
    its metric here; otherwise, and where none was printed, the mean of the reported figures of
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
        not be in the printed mean beside it either."""
        cells = self.analysis.counted
        return [cell for cell, measured in cells.items() if metric in measured.estimates]

    def same_pictures(self, cell: Cell) -> bool:
        """Whether a cell was measured on the pictures of its figures, as far as is known."""
        measured, stated = self.analysis.cells[cell], self.view.facts.stated(*cell)
        return self.published.others.isdisjoint(cell) and all(
            map(as_stated, (measured.n_real, measured.n_synthetic), stated)
        )

    def _all_sources(self, metric: str, generator: str) -> bool:
        """Whether a generator was measured against just the sources of its printed mean."""
        measured = {source for source, name in self._measured(metric) if name == generator}
        return self.own_reals or not self.view.sources or measured == set(self.view.sources)

    def _all_generators(self, metric: str, source: str) -> bool:
        """Whether just the generators of a source's printed mean were measured in it."""
        measured = {generator for name, generator in self._measured(metric) if name == source}
        known = {*self.view.generators, *self.published.cells.get(metric, {}).get(source, {})}
        return measured == known if known else bool(measured)

    def _everything(self, metric: str) -> bool:
        """Whether just what the printed averages are of was measured."""
        table = self.published.cells.get(metric, {})
        cells = {(source, name) for source, row in table.items() for name in row}
        known = {name for _, name in cells} | set(self.view.generators)
        known |= self.published.generators.get(metric, {}).keys()
        measured = set(self._measured(metric))
        generators = {name for _, name in measured}
        return (
            bool(generators)
            and (not known or generators == known)
            and (not cells or cells == measured)
            and all(self._all_sources(metric, name) for name in generators)
        )

    def _of_cell(self, metric: str, cell: Cell) -> float | None:
        """The reported figure of a cell; a generator's own where it has one source alone."""
        source, generator = cell
        value = self.published.cells.get(metric, {}).get(source, {}).get(generator)
        if value is None and self.own_reals:
            return self.published.generators.get(metric, {}).get(generator)
        return value

    def _of_cells(self, metric: str, cells: Iterable[Cell]) -> float | None:
        """The mean of the reported figures of cells."""
        return _mean(self._of_cell(metric, cell) for cell in cells)

    def _chosen(
        self, printed: float | None, whole: bool, taken: float | None, cells: Sequence[Cell]
    ) -> _Figure | None:
        """The figure beside a mean: as `printed` where that is of the `whole` of the same cells,
        else the one `taken` of their figures, else the printed one as that of other pictures."""
        same = all(map(self.same_pictures, cells))
        if printed is not None and whole:
            return _Figure(printed, same, "printed")
        if taken is not None:
            return _Figure(taken, same, "taken")
        return None if printed is None else _Figure(printed, False, "other")

    def _of_generator(self, metric: str, name: str) -> _Figure | None:
        printed = self.published.generators.get(metric, {}).get(name)
        cells = [cell for cell in self._measured(metric) if cell[1] == name]
        taken = self._of_cells(metric, cells)
        return self._chosen(printed, self._all_sources(metric, name), taken, cells)

    def _of_source(self, metric: str, name: str) -> _Figure | None:
        printed = self.published.sources.get(metric, {}).get(name)
        cells = [cell for cell in self._measured(metric) if cell[0] == name]
        taken = self._of_cells(metric, cells)
        return self._chosen(printed, self._all_generators(metric, name), taken, cells)

    def _of_average(self, metric: str, kind: str) -> _Figure | None:
        printed = self.published.averages.get(metric, {}).get(kind)
        cells = self._measured(metric)
        if kind == "cells":
            taken = self._of_cells(metric, cells)
        elif kind == "generators":
            names = dict.fromkeys(generator for _, generator in cells)
            figures = [self._of_generator(metric, name) for name in names]
            taken = _mean(f.value if f and f.origin != "other" else None for f in figures)
        else:  # a figure over pictures does not follow from figures over cells
            taken = None
        return self._chosen(printed, self._everything(metric), taken, cells)

    def _by_metric(self, figure: Callable[[str], _Figure | None]) -> dict[str, _Figure]:
        """The figures of all metrics that have one."""
        figures = {metric: figure(metric) for metric in self.published.metrics}
        return {metric: figure for metric, figure in figures.items() if figure}

    def cell(self, cell: Cell) -> Beside:
        """The figures of a (source, generator)."""
        values = {metric: self._of_cell(metric, cell) for metric in self.published.metrics}
        same = self.same_pictures(cell)
        return _beside({m: _Figure(v, same, "printed") for m, v in values.items() if v is not None})

    def generator(self, name: str) -> Beside:
        """The figures of a generator's mean over its sources."""
        return _beside(self._by_metric(lambda metric: self._of_generator(metric, name)))

    def source(self, name: str) -> Beside:
        """The figures of a source's mean over its generators."""
        return _beside(self._by_metric(lambda metric: self._of_source(metric, name)))

    def average(self, kind: str) -> Beside:
        """The figures of the average over "generators", "cells" or "pictures"."""
        return _beside(self._by_metric(lambda metric: self._of_average(metric, kind)))

    def _means(self) -> Iterator[_Figure]:
        """The figures beside all means that a report of the analysis has."""
        analysis = self.analysis
        names = {
            self._of_average: [average.kind for average in analysis.averages],
            self._of_source: analysis.sources if analysis.crossed else [],
            self._of_generator: [] if self.own_reals else analysis.generators,
        }
        for metric in self.published.metrics:
            for figure_of, of_kind in names.items():
                yield from filter(None, (figure_of(metric, name) for name in of_kind))

    @property
    def origins(self) -> Origins:
        """Where the figures that stand beside the analysis are from."""
        cells = [self.cell(cell) for cell in self.analysis.cells]
        means = list(self._means())
        of_same = {figure.origin for figure in means if figure.same}
        return Origins(
            cells=any(beside.published for beside in cells),
            printed="printed" in of_same,
            taken="taken" in of_same,
            reported=any(beside.reported for beside in cells) or not all(f.same for f in means),
        )
