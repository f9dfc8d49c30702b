"""The report of an evaluation: every table and plot that a saved per-picture table gives."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import _plots, metrics
from ._document import Block, Heading, Plot, Table, to_html, to_markdown, to_text
from .metrics import Cell, Estimate, Metrics
from .table import ScoreRow

SHOWN_ERRORS = 20
UNDEFINED = "–"
POOLED = "pooled over pictures"
CAPTIONS = {
    "roc.png": "ROC curve, pooled over pictures",
    "pr.png": "Precision-recall curve, pooled over pictures",
    "histogram.png": "Logits of the real and the synthetic pictures; the outermost bars hold "
    "what lies beyond them",
    "generators.png": "Generators, each with its 95 % interval",
}
NAMES = {
    metrics.BALANCED_ACCURACY: "balanced accuracy",
    metrics.ACCURACY_REAL: "accuracy on real",
    metrics.ACCURACY_SYNTHETIC: "accuracy on synthetic",
    metrics.DETECTION_RATE: "detection rate",
}
ONE_CLASS = (metrics.DETECTION_RATE, metrics.ACCURACY_REAL)
SHORT = (metrics.AP, metrics.AUROC, metrics.ACCURACY, metrics.TPR_AT_1)
WIDE = (*SHORT, metrics.TPR_AT_5)


@dataclass(frozen=True)
class Analysis:
    """Every number of one table, computed once for all the forms it is printed in.

    `degradations` is empty when the table has only one; `unreadable` maps (source, generator,
    key) to what is wrong with the picture.
    """

    threshold: float
    pooled: Metrics
    cells: dict[Cell, Metrics]
    degradations: dict[str, Metrics]
    unreadable: dict[tuple[str, str, str], str]
    n_unlabelled: int


def analyse(
    rows: Sequence[ScoreRow], threshold: float, resamples: int = 1000, seed: int = 0
) -> Analysis:
    """Metrics of all pictures, of each cell and of each degradation, at `threshold` in [0, 1]."""
    by_degradation: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        by_degradation[row.degradation].append(row)
    several = sorted(by_degradation) if len(by_degradation) > 1 else []
    cells = metrics.cells(rows)
    measured = {
        cell: metrics.evaluate_rows(members, threshold, resamples, seed)
        for cell, members in cells.items()
    }
    labelled = sum(row.label is not None for row in rows)
    # A table that is one cell has the same numbers for the cell and for all pictures.
    whole = next((measured[cell] for cell, held in cells.items() if len(held) == labelled), None)
    return Analysis(
        threshold=threshold,
        pooled=whole or metrics.evaluate_rows(rows, threshold, resamples, seed),
        cells=measured,
        degradations={
            name: metrics.evaluate_rows(by_degradation[name], threshold, resamples, seed)
            for name in several
        },
        unreadable={
            (row.source, row.generator, row.key): reason
            for row in rows
            if (reason := metrics.reason_unusable(row))
        },
        n_unlabelled=len(rows) - labelled,
    )


def cell_means(cells: Mapping[Cell, Metrics]) -> dict[str, dict[str, float]]:
    """Named averages: over generators, each one's cells averaged first, and over cells.

    A metric is averaged over the cells that have it. With one cell per generator the two
    averages are one and the same; without cells there is none.
    """
    by_generator: defaultdict[str, defaultdict[str, list[float]]]
    by_generator = defaultdict(lambda: defaultdict(list))
    for (_, generator), found in cells.items():
        for name, estimate in found.estimates.items():
            by_generator[name][generator].append(estimate.value)
    over_generators = {
        name: float(np.mean([np.mean(values) for values in groups.values()]))
        for name, groups in by_generator.items()
    }
    over_cells = {
        name: float(np.mean([value for values in groups.values() for value in values]))
        for name, groups in by_generator.items()
    }
    count = len({generator for _, generator in cells})
    generators = f"mean over {count} generator{'s' if count > 1 else ''}"
    if count == len(cells):
        return {generators: over_generators} if cells else {}
    return {generators: over_generators, f"mean over {len(cells)} cells": over_cells}


def percent(estimate: Estimate | float | None) -> str:
    """A fraction as percent, with its interval where it has one: `93.1 [91.0, 94.9]`."""
    if estimate is None:
        return UNDEFINED
    if isinstance(estimate, Estimate):
        value, low, high = (f"{100 * part:.1f}" for part in estimate)
        return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"
    return f"{100 * estimate:.1f}"


def _columns(found: Sequence[Metrics], wanted: Sequence[str]) -> list[str]:
    """The wanted metrics where any set has both classes, a rate of one class where one has not."""
    both = any(each.n_real and each.n_synthetic for each in found)
    rates = {name for each in found if len(each.estimates) == 1 for name in each.estimates}
    return [*(wanted if both else ()), *(name for name in ONE_CLASS if name in rates)]


def _row(found: Metrics, columns: Sequence[str]) -> list[str]:
    counts = [str(found.n_real), str(found.n_synthetic), str(found.n_errors)]
    return counts + [percent(found.estimates.get(name)) for name in columns]


def _header(first: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [*first, "real", "synthetic", "errors", *(NAMES.get(name, name) for name in columns)]


def _cells_table(analysis: Analysis) -> Table:
    columns = _columns(list(analysis.cells.values()), WIDE)
    return Table(
        _header(["generator", "source"], columns),
        [
            [generator, source, *_row(found, columns)]
            for (source, generator), found in analysis.cells.items()
        ],
        names=2,
    )


def _averages_table(analysis: Analysis) -> Table:
    columns = _columns([analysis.pooled, *analysis.cells.values()], WIDE)
    means = [
        [name, *(percent(values.get(column)) for column in columns)]
        for name, values in cell_means(analysis.cells).items()
    ]
    pooled = [percent(analysis.pooled.estimates.get(column)) for column in columns]
    return Table(
        ["average", *(NAMES.get(name, name) for name in columns)], [[POOLED, *pooled], *means]
    )


def _overall(analysis: Analysis) -> Iterator[Block]:
    pooled = analysis.pooled
    yield (
        f"{pooled.n_real} real and {pooled.n_synthetic} synthetic pictures, and "
        f"{pooled.n_errors} that could not be scored. A picture is called synthetic above a score "
        f"of {analysis.threshold:g}. Rates are percent, with the 95 % interval of a stratified "
        "bootstrap."
    )
    if analysis.n_unlabelled:
        yield f"{analysis.n_unlabelled} pictures have no label and enter no metric."
    if not pooled.estimates:
        yield "No picture with a label has a score: there is nothing to measure."
        return
    if not pooled.n_real:
        yield (
            "There are no real pictures to compare with: the detection rate alone is defined. "
            "It says nothing about false alarms."
        )
    elif not pooled.n_synthetic:
        yield (
            "There are no synthetic pictures: the accuracy on real alone is defined. The false "
            "positive rate is what it lacks of 100."
        )
    rows = [[NAMES.get(name, name), percent(found)] for name, found in pooled.estimates.items()]
    yield Table(["metric", POOLED], rows)


def _groups(analysis: Analysis) -> Iterator[Block]:
    if analysis.cells:
        yield Heading("Averages")
        yield (
            "Pooled: every picture once. Mean over generators: each generator weighs the same, "
            "whatever its number of pictures; a generator measured on several sources is "
            "averaged over them first. A mean leaves out where its metric is undefined, and has no "
            "interval, for generators share real pictures."
        )
        yield _averages_table(analysis)
        yield Heading("Generators")
        yield (
            "Each generator is measured against the real pictures of its source, or against all "
            "real pictures where its source has none."
        )
        yield _cells_table(analysis)
    if analysis.degradations:
        columns = _columns(list(analysis.degradations.values()), WIDE)
        yield Heading("Degradations")
        yield (
            "Pooled over the pictures of each degradation. The tables above hold all of them, a "
            "picture once per degradation."
        )
        yield Table(
            _header(["degradation"], columns),
            [
                [name or "none", *_row(found, columns)]
                for name, found in analysis.degradations.items()
            ],
        )


def _unreadable(analysis: Analysis) -> Iterator[Block]:
    count = len(analysis.unreadable)
    yield Heading("Unreadable pictures")
    if not count:
        yield "None."
        return
    shown = list(analysis.unreadable.items())[:SHOWN_ERRORS]
    yield f"{count} without a score" + (
        f"; the first {SHOWN_ERRORS}:" if count > SHOWN_ERRORS else ":"
    )
    yield Table(["picture", "error"], [[key, error] for (_, _, key), error in shown], names=2)


def _flat(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Leaves of a nested value with their dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)) and any(
        isinstance(inner, (Mapping, list, tuple)) for inner in value
    ):
        for place, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{place}")
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(map(str, value))
    else:
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _blocks(analysis: Analysis, run: Mapping[str, Any], plots: Sequence[str] | None) -> list[Block]:
    blocks = [*_overall(analysis), *_groups(analysis), Heading("Plots")]
    if plots is None:
        blocks.append("Left out, for matplotlib is not installed: pip install matplotlib")
    else:
        blocks += [Plot(name, CAPTIONS[name]) for name in plots]
        if not plots:
            blocks.append("None: no picture has a score.")
    blocks += [*_unreadable(analysis), Heading("Run")]
    blocks.append(Table(["name", "value"], list(_flat(run, "")), names=2))
    return blocks


def _write(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_report(
    folder: Path,
    rows: Sequence[ScoreRow],
    threshold: float,
    run: Mapping[str, Any],
    title: str,
    analysis: Analysis | None = None,
) -> list[Path]:
    """Writes report.md, report.html and the plots into `folder`; the files that were written.

    `threshold` is a probability; `run` any nested description of the run; `analysis`, where the
    caller has it, that of these rows at this threshold. Plots of an earlier report that this one
    does not have are removed. Without matplotlib there are none, and the report says so.
    """
    found = analysis or analyse(rows, threshold)
    try:
        images = _plots.draw(*metrics.labels_logits(rows), found.pooled, found.cells, threshold)
        blocks = _blocks(found, run, list(images))
    except ImportError:
        images, blocks = {}, _blocks(found, run, None)
    folder.mkdir(parents=True, exist_ok=True)
    for name in CAPTIONS.keys() - images.keys():
        (folder / name).unlink(missing_ok=True)
    files = {
        **images,
        "report.md": to_markdown(title, blocks).encode(),
        "report.html": to_html(title, blocks, images).encode(),
    }
    return [_write(folder / name, content) for name, content in files.items()]


def summary_text(
    rows: Sequence[ScoreRow], threshold: float, analysis: Analysis | None = None
) -> str:
    """A plain table of percents: all pictures, a line per generator, the means; aligned.

    `threshold` is a probability; `analysis`, where the caller has it, that of these rows.
    """
    found = analysis or analyse(rows, threshold)
    columns = _columns([found.pooled, *found.cells.values()], SHORT)
    crossed = len({generator for _, generator in found.cells}) < len(found.cells)
    lines = [[POOLED, *_row(found.pooled, columns)]]
    for (source, generator), cell in found.cells.items():
        lines.append([f"{source}/{generator}" if crossed else generator, *_row(cell, columns)])
    for name, values in cell_means(found.cells).items():
        lines.append([name, "", "", "", *(percent(values.get(column)) for column in columns)])
    return to_text(Table(_header(["percent [95 % interval]"], columns), lines))


def _published_cells(rows: Sequence[ScoreRow]) -> dict[Cell, list[ScoreRow]]:
    """The cells; of a table without synthetic pictures, each source's reals as "real"."""
    found = metrics.cells(rows)
    if not found:
        for row in rows:
            if row.label == 0:
                found.setdefault((row.source, "real"), []).append(row)
    return found


def result_json(
    rows: Sequence[ScoreRow], threshold: float
) -> dict[str, dict[str, dict[str, float | None]]]:
    """CO-SPY's result.json: source -> generator -> size, AP and Accuracy, as fractions.

    `size` counts the cell's pictures that have a score, real and synthetic. AP is None where a
    class is missing, Accuracy where there is no score.
    """
    result: defaultdict[str, dict[str, dict[str, float | None]]] = defaultdict(dict)
    for (source, generator), members in _published_cells(rows).items():
        labels, logits = metrics.labels_logits(members)
        both = 0 < labels.sum() < labels.size
        result[source][generator] = {
            "size": labels.size,
            "AP": metrics.average_precision(labels, logits) if both else None,
            "Accuracy": metrics.accuracy(labels, logits, threshold) if labels.size else None,
        }
    return dict(result)


def output_json(rows: Sequence[ScoreRow]) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """CO-SPY's output.json: source -> generator -> y_pred (scores) and y_true, reals included."""
    result: defaultdict[str, dict[str, dict[str, list[Any]]]] = defaultdict(dict)
    for (source, generator), members in _published_cells(rows).items():
        usable = [row for row in members if not metrics.reason_unusable(row)]
        result[source][generator] = {
            "y_pred": [row.score for row in usable],
            "y_true": [row.label for row in usable],
        }
    return dict(result)
