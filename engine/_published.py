"""Published figures beside measured ones: which of them say something about the same pictures."""

from __future__ import annotations

from collections.abc import Iterable

from ._analysis import Analysis
from .benchmark import Published
from .metrics import Cell

Figures = dict[str, float]  # metric -> percent


def _mean(values: Iterable[float | None]) -> float | None:
    """Their mean; None where one of them is missing, or there are none."""
    known = list(values)
    given = [value for value in known if value is not None]
    return sum(given) / len(given) if given and len(given) == len(known) else None


class Comparable:
    """The published figures that belong to the cells of an analysis.

    A mean that was published counts only where all of its cells were measured here; otherwise, and
    where none was published, the mean of the published figures of the same cells takes its place.
    """

    def __init__(self, published: Published, analysis: Analysis) -> None:
        self.published = published
        self.cells = list(analysis.cells)
        self.generators = {generator for _, generator in self.cells}
        # There a generator's figure is a mean over sources.
        self.own_reals = analysis.view.pairing.mode == "own" and not analysis.crossed

    def _whole(self, metric: str, source: str | None = None) -> bool:
        """Whether every cell (of a source) and generator with a figure was measured."""
        sources = self.published.cells.get(metric, {})
        cells = {
            (name, generator)
            for name, row in sources.items()
            if source in (None, name)
            for generator in row
        }
        generators = self.published.generators.get(metric, {}).keys()
        return cells <= set(self.cells) and generators <= self.generators

    def _cell(self, metric: str, cell: Cell) -> float | None:
        source, generator = cell
        found = self.published.cells.get(metric, {}).get(source, {}).get(generator)
        if found is None and self.own_reals:
            return self.published.generators.get(metric, {}).get(generator)
        return found

    def _generator(self, metric: str, generator: str) -> float | None:
        found = self.published.generators.get(metric, {}).get(generator)
        if found is not None:
            return found
        return _mean(self._cell(metric, cell) for cell in self.cells if cell[1] == generator)

    def _source(self, metric: str, source: str) -> float | None:
        found = self.published.sources.get(metric, {}).get(source)
        if found is not None and self._whole(metric, source):
            return found
        return _mean(self._cell(metric, cell) for cell in self.cells if cell[0] == source)

    def _average(self, metric: str, kind: str) -> float | None:
        found = self.published.averages.get(metric, {}).get(kind)
        if found is not None and self._whole(metric):
            return found
        if kind == "generators":
            return _mean(self._generator(metric, name) for name in sorted(self.generators))
        return _mean(self._cell(metric, cell) for cell in self.cells) if kind == "cells" else None

    def _known(self, found: Iterable[tuple[str, float | None]]) -> Figures:
        return {metric: value for metric, value in found if value is not None}

    def cell(self, cell: Cell) -> Figures:
        """The figures of a (source, generator)."""
        return self._known((name, self._cell(name, cell)) for name in self.published.metrics)

    def generator(self, name: str) -> Figures:
        """Those of a generator, the mean over its sources."""
        return self._known((m, self._generator(m, name)) for m in self.published.metrics)

    def source(self, name: str) -> Figures:
        """Those of a source, the mean over its generators."""
        return self._known((m, self._source(m, name)) for m in self.published.metrics)

    def average(self, kind: str) -> Figures:
        """Those of a mean over "generators", "cells" or "pictures"."""
        return self._known((m, self._average(m, kind)) for m in self.published.metrics)
