"""Saved evaluations, the pictures that several of them have in common, and how they differ there.

Called by phase compare. Runs are compared on pictures that all of them scored, never on others; a
folder that is no run, or labels that disagree, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets._limits import UPRIGHT

from ..config import ConfigError
from ..plain_data import read_json
from ..runtime.progress import Progress
from ..scoring import probability
from ..scoring.probability import EVEN, restated
from ..scoring.table import ScoreRow, read_table
from . import analysis, benchmark, estimates, metrics
from .analysis import MIN_PICTURES
from .bootstrap import Floats, Ints
from .cells import Cell, Pairing, by_cell, reason_unusable
from .estimates import Difference, Metrics

SCORES, INFO = "scores.csv", "run.json"
# What makes a difference between runs hard to put down to the detector alone.
CONDITIONS = ("benchmark", "protocol", "degradations", "decoding")
ONCE_ALL = {"decoding": UPRIGHT}  # of runs from before there was a choice
RESAMPLES, SEED = 1000, 0
HEADLINES = (estimates.AP, estimates.AUROC, estimates.ACCURACY)
Key = tuple[str, str]  # of a picture, and its degradation


@dataclass(frozen=True)
class Run:
    """One evaluation: `info` is its run.json, `rows` its scores by picture and degradation."""

    folder: Path
    name: str
    info: dict[str, Any]
    threshold: float
    rows: dict[Key, ScoreRow]
    n_unusable: int


@dataclass(frozen=True)
class Common:
    """The pictures that all runs scored, N of them, in the order of the first run's table.

    `rows` are the first run's; `labels` (N,), `logits` (runs, N); `places` says where in them a
    picture is.
    """

    rows: Sequence[ScoreRow]
    labels: Ints
    logits: Floats
    places: dict[Key, int]

    def select(self, rows: Sequence[ScoreRow]) -> tuple[Ints, Floats]:
        """Labels (n,) and logits (runs, n) of some of the rows."""
        columns = np.array([self.places[row.key, row.degradation] for row in rows], dtype=np.int64)
        return self.labels[columns], self.logits[:, columns]


def _expected(folder: Path, instead: str) -> ConfigError:
    """The error of a folder that is no run's."""
    return ConfigError(
        f"--compare {folder}: expected a folder that phase eval wrote, with {INFO} and {SCORES}; "
        f"found {instead}"
    )


def _info(folder: Path) -> dict[str, Any]:
    """The run.json of a run. Raises ConfigError where it is missing, damaged or of another kind."""
    try:
        info = read_json(folder / INFO)
    except OSError as error:
        raise _expected(folder, f"{INFO}: {error.strerror}") from error
    except ValueError as error:
        raise _expected(folder, f"a damaged {INFO}") from error
    # Without it nothing says which answers were right; training's run.json has none.
    threshold = info.get("threshold") if isinstance(info, dict) else None
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise _expected(folder, f"no threshold in {INFO}")
    share = info.setdefault("prevalence", EVEN)  # of runs from before there was a choice
    if not isinstance(share, float) or not 0 < share < 1:
        raise _expected(folder, f"a wrong prevalence in {INFO}")
    return info


def _table(folder: Path) -> list[ScoreRow]:
    """The scores of a run. Raises ConfigError without any."""
    try:
        return read_table(folder / SCORES)
    except OSError as error:
        raise _expected(folder, f"{SCORES}: {error.strerror}") from error


def read_run(folder: Path) -> Run:
    """A saved evaluation; pictures without a label or a score are only counted.

    Raises:
        ConfigError: the folder holds none, or a damaged one.
    """
    info = _info(folder)
    rows = restated(_table(folder), info["prevalence"])
    usable = {
        (row.key, row.degradation): row
        for row in rows
        if row.label is not None and not reason_unusable(row)
    }
    return Run(folder, folder.name, info, float(info["threshold"]), usable, len(rows) - len(usable))


def names(folders: Sequence[Path]) -> list[str]:
    """Short distinct names of runs: the parts of their paths between what all begin with and what
    all end in, and numbers where that is nothing, as for one folder named twice."""
    paths = [folder.resolve().parts for folder in folders]
    shortest = min(map(len, paths))

    def in_common(ends: Sequence[Sequence[str]]) -> int:
        """How many parts all begin with, one of the shortest path left over."""
        # Not strict: paths are of different depths, and what all share ends with the shortest.
        same = [len(set(parts)) == 1 for parts in zip(*ends, strict=False)]
        return min([*same, False].index(False), shortest - 1)

    # The end is looked for behind the start, or a part that is both would be cut twice.
    start = in_common(paths)
    end = in_common([path[start:][::-1] for path in paths])
    short = ["/".join(path[start : max(start + 1, len(path) - end)]) for path in paths]
    if len(set(short)) < len(short):
        return [f"{number}: {name}" for number, name in enumerate(short, 1)]
    return short


def least(runs: Sequence[Run]) -> int:
    """How many pictures a generator needs to enter the means, as the first run has it."""
    count = runs[0].info.get("min_pictures")
    return count if isinstance(count, int) else MIN_PICTURES


def common(runs: Sequence[Run]) -> Common:
    """The pictures that all runs scored.

    Raises:
        ConfigError: nothing, or the runs disagree about what is real.
    """
    first = runs[0]
    # By name and degradation: the paths of two machines differ, the keys below a root do not.
    keys = [key for key in first.rows if all(key in run.rows for run in runs)]
    if not keys:
        samples = (f"{next(iter(run.rows), ('none',))[0]!r} in {run.folder}" for run in runs)
        raise ConfigError(
            "--compare: expected pictures of the same names and degradations in all runs; found "
            f"none in common: {', '.join(samples)}"
        )
    # A difference would be of the labels, not of the detectors.
    for run in runs[1:]:
        differ = [key for key in keys if run.rows[key].label != first.rows[key].label]
        if differ:
            label = "synthetic" if first.rows[differ[0]].label else "real"
            raise ConfigError(
                f"--compare: expected the same labels in all runs; found {len(differ)} that "
                f"differ, such as {differ[0][0]!r}, {label} only in {first.folder}"
            )
    rows = [first.rows[key] for key in keys]
    return Common(
        rows,
        np.array([row.label for row in rows], dtype=np.int64),
        np.array([[run.rows[key].logit for key in keys] for run in runs], dtype=np.float64),
        {key: index for index, key in enumerate(keys)},
    )


def cautions(runs: Sequence[Run], shared: Common) -> Iterator[str]:
    """What a reader of the comparison has to know: other conditions, other pictures."""
    for name in CONDITIONS:
        values = [run.info.get(name, ONCE_ALL.get(name)) for run in runs]
        if any(value != values[0] for value in values):
            values_of = (
                f"{run.name} {', '.join(value) if isinstance(value, list) else value or 'none'}"
                for run, value in zip(runs, values, strict=True)
            )
            yield f"The runs differ in {name}: {'; '.join(values_of)}."
    # Told, not refused: pictures that were saved anew are still the same to a reader.
    for run in runs[1:]:
        others = sum(
            bool(row.digest) and bool(theirs) and theirs != row.digest
            for row in shared.rows
            for theirs in [run.rows[row.key, row.degradation].digest]
        )
        if others:
            yield f"{others} files of {run.name} have the names, but not the content of the others."
    for run in runs:
        if "counts" not in run.info:
            yield f"{run.name} did not finish: {run.folder} holds part of its scores."


def pairing(runs: Sequence[Run]) -> Pairing:
    """What makes a cell: as the protocol of all runs has it, where they have one in common."""
    asked = {(run.info.get("benchmark"), run.info.get("protocol")) for run in runs}
    # Runs of two protocols pair their pictures in two ways, so none of these holds for both.
    [(name, protocol), *others] = asked
    if others or not isinstance(name, str) or not isinstance(protocol, str):
        return Pairing()
    if name not in benchmark.available():
        return Pairing()
    used = benchmark.load(name).protocols.get(protocol)
    return used.pairing if used else Pairing()


@dataclass(frozen=True)
class ComparedSet:
    """One set of pictures in all runs: the metrics of each, and how far each but the first is above
    the first, by metric."""

    measured: Sequence[Metrics]
    differences: Sequence[Mapping[str, Difference]]


@dataclass(frozen=True)
class Comparison:
    """All that is compared: `pooled` by degradation, `base` first; `cells` are of `base`."""

    runs: Sequence[Run]
    shared: Common
    base: str
    pooled: Mapping[str, ComparedSet]
    cells: Mapping[Cell, ComparedSet]


def difference(
    labels: Ints,
    first: tuple[Floats, float],
    other: tuple[Floats, float],
    wanted: Sequence[str],
    resamples: int = RESAMPLES,
) -> dict[str, Difference]:
    """How far each wanted metric of another run is above that of the first.

    Args:
        labels: (N,), 1 = synthetic, 0 = real.
        first, other: a run's logits (N,), in the same order, and its threshold, a probability.
        wanted: names of metrics.
        resamples: of the paired bootstrap.
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
        np.where(logits > probability.threshold_logit(threshold), 1.0, -1.0)
        for logits, threshold in (other, first)
    ]
    differences = paired(
        signs[0], signs[1], [name for name in wanted if name in estimates.AT_THRESHOLD], 0.5
    )
    free = [name for name in wanted if name not in estimates.AT_THRESHOLD]
    differences |= paired(other[0], first[0], free, 0.5)
    return {name: differences[name] for name in wanted}


def _compared(
    labels: Ints, logits: Floats, thresholds: Sequence[float], wanted: Sequence[str], resamples: int
) -> ComparedSet:
    """The metrics of labels (N,) and logits (runs, N), `resamples` for the runs' intervals."""
    runs = list(zip(logits, thresholds, strict=True))
    resamples = metrics.resamples_for(labels, resamples)
    measured = [metrics.evaluate(labels, *run, resamples, SEED) for run in runs]
    known = [name for name in wanted if name in measured[0].estimates]
    known += [name for name in measured[0].estimates if len(measured[0].estimates) == 1]
    known = list(dict.fromkeys(known))
    drawn = metrics.resamples_for(labels, RESAMPLES)
    return ComparedSet(
        measured, [difference(labels, runs[0], run, known, drawn) for run in runs[1:]]
    )


def measure(runs: Sequence[Run], shared: Common) -> Comparison:
    """The metrics of all runs on their common pictures, and the differences to the first run."""
    asked = runs[0].info.get("degradations")
    base = str(asked[0]) if isinstance(asked, list) and asked else shared.rows[0].degradation
    groups = analysis.by_degradation(shared.rows, base)
    base, *_ = groups
    cells = by_cell(groups[base], pairing(runs))
    thresholds = [run.threshold for run in runs]
    total = len(shared.rows) + sum(map(len, cells.values()))
    pooled, parts = {}, {}
    with Progress(total, "comparing") as progress:
        for name, rows in groups.items():
            pooled[name] = _compared(*shared.select(rows), thresholds, estimates.METRICS, RESAMPLES)
            progress.advance(len(rows))
        for cell, rows in cells.items():
            parts[cell] = _compared(*shared.select(rows), thresholds, HEADLINES, 0)
            progress.advance(len(rows))
    return Comparison(runs, shared, base, pooled, parts)
