"""Detectors on the same pictures: entries, their metrics, and which cannot be told apart.

`scripts/leaderboard.py` reads entries here, `board_page` prints them. Pictures and labels are those
of the evaluation folders; a stranger's table of scores adds logits to them and nothing else. What
an entry lacks, and signs that look turned round, are stated and never mended.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ConfigError
from ..evaluation import clusters, comparison, metrics
from ..evaluation.analysis import by_degradation
from ..evaluation.cells import by_cell
from ..evaluation.comparison import Key, Run
from ..evaluation.estimates import (
    ACCURACY_REAL,
    ACCURACY_SYNTHETIC,
    AP,
    AUROC,
    ECE,
    TPR_AT_1,
    TPR_AT_5,
    Metrics,
)
from ..scoring import other_scores
from ..scoring.probability import EVEN, score_of
from ..scoring.table import ScoreRow

COLUMNS = (AUROC, AP, ACCURACY_REAL, ACCURACY_SYNTHETIC, TPR_AT_1, TPR_AT_5, ECE)
LEVEL = 0.05  # p-value below which two entries are told apart
RESAMPLES, SEED = 1000, 0


@dataclass(frozen=True)
class Entry:
    """One detector's scores of the board's pictures. `info`: its run.json, empty for a stranger's
    table; `foreign`: rows that are of no picture of the board."""

    name: str
    rows: Mapping[Key, ScoreRow]
    threshold: float
    info: Mapping[str, Any] = field(default_factory=dict)
    foreign: int = 0


@dataclass(frozen=True)
class Standing:
    """An entry with its numbers. `missing`: pictures of the board that it has no score of;
    `group`: 1 for those that cannot be told from the first, and so on; `axes`: generator, source,
    kind or degradation -> name -> AUROC; `seen`: generators that it learnt from; `turned`: whether
    its labels look turned round."""

    entry: Entry
    measured: Metrics
    clustered: bool
    missing: int
    group: int
    axes: Mapping[str, Mapping[str, float]]
    seen: frozenset[str]

    @property
    def turned(self) -> bool:
        """Whether the whole interval of the AUROC lies below chance."""
        auroc = self.measured[AUROC]
        return max(auroc.value, auroc.high if not math.isnan(auroc.high) else 0) < 0.5

    @property
    def milliseconds(self) -> float | None:
        """Time per picture that the run scored; None where it scored none itself."""
        scored = self.entry.info.get("counts", {}).get("scored_now")
        seconds = self.entry.info.get("seconds")
        return 1000 * seconds / scored if scored and seconds else None

    @property
    def memory(self) -> float | None:
        """Most memory that the run's main process held, in GiB; None where it is not known."""
        value = self.entry.info.get("peak_memory_gib")
        return value if isinstance(value, float) else None

    @property
    def machine(self) -> str:
        """The machine that the time is of."""
        info = self.entry.info
        names = ("device", "precision", "platform")
        return ", ".join(str(info[name]) for name in names if info.get(name))


@dataclass(frozen=True)
class Board:
    """The standings, best first. `pictures`: of the board, under the degradation `base`; `names`:
    the columns of each axis, in their order."""

    standings: Sequence[Standing]
    base: str
    n_real: int
    n_synthetic: int
    names: Mapping[str, Sequence[str]]


def pictures_of(runs: Sequence[Run]) -> dict[Key, ScoreRow]:
    """The board's pictures: those that some evaluation has, with a row of the first that does.

    Raises:
        ConfigError: evaluations contradict one another about what is real.
    """
    rows: dict[Key, ScoreRow] = {}
    for run in runs:
        for key, row in run.rows.items():
            if rows.setdefault(key, row).label != row.label:
                raise ConfigError(f"expected one label for each picture; found both at {key[0]!r}")
    return rows


def entry_of_run(run: Run, name: str) -> Entry:
    """The entry of an evaluation."""
    return Entry(name, run.rows, run.threshold, run.info)


def read_scores(file: Path, name: str, pictures: Mapping[Key, ScoreRow], base: str) -> Entry:
    """The entry of a stranger's CSV: a column that names pictures, and `logit` or `score`, the
    probability of synthetic; where it has no column `degradation`, all are of `base`.

    Raises:
        LayoutError: no CSV. ConfigError: other columns, a number that is none, a picture twice,
            or no picture of the board.
    """
    named, said = other_scores.read(file)
    identity: Callable[[ScoreRow], str] = (
        (lambda row: row.digest) if named == "digest" else (lambda row: row.key)
    )
    by_name: defaultdict[Key, list[Key]] = defaultdict(list)  # copies of a file share a digest
    for key, picture in pictures.items():
        by_name[identity(picture), picture.degradation].append(key)
    scored: dict[Key, ScoreRow] = {}
    foreign = 0
    for row in said:
        places = by_name.get((row.name, row.degradation or base), [])
        foreign += not places
        for key in places:
            if key in scored:
                raise ConfigError(f"{file}: expected each picture once; found {row.name!r} again")
            scored[key] = replace(pictures[key], logit=row.logit, score=score_of(row.logit))
    if not scored:
        raise ConfigError(
            f"{file}: expected scores of the board's pictures; found none by {named}, such as "
            f"{next(iter(pictures))[0]!r}"
        )
    return Entry(name, scored, EVEN, foreign=foreign)


def _aurocs(groups: Mapping[str, Sequence[ScoreRow]]) -> dict[str, float]:
    """The AUROC of each group of rows that has both classes."""
    values = {}
    for name, rows in groups.items():
        measured = metrics.evaluate_rows(rows, EVEN, 0)
        if AUROC in measured.estimates:
            values[name] = measured[AUROC].value
    return values


def _by_pool(rows: Sequence[ScoreRow], pool: Callable[[ScoreRow], str]) -> dict[str, float]:
    """AUROC of each pool of real pictures against all synthetic ones."""
    fakes = [row for row in rows if row.label == 1]
    pools: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.label == 0 and pool(row):
            pools[pool(row)].append(row)
    return _aurocs({name: [*reals, *fakes] for name, reals in pools.items()})


def _axes(
    rows: Sequence[ScoreRow], groups: Mapping[str, Sequence[ScoreRow]], kinds: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """AUROC by generator, source, kind and degradation, those of one name alone left out."""
    cells: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for (_, generator), members in by_cell(rows).items():
        cells[generator] += members
    # A generator of several sources has their real pictures together, each once.
    distinct = {name: list(dict.fromkeys(members)) for name, members in cells.items()}
    axes = {
        "generator": _aurocs(distinct),
        "source": _by_pool(rows, lambda row: row.source),
        "kind": _by_pool(rows, lambda row: kinds.get(row.key, "")),
        "degradation": _aurocs(groups) if len(groups) > 1 else {},
    }
    return {axis: values for axis, values in axes.items() if values}


def _measured(rows: Sequence[ScoreRow], threshold: float, resamples: int) -> tuple[Metrics, bool]:
    """The metrics of rows, with intervals over generators and sources where there are enough of
    these, else over pictures; and whether there are."""
    plain = metrics.evaluate_rows(rows, threshold, resamples, SEED)
    clustered = clusters.intervals(rows, plain, threshold, resamples, SEED)
    return replace(plain, estimates={**plain.estimates, **clustered}), bool(clustered)


def differ(first: Entry, other: Entry, base: str, resamples: int) -> bool:
    """Whether a paired bootstrap tells the AUROC of two entries apart, on the pictures that both
    have under `base`."""
    keys = [key for key in first.rows if key[1] == base and key in other.rows]
    labels = np.array([first.rows[key].label for key in keys], dtype=np.int64)
    if len(set(labels.tolist())) < 2:
        return False
    logits = [
        np.array([entry.rows[key].logit for key in keys], dtype=np.float64)
        for entry in (first, other)
    ]
    compared = comparison.difference(
        labels, (logits[0], EVEN), (logits[1], EVEN), [AUROC], resamples
    )
    return compared[AUROC].p_value < LEVEL


def _groups(entries: Sequence[Entry], base: str, resamples: int) -> list[int]:
    """The group of each entry, best first: one that differs from the first of its group begins the
    next."""
    groups: list[int] = []
    first = 0
    for index, entry in enumerate(entries):
        if index and differ(entries[first], entry, base, resamples):
            first = index
        groups.append(groups[-1] + (first == index) if groups else 1)
    return groups


def measure(
    entries: Iterable[Entry],
    pictures: Mapping[Key, ScoreRow],
    base: str,
    kinds: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> Board:
    """The board of some entries, by AUROC.

    Args:
        entries: each on the pictures that it has a score of.
        pictures: of the board.
        base: the degradation of the ranking; others are an axis.
        kinds: what real pictures show, by their key; empty where unknown.
        resamples: of the intervals and tests.

    Raises:
        ConfigError: an entry's pictures under `base` are of one class.
    """
    asked = [key for key in pictures if key[1] == base]
    results: list[tuple[Entry, Metrics, bool, dict[str, dict[str, float]]]] = []
    for entry in entries:
        groups = by_degradation(list(entry.rows.values()), base)
        rows = groups.get(base, [])
        measured, clustered = _measured(rows, entry.threshold, resamples)
        if AUROC not in measured.estimates:
            raise ConfigError(
                f"{entry.name}: expected real and synthetic pictures under {base}; found "
                f"{measured.n_real} real and {measured.n_synthetic} synthetic"
            )
        results.append((entry, measured, clustered, _axes(rows, groups, kinds or {})))
    results.sort(key=lambda result: (-result[1][AUROC].value, result[0].name))
    numbers = _groups([entry for entry, *_ in results], base, resamples)
    standings = [
        Standing(
            entry, measured, clustered,
            missing=sum(key not in entry.rows for key in asked), group=group, axes=axes,
            seen=frozenset(entry.info.get("trained_on") or ()),
        )
        for (entry, measured, clustered, axes), group in zip(results, numbers, strict=True)
    ]  # fmt: skip
    names: dict[str, list[str]] = {}
    for axis in ("generator", "source", "kind", "degradation"):
        present = sorted({name for s in standings for name in s.axes.get(axis, ())})
        if present:
            names[axis] = present
    labels = [pictures[key].label for key in asked]
    return Board(standings, base, labels.count(0), labels.count(1), names)
