"""The report of a comparison of runs: tables, plots and the summary on standard output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..evaluation import analysis
from ..evaluation.analysis import View
from ..evaluation.comparison import HEADLINES, PAIRED, ComparedSet, Comparison, Run, least
from ..evaluation.estimates import AUROC, Estimate, PlainEstimate
from ..scoring.table import count_pictures
from .document import Block, Caution, Heading, Table, to_text
from .tables import UNDEFINED, metric_name, percent, points


def _signed(estimate: Estimate) -> str:
    if isinstance(estimate, PlainEstimate):
        value, low, high = (f"{part + 0.0:+.3f}" for part in estimate)
    else:
        value, low, high = map(points, estimate)
    return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def _p(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.3f}"


def _differing(names: Sequence[str]) -> list[str]:
    """What stands over the differences to the first run."""
    if len(names) == 2:
        return ["difference"]
    return [f"{name} - {names[0]}" for name in names[1:]]


def _header(first: Sequence[str], runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs]
    return [*first, *names, *(head for name in _differing(names) for head in (name, "p"))]


def _row(first: Sequence[str], group: ComparedSet, name: str) -> list[str]:
    found = [*first, *(percent(each.estimates.get(name)) for each in group.measured)]
    for each in group.differences:
        known = each.get(name)
        found += [_signed(known.estimate), _p(known.p_value)] if known else [UNDEFINED] * 2
    return found


def _pooled_table(found: Comparison) -> Table:
    group = found.pooled[found.base]
    rows = [_row([metric_name(name)], group, name) for name in group.measured[0].estimates]
    return Table(_header([analysis.POOLED], found.runs), rows)


def _shown(groups: Sequence[ComparedSet]) -> list[str]:
    """The headline metrics that some group has, or the rate of its one class."""
    names = dict.fromkeys(name for group in groups for each in group.differences for name in each)
    known = [name for name in HEADLINES if name in names]
    return known or list(names)


def _averages_table(found: Comparison) -> Table:
    """The means of every run, and their plain differences."""
    averages = []
    for place in range(len(found.runs)):
        cells = {cell: group.measured[place] for cell, group in found.cells.items()}
        pooled = found.pooled[found.base].measured[place]
        view = View(average="pictures", min_pictures=least(found.runs))
        averages.append(analysis.averages(pooled, cells, view)[1:])
    rows = []
    for same in zip(*averages, strict=True):
        for name in _shown(list(found.cells.values())):
            if name not in same[0].values:
                continue  # no cell that enters the means has it
            values = [each.values[name] for each in same]
            row = [f"{metric_name(name)}, {same[0].title}", *map(percent, values)]
            rows.append(row + [points(value - values[0]) for value in values[1:]])
    names = [run.name for run in found.runs]
    header = ["average", *names, *_differing(names)]
    return Table(header, rows)


def _cells_table(found: Comparison, name: str) -> Table:
    rows = [
        _row([generator, source], group, name)
        for (source, generator), group in found.cells.items()
        if any(name in each for each in group.differences)
    ]
    return Table(_header(["generator", "source"], found.runs), rows, names=2)


def _degradations_table(found: Comparison) -> Table:
    rows = [
        _row([degradation, metric_name(name)], group, name)
        for degradation, group in found.pooled.items()
        for name in _shown([group])
    ]
    return Table(_header(["degradation", "metric"], found.runs), rows, names=2)


def _runs_table(found: Comparison) -> Table:
    rows = []
    for run in found.runs:
        own = len(run.rows) - len(found.shared.rows)
        counts = [len(run.rows), run.n_unusable, own]
        rows.append([run.name, str(run.folder), *map(str, counts), f"{run.threshold:g}"])
    header = ["run", "folder", "scored", "without a score or label", "lacking elsewhere"]
    return Table([*header, "threshold"], rows, names=2)


def _blocks_of(found: Comparison, notes: Sequence[str]) -> Iterator[Block]:
    shared = found.shared
    yield from map(Caution, notes)
    yield (
        f"{len(shared.rows)} pictures were scored by all runs, "
        f"{int((shared.labels == 0).sum())} real and {int((shared.labels == 1).sum())} synthetic"
        + (", a picture once per degradation" if len(found.pooled) > 1 else "")
        + ". Everything below is of these alone. Each run has its own threshold."
    )
    yield _runs_table(found)
    yield Heading("All pictures")
    yield PAIRED
    yield _pooled_table(found)
    if found.cells:
        yield Heading("Averages")
        yield (
            "Means of the generators below that have pictures enough (--min_pictures of the first "
            "run). They have no interval, for generators share reals."
        )
        yield _averages_table(found)
    for name in _shown(list(found.cells.values())):
        yield Heading(f"Generators: {metric_name(name)}")
        yield _cells_table(found, name)
    if len(found.pooled) > 1:
        yield Heading("Degradations")
        yield f"Pooled over pictures. The tables above are of the degradation {found.base} alone."
        yield _degradations_table(found)


def _summary(found: Comparison) -> str:
    parts = [to_text(_pooled_table(found))]
    if found.cells:
        parts.append(to_text(_averages_table(found)))
    if len(found.pooled) > 1:
        parts.append(to_text(_degradations_table(found)))
    shared = count_pictures(found.shared.rows)
    counts = "; ".join(
        f"{run.name} has {count_pictures(run.rows.values()) - shared} more" for run in found.runs
    )
    last = f"{shared} pictures in common; {counts}. {PAIRED}"
    return "\n\n".join([*parts, last])


def _plots(found: Comparison) -> tuple[dict[str, bytes], dict[str, str]]:
    """PNG bytes and captions by file name. Raises ImportError without matplotlib."""
    import matplotlib.figure  # noqa: F401

    from ..reporting import plots_runs

    images: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    rows = [row for row in found.shared.rows if row.degradation == found.base]
    labels, logits = found.shared.select(rows)
    if 0 < labels.sum() < labels.size:
        images[f"{NAME}_roc.png"] = plots_runs.roc(labels, logits, [r.name for r in found.runs])
        captions[f"{NAME}_roc.png"] = "ROC curves, pooled over pictures"
    shown = _shown(list(found.cells.values()))
    metric = AUROC if AUROC in shown else next(iter(shown), "")
    for place, run in enumerate(found.runs[1:]):
        estimates = {
            cell: group.differences[place][metric].estimate
            for cell, group in found.cells.items()
            if metric in group.differences[place]
        }
        plot = plots_runs.differences(estimates, metric_name(metric))
        if plot is not None:
            name = f"{NAME}_generators_{place + 2}.png"
            images[name] = plot
            captions[name] = f"{metric_name(metric)} of {run.name} minus {found.runs[0].name}"
    return images, captions


NAME = "compare"
