"""The report of a comparison of runs: tables, plots and the summary on standard output.

Phase compare calls `write_comparison` and `summary_text` with what `evaluation.comparison`
measured. What is said about the numbers stands in `templates/compare.j2` and
`templates/compare_summary.j2`; nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..evaluation import analysis
from ..evaluation.analysis import View
from ..evaluation.comparison import HEADLINES, ComparedSet, Comparison, Run, least
from ..evaluation.estimates import AUROC, Estimate, PlainEstimate
from ..runtime.files import write_file
from ..scoring.table import count_pictures
from . import plots
from .document import Plot, Table, render_markdown, render_page, render_text
from .tables import UNDEFINED, metric_name, percent, points

NAME = "compare"  # of the files, and what the names of the plots begin with


@dataclass(frozen=True)
class Tables:
    """The tables of a comparison; `averages` and `degradations` only where there are any, `cells`
    by the name of their metric."""

    runs: Table
    pooled: Table
    averages: Table | None
    cells: Mapping[str, Table]
    degradations: Table | None


def _signed(estimate: Estimate) -> str:
    """A difference with its sign and its interval, where it has one."""
    if isinstance(estimate, PlainEstimate):
        value, low, high = (f"{part + 0.0:+.3f}" for part in estimate)
    else:
        value, low, high = map(points, estimate)
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def _difference_names(runs: Sequence[Run]) -> list[str]:
    """What stands over the differences to the first run."""
    if len(runs) == 2:
        return ["difference"]
    return [f"{run.name} - {runs[0].name}" for run in runs[1:]]


def _header(first: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """`first`, the runs, and each difference with its p-value."""
    differences = (title for name in _difference_names(runs) for title in (name, "p"))
    return [*first, *(run.name for run in runs), *differences]


def _row(first: Sequence[str], compared: ComparedSet, metric: str) -> list[str]:
    """One metric of every run, and of every run but the first how far it is above the first."""
    cells = [*first, *(percent(measured.estimates.get(metric)) for measured in compared.measured)]
    for differences in compared.differences:
        if metric in differences:
            estimate, p_value = differences[metric]
            p = UNDEFINED if math.isnan(p_value) else f"{p_value:.3f}"
            cells += [_signed(estimate), p]
        else:
            cells += [UNDEFINED, UNDEFINED]
    return cells


def _headline_metrics(sets: Sequence[ComparedSet]) -> list[str]:
    """The headline metrics that some set has, or the rate of its one class."""
    names = dict.fromkeys(
        name for compared in sets for each in compared.differences for name in each
    )
    return [name for name in HEADLINES if name in names] or list(names)


def _averages_table(comparison: Comparison) -> Table:
    """The means of every run, and their plain differences."""
    averages = []
    for index in range(len(comparison.runs)):
        cells = {cell: compared.measured[index] for cell, compared in comparison.cells.items()}
        pooled = comparison.pooled[comparison.base].measured[index]
        view = View(average="pictures", min_pictures=least(comparison.runs))
        # The first is of all pictures, which have a table of their own.
        averages.append(analysis.averages(pooled, cells, view)[1:])
    rows = []
    for of_runs in zip(*averages, strict=True):
        for metric in _headline_metrics(list(comparison.cells.values())):
            if metric not in of_runs[0].values:
                continue  # no cell that enters the means has it
            values = [average.values[metric] for average in of_runs]
            differences = [points(value - values[0]) for value in values[1:]]
            name = f"{metric_name(metric)}, {of_runs[0].title}"
            rows.append([name, *map(percent, values), *differences])
    names = [run.name for run in comparison.runs]
    return Table(["average", *names, *_difference_names(comparison.runs)], rows)


def _cells_table(comparison: Comparison, metric: str) -> Table:
    """One metric of each cell that has it."""
    rows = [
        _row([generator, source], compared, metric)
        for (source, generator), compared in comparison.cells.items()
        if any(metric in differences for differences in compared.differences)
    ]
    return Table(_header(["generator", "source"], comparison.runs), rows, names=2)


def _degradations_table(comparison: Comparison) -> Table:
    """The headline metrics of all pictures under each degradation."""
    rows = [
        _row([degradation, metric_name(metric)], compared, metric)
        for degradation, compared in comparison.pooled.items()
        for metric in _headline_metrics([compared])
    ]
    return Table(_header(["degradation", "metric"], comparison.runs), rows, names=2)


def _runs_table(comparison: Comparison) -> Table:
    """Folder, numbers of pictures and threshold of each run."""
    rows = []
    for run in comparison.runs:
        own = len(run.rows) - len(comparison.shared.rows)
        counts = map(str, (len(run.rows), run.n_unusable, own))
        rows.append([run.name, str(run.folder), *counts, f"{run.threshold:g}"])
    header = ["run", "folder", "scored", "without a score or label", "lacking elsewhere"]
    return Table([*header, "threshold"], rows, names=2)


def _tables(comparison: Comparison) -> Tables:
    """Every table of a comparison."""
    pooled = comparison.pooled[comparison.base]
    rows = [_row([metric_name(name)], pooled, name) for name in pooled.measured[0].estimates]
    shown = _headline_metrics(list(comparison.cells.values()))
    return Tables(
        _runs_table(comparison),
        Table(_header([analysis.POOLED], comparison.runs), rows),
        _averages_table(comparison) if comparison.cells else None,
        {metric_name(metric): _cells_table(comparison, metric) for metric in shown},
        _degradations_table(comparison) if len(comparison.pooled) > 1 else None,
    )


def _plots(comparison: Comparison) -> list[Plot]:
    """ROC curves, and differences by generator. Raises ImportError without matplotlib."""
    drawn = []
    runs, shared = comparison.runs, comparison.shared
    rows = [row for row in shared.rows if row.degradation == comparison.base]
    labels, logits = shared.select(rows)
    if 0 < labels.sum() < labels.size:
        content = plots.roc_of_runs(labels, logits, [run.name for run in runs])
        drawn.append(Plot(f"{NAME}_roc.png", "ROC curves, pooled over pictures", content))
    metrics = _headline_metrics(list(comparison.cells.values()))
    metric = AUROC if AUROC in metrics else next(iter(metrics), "")
    for index, run in enumerate(runs[1:]):
        estimates = {
            cell: compared.differences[index][metric].estimate
            for cell, compared in comparison.cells.items()
            if metric in compared.differences[index]
        }
        if dots := plots.differences(estimates, metric_name(metric)):
            caption = f"{metric_name(metric)} of {run.name} minus {runs[0].name}"
            drawn.append(Plot(f"{NAME}_generators_{index + 2}.png", caption, dots))
    return drawn


def write_comparison(folder: Path, comparison: Comparison, cautions: Sequence[str]) -> None:
    """Writes compare.md, compare.html and the plots; those of an earlier comparison go.

    Args:
        folder: created where it is not there.
        comparison: of two runs or more.
        cautions: what a reader has to know first.
    """
    try:
        drawn: list[Plot] | None = _plots(comparison)
    except ImportError:
        drawn = None
    files = {plot.name: plot.content for plot in drawn or []}
    title = f"Comparison of {', '.join(run.name for run in comparison.runs)}"
    content = {
        "tables": _tables(comparison),
        "cautions": cautions,
        "shared": comparison.shared,
        "n_real": int((comparison.shared.labels == 0).sum()),
        "several": len(comparison.pooled) > 1,
        "base": comparison.base,
        "plots": drawn,
    }
    files[f"{NAME}.md"] = render_markdown("compare.j2", title, **content).encode()
    files[f"{NAME}.html"] = render_page("compare.j2", title, **content).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{NAME}_*.png"):
        if path.name not in files:
            path.unlink()
    for name, data in files.items():
        write_file(folder / name, data)


def summary_text(comparison: Comparison) -> str:
    """The main tables as plain text, and how many pictures the runs have in common."""
    shared = count_pictures(comparison.shared.rows)
    more = {run.name: count_pictures(run.rows.values()) - shared for run in comparison.runs}
    tables = _tables(comparison)
    return render_text("compare_summary.j2", tables=tables, n_shared=shared, more=more)
