"""The report of an evaluation: every table and plot that a saved per-picture table gives."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..evaluation import metrics
from ..evaluation.analysis import WHOLE, Analysis, View, analyse, by_degradation, worst_errors
from ..evaluation.cells import Cell, by_cell, labels_logits, reason_unusable
from ..evaluation.estimates import Estimate, Metrics
from ..evaluation.reported import OTHER_PICTURES, Beside
from ..runtime.files import write_file
from ..scoring.table import ScoreRow
from . import plots as _plots
from . import sections
from .document import Gallery, to_html, to_markdown, to_text
from .sections import ERRORS
from .tables import Line, numbers, percent

__all__ = (
    "FILES", "Analysis", "View", "analyse", "log_lines", "metrics_json", "output_json", "percent",
    "result_json", "summary_text", "worst_errors", "write_report",
)  # fmt: skip
FILES = ("report.md", "report.html", *_plots.CAPTIONS, ERRORS)
PUBLISHED_METRICS = ("AP", "Accuracy")  # of result.json
# More cells than that are printed as means over sources and over generators.
MOST_CELLS = 30


def write_report(
    folder: Path,
    rows: Sequence[ScoreRow],
    threshold: float,
    run: Mapping[str, Any],
    title: str,
    analysis: Analysis | None = None,
    thumbnails: Mapping[str, bytes] = {},
) -> list[Path]:
    """Writes report.md, report.html and the plots into `folder`; the files that were written.

    `threshold` is a probability; `run` any nested description of the run; `analysis`, where the
    caller has it, that of these rows at this threshold; `thumbnails` JPEGs of the `worst_errors` of
    `analysis.rows` by key. Plots of an earlier report that this one does not have are removed.
    Without matplotlib there are none, and the report says so.
    """
    found = analysis or analyse(rows, threshold)
    try:
        images = _plots.draw(found)
        plots: list[str] | None = list(images)
    except ImportError:
        images, plots = {}, None
    worst = worst_errors(found.rows, threshold)
    blocks = [
        *sections.overall(found),
        *sections.groups(found),
        *sections.real_sources(found),
        *sections.sweep(found),
        *sections.errors(worst, thumbnails),
        *sections.plots(plots, _plots.CAPTIONS),
        *sections.unreadable(found),
        *sections.run(run),
    ]
    files = {
        **images,
        "report.md": to_markdown(title, blocks).encode(),
        "report.html": to_html(title, blocks, images).encode(),
    }
    if any(isinstance(block, Gallery) for block in blocks):
        files[ERRORS] = sections.errors_sheet(worst, thumbnails)
    folder.mkdir(parents=True, exist_ok=True)
    for name in set(FILES) - files.keys():
        (folder / name).unlink(missing_ok=True)
    return [write_file(folder / name, content) for name, content in files.items()]


def _summary_lines(analysis: Analysis) -> list[Line]:
    lines = sections.average_lines(analysis)
    split = 2 if analysis.clustered else 1
    pooled, averages, crossed = lines[:split], lines[split:], analysis.crossed
    if crossed and len(analysis.cells) > MOST_CELLS:
        sources = [
            replace(each, names=[f"source {each.names[0]}"])
            for each in sections.source_lines(analysis)
        ]
        return [*pooled, *sources, *sections.generator_lines(analysis), *averages]
    counted, few = (
        [
            replace(each, names=[f"{source}/{generator}{mark}" if crossed else generator + mark])
            for each in sections.cell_lines(analysis, entering)
            for generator, source in [each.names]
        ]
        for entering, mark in ((True, ""), (False, ", in no mean"))
    )
    return [*pooled, *counted, *averages, *few]


def summary_text(
    rows: Sequence[ScoreRow], threshold: float, analysis: Analysis | None = None
) -> str:
    """A plain table of percents: all pictures, a line per cell (or, of many, per source and per
    generator), the means; a second one for a sweep of degradations; aligned.

    `threshold` is a probability; `analysis`, where the caller has it, that of these rows. Where
    there are published figures, the metrics that they are of are shown.
    """
    found = analysis or analyse(rows, threshold)
    published = found.view.published
    lines = _summary_lines(found)
    compared = [name for name in published.metrics if published] if published else []
    beside = [{**each.beside.published, **each.beside.reported} for each in lines]
    if not any(name in figures for figures in beside for name in compared):
        compared = []
    wanted, decimals = compared or sections.SHORT, sections.decimals(found)
    parts = [to_text(numbers(["percent [95 % interval]"], lines, wanted, decimals=decimals))]
    if len(lines) < len(found.cells):
        parts.append(
            f"Lines of sources and of generators are means; report.md has all {len(found.cells)} "
            "cells."
        )
    parts += filter(None, (sections.few_note(found), *sections.published_notes(found)))
    if found.degradations:
        swept = sections.swept_lines(found, True)
        parts.append(to_text(numbers([f"{found.headline.name}, percent"], swept, sections.SWEPT)))
    return "\n\n".join(parts)


# CO-SPY's files


def _published_cells(rows: Sequence[ScoreRow], view: View) -> dict[Cell, list[ScoreRow]]:
    """The cells of the base; of a table without synthetic pictures, each source's reals as "real".

    Where the sources are empty, or each is named as its one generator, the data set's name takes
    their place.
    """
    base = next(iter(by_degradation(rows, view.base).values()), [])
    found = by_cell(base, view.pairing)
    if not found:
        for row in base:
            if row.label == 0:
                found.setdefault((row.source, "real"), []).append(row)
    if view.dataset and all(source in ("", generator) for source, generator in found):
        return {(view.dataset, generator): members for (_, generator), members in found.items()}
    return found


def result_json(
    rows: Sequence[ScoreRow], threshold: float, view: View = WHOLE, analysis: Analysis | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """CO-SPY's result.json: source -> generator -> size, AP and Accuracy, as fractions; of the
    cells of an `analysis` of the same rows also what stands beside them, by metric.

    `size` counts the cell's pictures that have a score, real and synthetic. AP is None where a
    class is missing, Accuracy where there is no score.
    """
    result: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for (source, generator), members in _published_cells(rows, view).items():
        labels, logits = labels_logits(members)
        both = 0 < labels.sum() < labels.size
        result[source][generator] = {
            "size": labels.size,
            "AP": metrics.average_precision(labels, logits) if both else None,
            "Accuracy": metrics.accuracy(labels, logits, threshold) if labels.size else None,
        }
    for (source, generator), beside in sections.cells_beside(analysis).items() if analysis else ():
        result[source if source in result else view.dataset][generator] |= _beside(beside)
    return dict(result)


def _beside(beside: Beside) -> dict[str, dict[str, float]]:
    """Figures of others as fractions: metric -> value, under `published` where they are of the same
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
        known = {k: [v for cell in cells if (v := cell[k]) is not None] for k in PUBLISHED_METRICS}
        means = {
            k: sum(values) / len(values) if values else math.nan for k, values in known.items()
        }
        return " | ".join(f"{metric} {100 * mean:.2f}%" for metric, mean in means.items())

    cells = {(s, g): cell for s, generators in result.items() for g, cell in generators.items()}
    lines = [
        f"Evaluate on {' - '.join(filter(None, (name, *at)))} | Size {cell['size']} | "
        f"{figures([cell])}"
        for at, cell in cells.items()
    ]
    mean = f"Average Performance on {name} | {figures(list(cells.values()))}"
    return [*lines, mean] if lines else []


def _figures(values: Mapping[str, Estimate | float]) -> dict[str, list[float | None]]:
    """Metric -> value, and the ends of its interval where it has one; None for what is infinite."""
    found = {
        name: [*value] if isinstance(value, Estimate) else [value, math.nan, math.nan]
        for name, value in values.items()
    }
    return {
        name: [part if math.isfinite(part) else None for part in parts]
        for name, parts in found.items()
    }


def metrics_json(analysis: Analysis) -> dict[str, Any]:
    """Every number of the report for programs: metric -> [value, low, high], fractions."""

    def of(found: Metrics) -> dict[str, Any]:
        counts = {"real": found.n_real, "synthetic": found.n_synthetic, "errors": found.n_errors}
        return counts | {"metrics": _figures(found.estimates)}

    beside = sections.cells_beside(analysis)
    return {
        "threshold": analysis.threshold,
        "degradation": analysis.base,
        "min_pictures": analysis.view.min_pictures,
        "pooled": of(analysis.pooled) | _beside(sections.average_beside(analysis, "pictures")),
        "over_generators_and_sources": {
            "generators": analysis.clusters[0],
            "sources": analysis.clusters[1],
            "metrics": _figures(analysis.clustered),
        },
        "averages": [
            {
                "over": average.kind,
                "headline": average.headline,
                "number": average.number,
                "left_out": average.left_out,
                "metrics": _figures({**average.values, **average.estimates}),
            }
            | _beside(sections.average_beside(analysis, average.kind))
            for average in analysis.averages
            if average.kind != "pictures"
        ],
        "cells": [
            {"generator": generator, "source": source, "in_mean": analysis.view.counts(found)}
            | of(found)
            | _beside(beside[source, generator])
            for (source, generator), found in analysis.cells.items()
        ],
        "sources": {name: of(found) for name, found in analysis.sources_real.items()},
        "degradations": {name: of(each.pooled) for name, each in analysis.degradations.items()},
        "hints": list(analysis.hints),
    }


def output_json(
    rows: Sequence[ScoreRow], view: View = WHOLE
) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """CO-SPY's output.json: source -> generator -> y_pred (scores) and y_true, reals included."""
    result: defaultdict[str, dict[str, dict[str, list[Any]]]] = defaultdict(dict)
    for (source, generator), members in _published_cells(rows, view).items():
        usable = [row for row in members if not reason_unusable(row)]
        result[source][generator] = {
            "y_pred": [row.score for row in usable],
            "y_true": [row.label for row in usable],
        }
    return dict(result)
