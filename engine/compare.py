"""Runs side by side: metrics on the pictures that all of them scored, and their differences."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets._paths import visible

from . import _analysis, _blocks, metrics
from ._analysis import View
from ._document import Block, Caution, Heading, Table, to_html, to_markdown, to_text
from ._runs import Common, Run, cautions, common, least, names, pairing, read_run
from ._tables import UNDEFINED, metric_name, percent, points
from .config import ConfigError
from .files import write_file
from .metrics import Cell, Difference, Estimate, Floats, Ints, Metrics
from .progress import Progress
from .table import count_pictures

RESAMPLES, SEED = 1000, 0
NAME = "compare"
HEADLINES = (metrics.AP, metrics.AUROC, metrics.ACCURACY)
PAIRED = (
    "Differences are to the first run, in percentage points except for Brier score and log loss. "
    "Their 95 % intervals and p-values are of a paired bootstrap: each resample draws the same "
    "pictures for all runs. The p-values are of single tests: they are not corrected for how many "
    "there are."
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """One set of pictures: the metrics of every run, and how far each run but the first is above
    the first, by metric."""

    measured: Sequence[Metrics]
    differences: Sequence[Mapping[str, Difference]]


@dataclass(frozen=True)
class Comparison:
    """`pooled` has a group per degradation, `base` first; `cells` are of `base`."""

    runs: Sequence[Run]
    shared: Common
    base: str
    pooled: Mapping[str, Group]
    cells: Mapping[Cell, Group]


# Numbers


def difference(
    labels: Ints,
    first: tuple[Floats, float],
    other: tuple[Floats, float],
    wanted: Sequence[str],
    resamples: int = RESAMPLES,
) -> dict[str, Difference]:
    """How far each wanted metric of another run is above that of the first.

    A run is its logits (N,), in the order of `labels` (N,), and its threshold, a probability.
    """

    def paired(
        a: Floats, b: Floats, names: Sequence[str], threshold: float
    ) -> dict[str, Difference]:
        if not names:
            return {}
        return metrics.paired_difference(labels, a, b, names, threshold, resamples, SEED)

    if first[1] == other[1]:
        return paired(other[0], first[0], wanted, first[1])
    # Only the side of its own threshold that a picture lies on counts, and signs keep that.
    signs = [
        np.where(logits > metrics.threshold_logit(threshold), 1.0, -1.0)
        for logits, threshold in (other, first)
    ]
    found = paired(
        signs[0], signs[1], [name for name in wanted if name in metrics.AT_THRESHOLD], 0.5
    )
    free = [name for name in wanted if name not in metrics.AT_THRESHOLD]
    found |= paired(other[0], first[0], free, 0.5)
    return {name: found[name] for name in wanted}


def _group(
    labels: Ints, logits: Floats, thresholds: Sequence[float], wanted: Sequence[str], resamples: int
) -> Group:
    """The group of labels (N,), logits (runs, N); `resamples` for the intervals of single runs."""
    runs = list(zip(logits, thresholds, strict=True))
    resamples = metrics.resamples_for(labels, resamples)
    measured = [metrics.evaluate(labels, *run, resamples, SEED) for run in runs]
    known = [name for name in wanted if name in measured[0].estimates]
    known += [name for name in measured[0].estimates if len(measured[0].estimates) == 1]
    known = list(dict.fromkeys(known))
    drawn = metrics.resamples_for(labels, RESAMPLES)
    return Group(measured, [difference(labels, runs[0], run, known, drawn) for run in runs[1:]])


def measure(runs: Sequence[Run], shared: Common) -> Comparison:
    """Everything that is to be said about the runs."""
    asked = runs[0].info.get("degradations")
    base = str(asked[0]) if isinstance(asked, list) and asked else shared.rows[0].degradation
    groups = _analysis.by_degradation(shared.rows, base)
    base, *_ = groups
    cells = metrics.cells(groups[base], pairing(runs))
    thresholds = [run.threshold for run in runs]
    total = len(shared.rows) + sum(map(len, cells.values()))
    pooled, parts = {}, {}
    with Progress(total, "comparing") as progress:
        for name, rows in groups.items():
            pooled[name] = _group(*shared.part(rows), thresholds, metrics.METRICS, RESAMPLES)
            progress.advance(len(rows))
        for cell, rows in cells.items():
            parts[cell] = _group(*shared.part(rows), thresholds, HEADLINES, 0)
            progress.advance(len(rows))
    return Comparison(runs, shared, base, pooled, parts)


# Text


def _signed(estimate: Estimate) -> str:
    if isinstance(estimate, metrics.PlainEstimate):
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


def _row(first: Sequence[str], group: Group, name: str) -> list[str]:
    found = [*first, *(percent(each.estimates.get(name)) for each in group.measured)]
    for each in group.differences:
        known = each.get(name)
        found += [_signed(known.estimate), _p(known.p_value)] if known else [UNDEFINED] * 2
    return found


def _pooled_table(found: Comparison) -> Table:
    group = found.pooled[found.base]
    rows = [_row([metric_name(name)], group, name) for name in group.measured[0].estimates]
    return Table(_header([_analysis.POOLED], found.runs), rows)


def _shown(groups: Sequence[Group]) -> list[str]:
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
        averages.append(_analysis.averages(pooled, cells, view)[1:])
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

    from . import _plots_runs

    images: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    rows = [row for row in found.shared.rows if row.degradation == found.base]
    labels, logits = found.shared.part(rows)
    if 0 < labels.sum() < labels.size:
        images[f"{NAME}_roc.png"] = _plots_runs.roc(labels, logits, [r.name for r in found.runs])
        captions[f"{NAME}_roc.png"] = "ROC curves, pooled over pictures"
    shown = _shown(list(found.cells.values()))
    metric = metrics.AUROC if metrics.AUROC in shown else next(iter(shown), "")
    for place, run in enumerate(found.runs[1:]):
        estimates = {
            cell: group.differences[place][metric].estimate
            for cell, group in found.cells.items()
            if metric in group.differences[place]
        }
        plot = _plots_runs.differences(estimates, metric_name(metric))
        if plot is not None:
            name = f"{NAME}_generators_{place + 2}.png"
            images[name] = plot
            captions[name] = f"{metric_name(metric)} of {run.name} minus {found.runs[0].name}"
    return images, captions


def _write(folder: Path, found: Comparison, notes: Sequence[str]) -> None:
    try:
        images, captions = _plots(found)
        plots = list(_blocks.plots(list(images), captions))
    except ImportError:
        images, plots = {}, list(_blocks.plots(None, {}))
    title = f"Comparison of {', '.join(run.name for run in found.runs)}"
    blocks = [*_blocks_of(found, notes), *plots]
    files = {
        **images,
        f"{NAME}.md": to_markdown(title, blocks).encode(),
        f"{NAME}.html": to_html(title, blocks, images).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{NAME}_*.png"):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        write_file(folder / name, content)
    log.info("the comparison is in %s", folder)


def compare(folders: Sequence[Path], output: Path | None = None) -> str:
    """Sets runs of phase eval side by side, on the pictures that all of them scored.

    The first run is what the others are compared with; each is read at its own threshold. Writes
    compare.md, compare.html and plots into `output` where that is given.

    Returns:
        The summary table for standard output.

    Raises:
        ConfigError: fewer than two folders, one that holds no run, runs that have no picture in
            common or contradict one another about what is real.
    """
    if len(folders) < 2:
        raise ConfigError(f"--compare: expected two runs or more; found {len(folders)}")
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}: expected a folder; found a file")
    read = [read_run(folder) for folder in folders]
    titles = names(folders)
    runs = [replace(run, name=visible(name)) for run, name in zip(read, titles, strict=True)]
    shared = common(runs)
    notes = list(cautions(runs, shared))
    for note in notes:
        log.warning("%s", note)
    found = measure(runs, shared)
    if output is not None:
        _write(output, found, notes)
    return _summary(found)
