"""What the report of an evaluation says, block by block."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from ..evaluation import estimates
from ..evaluation.analysis import CLUSTERED, POOLED, TOO_MANY_UNREADABLE, Analysis, means
from ..evaluation.benchmark import as_stated
from ..evaluation.cells import Cell
from ..evaluation.estimates import FEWEST, Estimate
from ..evaluation.reported import NOTHING, OTHER_PICTURES, Beside, Comparable
from ..scoring import degradations
from ..scoring.table import ScoreRow
from .document import Block, Caution, Gallery, Heading, Plot, Table
from .tables import Line, counts, interval, line, metric_name, numbers, percent
from .thumbnails import Tile, sheet

SHOWN_ERRORS = 20
SHOWN_COUNTS = 5  # cells of other numbers of pictures that are named
ERRORS = "errors.png"
SHEET_COLUMNS, SHEET_SIZE = 5, 170
ALL_REALS = "(all)"  # instead of a source: a generator that is measured against all real pictures
SHORT = (estimates.AP, estimates.AUROC, estimates.ACCURACY, estimates.TPR_AT_1)
WIDE = (*SHORT, estimates.TPR_AT_5)
SWEPT = (
    estimates.AP,
    estimates.AUROC,
    estimates.ACCURACY,
    estimates.ACCURACY_REAL,
    estimates.ACCURACY_SYNTHETIC,
)


def _comparable(analysis: Analysis) -> Comparable | None:
    published = analysis.view.published
    return Comparable(published, analysis) if published else None


def cells_beside(analysis: Analysis) -> dict[Cell, Beside]:
    """The published figures that stand beside each cell."""
    theirs = _comparable(analysis)
    return {cell: theirs.cell(cell) if theirs else NOTHING for cell in analysis.cells}


def average_beside(analysis: Analysis, kind: str) -> Beside:
    """Those beside the mean over "generators", "cells" or "pictures"."""
    theirs = _comparable(analysis)
    return theirs.average(kind) if theirs else NOTHING


def average_lines(analysis: Analysis) -> list[Line]:
    found = []
    for average in analysis.averages:
        beside = average_beside(analysis, average.kind)
        name = average.title + (" (headline)" if average.headline and analysis.cells else "")
        if average.kind == "pictures":
            found.append(line([name], analysis.pooled, beside))
            if analysis.clustered:
                found.append(Line([f"pooled, {CLUSTERED}"], analysis.clustered))
        else:
            others = average.others(average.number)
            values: dict[str, Estimate | float] = {**average.values, **average.estimates}
            found.append(Line([name], values, beside, over=others))
    return found


def cell_lines(analysis: Analysis, counted: bool) -> list[Line]:
    """The cells that enter the means, or those that do not."""
    beside = cells_beside(analysis)
    return [
        line([cell[1], cell[0] or ALL_REALS], found, beside[cell])
        for cell, found in analysis.cells.items()
        if analysis.view.counts(found) == counted
    ]


def generator_lines(analysis: Analysis) -> list[Line]:
    theirs, found = _comparable(analysis), means(analysis.counted, 1)
    return [
        Line([name], found[name], theirs.generator(name) if theirs else NOTHING)
        for name in analysis.generators
        if name in found
    ]


def source_lines(analysis: Analysis) -> list[Line]:
    theirs, found = _comparable(analysis), means(analysis.counted, 0)
    return [
        Line([name], found[name], theirs.source(name) if theirs else NOTHING)
        for name in analysis.sources
        if name in found
    ]


def decimals(analysis: Analysis) -> dict[str, int]:
    """With how many decimals the figures of each metric were published."""
    published = analysis.view.published
    return {name: published.decimals(name) for name in published.metrics} if published else {}


def swept_lines(analysis: Analysis, counted: bool) -> list[Line]:
    """The headline average under each degradation."""
    number = analysis.headline.number
    return [
        Line(
            [name],
            each.headline.values,
            counts=counts(each.pooled) if counted else None,
            over=each.headline.others(number),
        )
        for name, each in analysis.degradations.items()
    ]


def published_notes(analysis: Analysis) -> Iterator[str]:
    """Whose the published figures are, what their means are of, and which of them are of other
    pictures; then the figures that are compared with nothing here. Nothing without any."""
    if theirs := _comparable(analysis):
        yield " ".join(_published_note(theirs))
    for each in analysis.view.reported:
        figures = "; ".join(f"{name} {value:g}" for name, value in each.figures.items())
        yield f"Reported, and compared with nothing here: {each.title}, in percent: {figures}."


def _published_note(theirs: Comparable) -> Iterator[str]:
    found = theirs.origins
    yield f"Published: {theirs.published.title}."
    if not (found.cells or found.printed or found.taken):
        yield "None of its figures is of what was measured here."
    elif found.printed and found.taken:
        yield (
            "Its means are as printed where they are of what was measured here; the others are "
            "taken here, of its figures for the same cells."
        )
    elif found.printed:
        yield "Its means are as printed."
    elif found.taken:
        yield "Its means are taken here, of its figures for the same cells."
    if found.reported:
        yield f"Figures of other pictures stand under “{OTHER_PICTURES}”, and are not compared."
    if counts := list(_other_counts(theirs)):
        more = f" and {len(counts) - SHOWN_COUNTS} more" if len(counts) > SHOWN_COUNTS else ""
        yield f"Measured on other numbers than theirs: {'; '.join(counts[:SHOWN_COUNTS])}{more}."
    if found.cells or found.printed or found.taken:
        yield "A difference is ours minus the published figure, in percentage points."


def _other_counts(theirs: Comparable) -> Iterator[str]:
    """The cells whose numbers of pictures are not those of their published figures."""
    for cell, found in theirs.analysis.cells.items():
        stated = theirs.view.facts.stated(*cell)
        pairs = [
            f"{here:,} of {there:,} {kind}"
            for kind, here, there in zip(
                ("real", "synthetic"), (found.n_real, found.n_synthetic), stated, strict=True
            )
            if there is not None and not as_stated(here, there)
        ]
        if pairs:
            yield f"{'/'.join(dict.fromkeys(filter(None, cell)))} {' and '.join(pairs)}"


# Blocks of the report


def _unreadable_share(analysis: Analysis) -> Iterator[Block]:
    shares = {name: each.pooled for name, each in analysis.degradations.items()}
    bad = []
    for name, found in (shares or {analysis.base: analysis.pooled}).items():
        total = found.n_real + found.n_synthetic + found.n_errors
        if found.n_errors > TOO_MANY_UNREADABLE * total:
            share = 100 * found.n_errors / total
            under = f" under {name}" if shares else ""
            bad.append(f"{found.n_errors} of {total} pictures ({share:.1f} %){under}")
    if bad:
        yield Caution(
            f"{'; '.join(bad)} could not be scored. Every number below is of the rest, and may "
            "mislead where the ones left out have something in common."
        )


def overall(analysis: Analysis) -> Iterator[Block]:
    pooled = analysis.pooled
    yield from _unreadable_share(analysis)
    yield from (Caution(f"{note}.") for note in (*analysis.hints, *analysis.view.notes))
    base = analysis.base
    changed = "" if base == degradations.NONE else f" Each was first changed by {base}."
    yield (
        f"{pooled.n_real} real and {pooled.n_synthetic} synthetic pictures, and "
        f"{pooled.n_errors} that could not be scored.{changed} A picture is called synthetic above "
        f"a score of {analysis.threshold:g}. Rates are percent, with the 95 % interval of a "
        "stratified bootstrap; where a class has fewer than "
        f"{FEWEST} pictures, without one."
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
    else:
        yield (
            "EER, ECE, Brier score and log loss are better the lower they are; the last two are "
            "no percent, and the log loss is in nats."
        )
    rows = [[metric_name(name), percent(found)] for name, found in pooled.estimates.items()]
    header = ["metric", POOLED]
    if analysis.clustered:
        n_generators, n_sources = analysis.clusters
        yield (
            "The first interval says how far other pictures of the same generators and sources "
            "would move a number. The second one resamples generators and sources of real pictures "
            f"({n_generators} and {n_sources}) before their pictures: it says what to expect of "
            "others, and is the one to quote."
            + (" So few sources say little about others." if n_sources < FEWEST else "")
        )
        header.append(CLUSTERED)
        for row, name in zip(rows, pooled.estimates, strict=True):
            row.append(interval(analysis.clustered[name]))
    yield Table(header, rows)


def few_note(analysis: Analysis) -> str:
    """What was left out of the means; empty where nothing was."""
    left_out = len(analysis.cells) - len(analysis.counted)
    if not left_out:
        return ""
    what = "cells" if analysis.crossed else "generators"
    rule = f"fewer than {analysis.view.min_pictures} real or synthetic pictures (--min_pictures)"
    if left_out == len(analysis.cells):
        return f"All {what} have {rule}, so that there is no mean over them."
    return f"{left_out} of {len(analysis.cells)} {what} have {rule}, and are in no mean."


def groups(analysis: Analysis) -> Iterator[Block]:
    if not analysis.cells:
        return
    yield Heading("Averages")
    yield from published_notes(analysis)
    yield (
        "Pooled: every picture once. Mean over generators: each generator weighs the same, "
        "whatever its number of pictures; a generator measured on several sources is "
        "averaged over them first. A mean leaves out where its metric is undefined. Its interval "
        "resamples generators and sources, and is missing where there are fewer than "
        f"{FEWEST} generators."
    )
    if note := few_note(analysis):
        yield note
    shown = decimals(analysis)
    yield numbers(["average"], average_lines(analysis), WIDE, False, shown)
    if analysis.crossed:
        yield Heading("Sources")
        yield "Means over the generators of each source."
        yield numbers(["source"], source_lines(analysis), WIDE, False, shown)
        yield Heading("Generators")
        yield "Means over the sources of each generator."
        yield numbers(["generator"], generator_lines(analysis), WIDE, False, shown)
    yield Heading("Cells" if analysis.crossed else "Generators")
    yield (
        "Each generator is measured against the real pictures of "
        + ("every source in turn." if analysis.view.pairing.mode == "crossed" else
           "its source, or against all real pictures where its source has none.")
    )  # fmt: skip
    heads = ["generator", "source"]
    if lines := cell_lines(analysis, counted=True):
        yield numbers(heads, lines, WIDE, decimals=shown)
    if lines := cell_lines(analysis, counted=False):
        yield f"With fewer than {analysis.view.min_pictures} pictures of a class, in no mean:"
        yield numbers(heads, lines, WIDE, decimals=shown)


def real_sources(analysis: Analysis) -> Iterator[Block]:
    """Which real pictures the detector takes for synthetic ones."""
    if not analysis.sources_real:
        return
    yield Heading("Sources of real pictures")
    yield (
        "The real pictures of each source against all synthetic ones, with intervals over pictures."
    )
    lines = [line([name], found) for name, found in analysis.sources_real.items()]
    wanted = (estimates.AUROC, estimates.ACCURACY_REAL)
    yield numbers(["source"], lines, wanted)


def sweep(analysis: Analysis) -> Iterator[Block]:
    if not analysis.degradations:
        return
    yield Heading("Degradations")
    of = "undegraded pictures" if analysis.base == degradations.NONE else analysis.base
    yield f"The tables above are of {of} alone. Pooled over the pictures of each degradation:"
    lines = [line([name], each.pooled) for name, each in analysis.degradations.items()]
    yield numbers(["degradation"], lines, SWEPT)
    if analysis.headline.kind != "pictures":
        yield f"The {analysis.headline.name} (headline) under each:"
        yield numbers(["degradation"], swept_lines(analysis, False), SWEPT, counted=False)


def _error_rows(rows: Sequence[ScoreRow]) -> list[list[str]]:
    found = []
    for row in rows:
        made = row.generator or "unnamed generator"
        kind, called = (f"synthetic: {made}", "real") if row.label else ("real", "synthetic")
        of = f"{kind} ({row.source})" if row.source else kind
        found.append([row.key, of, f"{row.score or 0.0:.4f}", f"{row.logit or 0.0:.2f}", called])
    return found


def errors(worst: Sequence[ScoreRow], thumbnails: Mapping[str, bytes]) -> Iterator[Block]:
    if not worst:
        return
    yield Heading("Worst errors")
    yield (
        f"The {len(worst)} pictures that were most confidently called what they are not."
        if len(worst) > 1
        else "The one picture that was called what it is not."
    )
    table = Table(["picture", "is", "score", "logit", "called"], _error_rows(worst), names=2)
    pictures = [thumbnails.get(row.key) for row in worst]
    if any(pictures):
        yield Gallery(ERRORS, "The worst errors", table, pictures)
    else:
        yield table


def errors_sheet(worst: Sequence[ScoreRow], thumbnails: Mapping[str, bytes]) -> bytes:
    """The gallery as one PNG, for the Markdown report."""
    tiles = []
    for row, (key, _, score, _, called) in zip(worst, _error_rows(worst), strict=True):
        content = thumbnails.get(row.key)
        image = Image.open(io.BytesIO(content)) if content else None
        tiles.append(Tile(image, key, f"{score}: called {called}"))
    buffer = io.BytesIO()
    sheet(tiles, SHEET_COLUMNS, SHEET_SIZE).save(buffer, "PNG")
    return buffer.getvalue()


def unreadable(analysis: Analysis) -> Iterator[Block]:
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


def plots(names: Sequence[str] | None, captions: Mapping[str, str]) -> Iterator[Block]:
    """The plots of these names under their heading; None where matplotlib is not installed."""
    yield Heading("Plots")
    if names is None:
        yield "Left out, for matplotlib is not installed: pip install matplotlib"
    elif not names:
        yield "None: no picture has a score."
    else:
        yield from (Plot(name, captions[name]) for name in names)


def run(info: Mapping[str, Any]) -> Iterator[Block]:
    """What there is to know about the run, whatever its nesting."""
    yield Heading("Run")
    yield Table(["name", "value"], list(_flat(info, "")), names=2)
