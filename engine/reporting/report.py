"""The report of an evaluation, and its summary on standard output.

Phase eval calls this with the saved per-picture table and what `evaluation.analysis` made of it.
Numbers and tables are laid out here, what is said about them stands in `templates/report.j2` and
`templates/summary.j2`. Nothing is measured here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..evaluation import estimates
from ..evaluation.analysis import (
    CLUSTERED,
    POOLED,
    TOO_MANY_UNREADABLE,
    Analysis,
    analyse,
    means,
    worst_errors,
)
from ..evaluation.benchmark import as_stated
from ..evaluation.estimates import FEWEST, Estimate
from ..evaluation.periods import Group
from ..evaluation.reported import NOTHING, OTHER_PICTURES, Comparable
from ..runtime.files import write_file
from ..scoring.table import ScoreRow
from . import plots
from .document import Gallery, Plot, Table, render_markdown, render_page, render_text
from .tables import (
    Line,
    average_beside,
    cells_beside,
    counts,
    interval,
    interval_over,
    line,
    metric_name,
    numbers,
    paper_of,
    percent,
)
from .thumbnails import Tile, sheet

ERRORS = "errors.png"
FILES = ("report.md", "report.html", *plots.CAPTIONS, ERRORS)
MOST_CELLS = 30  # more are summarised as means over sources and over generators
SHOWN_ERRORS = 20
SHOWN_COUNTS = 5  # cells of other numbers of pictures that are named
SHEET_COLUMNS, SHEET_SIZE = 5, 170
ALL_REALS = "(all)"  # instead of a source: a generator that is measured against all real pictures
SHORT = (estimates.AP, estimates.AUROC, estimates.ACCURACY, estimates.TPR_AT_1)
WIDE = (*SHORT, estimates.TPR_AT_5)
OF_GROUPS = (estimates.AUROC, estimates.TPR_AT_5)
SWEPT = (
    estimates.AP,
    estimates.AUROC,
    estimates.ACCURACY,
    estimates.ACCURACY_REAL,
    estimates.ACCURACY_SYNTHETIC,
)

# Notes on a paper's figures


def _decimals(analysis: Analysis) -> dict[str, int]:
    """Decimals of a paper's figures, by metric."""
    reported = analysis.view.published
    return {name: reported.decimals(name) for name in reported.metrics} if reported else {}


def _other_counts(paper: Comparable) -> Iterator[str]:
    """The cells whose numbers of pictures are not those of their figures."""
    for cell, measured in paper.analysis.cells.items():
        ours = (measured.n_real, measured.n_synthetic)
        pairs = [
            f"{here:,} of {there:,} {kind}"
            for kind, here, there in zip(
                ("real", "synthetic"), ours, paper.view.facts.stated(*cell), strict=True
            )
            if there is not None and not as_stated(here, there)
        ]
        if pairs:
            yield f"{'/'.join(dict.fromkeys(filter(None, cell)))} {' and '.join(pairs)}"


def _notes(analysis: Analysis) -> dict[str, object]:
    """The values of `templates/notes.j2`."""
    paper = paper_of(analysis)
    others = list(_other_counts(paper)) if paper else []
    more = f" and {len(others) - SHOWN_COUNTS} more" if len(others) > SHOWN_COUNTS else ""
    return {
        "analysis": analysis,
        "paper": paper,
        "other_pictures": OTHER_PICTURES,
        "other_counts": "; ".join(others[:SHOWN_COUNTS]) + more,
    }


# Lines of the tables


def average_lines(analysis: Analysis) -> list[Line]:
    """The averages, all pictures first."""
    lines = []
    for average in analysis.averages:
        beside = average_beside(analysis, average.kind)
        name = average.title + (" (headline)" if average.headline and analysis.cells else "")
        if average.kind == "pictures":
            lines.append(line([name], analysis.pooled, beside))
            if analysis.clustered:
                lines.append(Line([f"pooled, {CLUSTERED}"], analysis.clustered))
        else:
            values: dict[str, Estimate | float] = {**average.values, **average.estimates}
            lines.append(Line([name], values, beside, over=average.others(average.number)))
    return lines


def _cell_lines(analysis: Analysis, counted: bool) -> list[Line]:
    """The cells that enter the means, or those that do not: generator, source."""
    beside = cells_beside(analysis)
    return [
        line([generator, source or ALL_REALS], measured, beside[source, generator])
        for (source, generator), measured in analysis.cells.items()
        if analysis.view.counts(measured) == counted
    ]


def _source_lines(analysis: Analysis) -> list[Line]:
    """The mean of each source over its generators."""
    paper, values = paper_of(analysis), means(analysis.counted, 0)
    names = [name for name in analysis.sources if name in values]
    return [Line([name], values[name], paper.source(name) if paper else NOTHING) for name in names]


def _generator_lines(analysis: Analysis) -> list[Line]:
    """The mean of each generator over its sources."""
    paper, values = paper_of(analysis), means(analysis.counted, 1)
    names = [name for name in analysis.generators if name in values]
    beside = {name: paper.generator(name) if paper else NOTHING for name in names}
    return [Line([name], values[name], beside[name]) for name in names]


def _group_table(head: str, groups: Mapping[str, Group]) -> Table:
    """The generators of each year or family together."""
    lines = [
        line([name, str(each.generators), interval_over(each)], each.measured)
        for name, each in groups.items()
    ]
    return numbers([head, "generators", "interval over"], lines, OF_GROUPS)


def _swept_lines(analysis: Analysis) -> list[Line]:
    """The headline average under each degradation."""
    number = analysis.headline.number
    return [
        Line(
            [name],
            degraded.headline.values,
            counts=counts(degraded.pooled),
            over=degraded.headline.others(number),
        )
        for name, degraded in analysis.degradations.items()
    ]


def _summary_lines(analysis: Analysis) -> list[Line]:
    """All pictures, a line per cell, or of many per source and per generator; the means."""
    lines = average_lines(analysis)
    split = 2 if analysis.clustered else 1
    pooled, averages = lines[:split], lines[split:]
    if analysis.crossed and len(analysis.cells) > MOST_CELLS:
        sources = [
            replace(row, names=[f"source {row.names[0]}"]) for row in _source_lines(analysis)
        ]
        return [*pooled, *sources, *_generator_lines(analysis), *averages]
    cells: dict[bool, list[Line]] = {True: [], False: []}
    for counted, mark in ((True, ""), (False, ", in no mean")):
        for row in _cell_lines(analysis, counted):
            generator, source = row.names
            name = f"{source}/{generator}" if analysis.crossed else generator
            cells[counted].append(replace(row, names=[name + mark]))
    return [*pooled, *cells[True], *averages, *cells[False]]


# Tables of the report


def _pooled_table(analysis: Analysis) -> Table:
    """Every metric of all pictures together, with its one or two intervals."""
    rows = [
        [metric_name(name), percent(value)] for name, value in analysis.pooled.estimates.items()
    ]
    if not analysis.clustered:
        return Table(["metric", POOLED], rows)
    for row, name in zip(rows, analysis.pooled.estimates, strict=True):
        row.append(interval(analysis.clustered[name]))
    return Table(["metric", POOLED, CLUSTERED], rows)


def _run_rows(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of a nested value with their dotted names."""
    sequence = isinstance(value, (list, tuple))
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _run_rows(inner, f"{name}.{key}" if name else str(key))
    elif sequence and any(isinstance(inner, (Mapping, list, tuple)) for inner in value):
        for index, inner in enumerate(value):
            yield from _run_rows(inner, f"{name}.{index}")
    elif sequence:
        yield name, ", ".join(map(str, value))
    else:
        yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _tables(analysis: Analysis, run: Mapping[str, Any]) -> dict[str, Table]:
    """The tables of `templates/report.j2` by name."""
    decimals = _decimals(analysis)
    real_sources = [line([name], each) for name, each in analysis.sources_real.items()]
    degradations = [line([name], each.pooled) for name, each in analysis.degradations.items()]
    unreadable = list(analysis.unreadable.items())[:SHOWN_ERRORS]
    cells = ["generator", "source"]

    def averaged(head: str, lines: Sequence[Line]) -> Table:
        return numbers([head], lines, WIDE, False, decimals)

    return {
        "pooled": _pooled_table(analysis),
        "averages": averaged("average", average_lines(analysis)),
        "sources": averaged("source", _source_lines(analysis)),
        "generators": averaged("generator", _generator_lines(analysis)),
        "cells": numbers(cells, _cell_lines(analysis, True), WIDE, decimals=decimals),
        "few": numbers(cells, _cell_lines(analysis, False), WIDE, decimals=decimals),
        "years": _group_table("year", analysis.years),
        "families": _group_table("family", analysis.families),
        "real_sources": numbers(
            ["source"], real_sources, (estimates.AUROC, estimates.ACCURACY_REAL)
        ),
        "degradations": numbers(["degradation"], degradations, SWEPT),
        "swept": numbers(["degradation"], _swept_lines(analysis), SWEPT, counted=False),
        "unreadable": Table(
            ["picture", "error"], [[key, error] for (_, _, key), error in unreadable], names=2
        ),
        "run": Table(["name", "value"], list(_run_rows(run)), names=2),
    }


def _unreadable_shares(analysis: Analysis) -> str:
    """The degradations under which too many pictures have no score, with their shares; empty
    without any."""
    pooled = {name: each.pooled for name, each in analysis.degradations.items()}
    shares = []
    for name, measured in (pooled or {analysis.base: analysis.pooled}).items():
        total = sum(counts(measured))
        if measured.n_errors > TOO_MANY_UNREADABLE * total:
            share = (
                f"{measured.n_errors} of {total} pictures ({100 * measured.n_errors / total:.1f} %)"
            )
            shares.append(f"{share} under {name}" if pooled else share)
    return "; ".join(shares)


def _errors(worst: Sequence[ScoreRow], thumbnails: Mapping[str, bytes]) -> Gallery:
    """The worst errors with their thumbnails."""
    rows = []
    for row in worst:
        generator = row.generator or "unnamed generator"
        kind, called = (f"synthetic: {generator}", "real") if row.label else ("real", "synthetic")
        origin = f"{kind} ({row.source})" if row.source else kind
        rows.append([row.key, origin, f"{row.score or 0.0:.4f}", f"{row.logit or 0.0:.2f}", called])
    table = Table(["picture", "is", "score", "logit", "called"], rows, names=2)
    return Gallery(ERRORS, "The worst errors", table, [thumbnails.get(row.key) for row in worst])


def _errors_sheet(gallery: Gallery) -> bytes:
    """The gallery as one PNG, for the Markdown report."""
    tiles = []
    for (key, _, score, _, called), content in zip(
        gallery.table.rows, gallery.pictures, strict=True
    ):
        image = Image.open(io.BytesIO(content)) if content else None
        tiles.append(Tile(image, key, f"{score}: called {called}"))
    buffer = io.BytesIO()
    sheet(tiles, SHEET_COLUMNS, SHEET_SIZE).save(buffer, "PNG")
    return buffer.getvalue()


def write_report(
    folder: Path,
    rows: Sequence[ScoreRow],
    threshold: float,
    run: Mapping[str, Any],
    title: str,
    analysis: Analysis | None = None,
    thumbnails: Mapping[str, bytes] = {},
) -> list[Path]:
    """The files of a report: report.md, report.html and the plots, written into `folder`.

    Plots of an earlier report that this one does not have are removed. Without matplotlib there
    are none, and the report says so.

    Args:
        folder: created where it is not there.
        rows: the table.
        threshold: a probability.
        run: any nested description of the run.
        title: heading of the report.
        analysis: that of these rows at this threshold, where the caller has it.
        thumbnails: JPEGs of the `worst_errors` of `analysis.rows` by key.
    """
    analysis = analysis or analyse(rows, threshold)
    try:
        images: dict[str, bytes] | None = plots.draw(analysis)
    except ImportError:
        images = None
    files = dict(images or {})
    errors = _errors(worst_errors(analysis.rows, threshold), thumbnails)
    if any(errors.pictures):
        files[ERRORS] = _errors_sheet(errors)
    drawn = [Plot(name, plots.CAPTIONS[name], content) for name, content in (images or {}).items()]
    content = _notes(analysis) | {
        "tables": _tables(analysis, run),
        "errors": errors,
        "plots": None if images is None else drawn,
        "cautions": (*analysis.hints, *analysis.view.notes),
        "unreadable_shares": _unreadable_shares(analysis),
        "fewest": FEWEST,
    }
    files["report.md"] = render_markdown("report.j2", title, **content).encode()
    files["report.html"] = render_page("report.j2", title, **content).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name in set(FILES) - files.keys():
        (folder / name).unlink(missing_ok=True)
    return [write_file(folder / name, content) for name, content in files.items()]


def summary_text(
    rows: Sequence[ScoreRow], threshold: float, analysis: Analysis | None = None
) -> str:
    """A plain table of percents: all pictures, a line per cell (or, of many, per source and per
    generator), the means; a second one for a sweep of degradations; aligned.

    `threshold` is a probability; `analysis`, where the caller has it, that of these rows. Where
    there are figures of a paper, the metrics that they are of are shown.
    """
    analysis = analysis or analyse(rows, threshold)
    lines, decimals = _summary_lines(analysis), _decimals(analysis)
    beside = {metric for row in lines for metric in (*row.beside.published, *row.beside.reported)}
    wanted = list(decimals) if beside.intersection(decimals) else SHORT
    swept = None
    if analysis.degradations:
        swept = numbers([f"{analysis.headline.name}, percent"], _swept_lines(analysis), SWEPT)
    return render_text(
        "summary.j2",
        numbers=numbers(["percent [95 % interval]"], lines, wanted, decimals=decimals),
        n_shown=len(lines),
        swept=swept,
        **_notes(analysis),
    )
