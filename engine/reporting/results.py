"""The files of an evaluation for programs: CO-SPY's result.json, output.json and log, metrics.json.

Phase eval writes them beside the report. Their names and their layout are what other programs read:
nothing here may change them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation import metrics
from ..evaluation.analysis import WHOLE, Analysis, View, by_degradation
from ..evaluation.cells import Cell, by_cell, labels_logits, reason_unusable
from ..evaluation.estimates import Estimate, Metrics
from ..evaluation.periods import Group
from ..evaluation.reported import OTHER_PICTURES, Beside
from ..scoring.table import ScoreRow
from .tables import COUNTS, average_beside, cells_beside, counts, interval_over

COSPY_METRICS = ("AP", "Accuracy")  # of result.json


def _cospy_cells(rows: Sequence[ScoreRow], view: View) -> dict[Cell, list[ScoreRow]]:
    """The cells of the base; of a table without synthetic pictures, each source's reals as "real".

    Where the sources are empty, or each is named as its one generator, the data set's name takes
    their place.
    """
    base = next(iter(by_degradation(rows, view.base).values()), [])
    cells = by_cell(base, view.pairing)
    if not cells:
        for row in base:
            if row.label == 0:
                cells.setdefault((row.source, "real"), []).append(row)
    if view.dataset and all(source in ("", generator) for source, generator in cells):
        return {(view.dataset, generator): members for (_, generator), members in cells.items()}
    return cells


def result_json(
    rows: Sequence[ScoreRow], threshold: float, view: View = WHOLE, analysis: Analysis | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """CO-SPY's result.json: source -> generator -> size, AP and Accuracy, as fractions; of the
    cells of an `analysis` of the same rows also what stands beside them, by metric.

    `size` counts the cell's pictures that have a score, real and synthetic. AP is None where a
    class is missing, Accuracy where there is no score.
    """
    result: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for (source, generator), members in _cospy_cells(rows, view).items():
        labels, logits = labels_logits(members)
        both = 0 < labels.sum() < labels.size
        result[source][generator] = {
            "size": labels.size,
            "AP": metrics.average_precision(labels, logits) if both else None,
            "Accuracy": metrics.accuracy(labels, logits, threshold) if labels.size else None,
        }
    for (source, generator), beside in cells_beside(analysis).items() if analysis else ():
        result[source if source in result else view.dataset][generator] |= _fractions(beside)
    return dict(result)


def _fractions(beside: Beside) -> dict[str, dict[str, float]]:
    """A paper's figures as fractions: metric -> value, under `published` where they are of the same
    pictures. Empty without any."""
    tables = {"published": beside.published, OTHER_PICTURES: beside.reported}
    return {
        name: {metric: round(value / 100, 6) for metric, value in figures.items()}
        for name, figures in tables.items()
        if figures
    }


def log_lines(
    result: Mapping[str, Mapping[str, Mapping[str, float | None]]], name: str
) -> list[str]:
    """CO-SPY's lines of evaluation.log: one for each cell of `result_json`, and their mean.

    Percent; nan where a metric is not defined, which the mean leaves out. `name`: of the benchmark
    or the data; a source without a name is left out.
    """

    def figures(cells: Sequence[Mapping[str, float | None]]) -> str:
        texts = []
        for metric in COSPY_METRICS:
            values = [value for cell in cells if (value := cell[metric]) is not None]
            mean = sum(values) / len(values) if values else math.nan
            texts.append(f"{metric} {100 * mean:.2f}%")
        return " | ".join(texts)

    cells = {(s, g): cell for s, generators in result.items() for g, cell in generators.items()}
    lines = [
        f"Evaluate on {' - '.join(filter(None, (name, *at)))} | Size {cell['size']} | "
        f"{figures([cell])}"
        for at, cell in cells.items()
    ]
    mean = f"Average Performance on {name} | {figures(list(cells.values()))}"
    return [*lines, mean] if lines else []


def _triples(values: Mapping[str, Estimate | float]) -> dict[str, list[float | None]]:
    """Metric -> value and the ends of its interval; None for what is infinite or not there."""
    parts = {
        name: value if isinstance(value, Estimate) else (value, math.nan, math.nan)
        for name, value in values.items()
    }
    return {
        name: [part if math.isfinite(part) else None for part in triple]
        for name, triple in parts.items()
    }


def _measured_json(measured: Metrics) -> dict[str, Any]:
    """Numbers of pictures, and the metrics, of a set of pictures."""
    return {
        **dict(zip(COUNTS, counts(measured), strict=True)),
        "metrics": _triples(measured.estimates),
    }


def _groups_json(groups: Mapping[str, Group]) -> dict[str, Any]:
    """The groups of generators by name, in their order."""
    return {
        name: {
            "generators": each.generators,
            "after_training": each.late,
            "interval_over": interval_over(each),
        }
        | _measured_json(each.measured)
        for name, each in groups.items()
    }


def metrics_json(analysis: Analysis) -> dict[str, Any]:
    """Every number of the report for programs: metric -> [value, low, high], fractions."""
    beside = cells_beside(analysis)
    of_averages = {
        average.kind: _fractions(average_beside(analysis, average.kind))
        for average in analysis.averages
    }
    return {
        "threshold": analysis.threshold,
        "degradation": analysis.base,
        "min_pictures": analysis.view.min_pictures,
        "pooled": _measured_json(analysis.pooled) | of_averages["pictures"],
        "over_generators_and_sources": {
            "generators": analysis.clusters[0],
            "sources": analysis.clusters[1],
            "metrics": _triples(analysis.clustered),
        },
        "averages": [
            {
                "over": average.kind,
                "headline": average.headline,
                "number": average.number,
                "left_out": average.left_out,
                "metrics": _triples({**average.values, **average.estimates}),
            }
            | of_averages[average.kind]
            for average in analysis.averages
            if average.kind != "pictures"
        ],
        "cells": [
            {"generator": generator, "source": source, "in_mean": analysis.view.counts(measured)}
            | _measured_json(measured)
            | _fractions(beside[source, generator])
            for (source, generator), measured in analysis.cells.items()
        ],
        "sources": {name: _measured_json(each) for name, each in analysis.sources_real.items()},
        "trained_until": analysis.view.until,
        "years": _groups_json(analysis.years),
        "families": _groups_json(analysis.families),
        "degradations": {
            name: _measured_json(each.pooled) for name, each in analysis.degradations.items()
        },
        "hints": list(analysis.hints),
    }


def output_json(
    rows: Sequence[ScoreRow], view: View = WHOLE
) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """CO-SPY's output.json: source -> generator -> y_pred (scores) and y_true, reals included."""
    result: defaultdict[str, dict[str, dict[str, list[Any]]]] = defaultdict(dict)
    for (source, generator), members in _cospy_cells(rows, view).items():
        usable = [row for row in members if not reason_unusable(row)]
        result[source][generator] = {
            "y_pred": [row.score for row in usable],
            "y_true": [row.label for row in usable],
        }
    return dict(result)
