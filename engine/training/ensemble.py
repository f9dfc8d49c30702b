"""The fusion of several detectors: few numbers, fitted to the scores of its members.

Phase train scores a labelled set with each member and fits here. What is reported of the fusion
must come from pictures that it was not fitted on. Nothing here scores, or looks at a picture.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets import Record
from datasets._images import Sample
from detectors._fusion import Fusion

from ..config import ConfigError
from ..evaluation import estimates, metrics
from ..evaluation.calibration import fit_platt
from ..scoring import other_scores
from ..scoring.degradations import NONE
from ..scoring.loop import row_of
from ..scoring.table import ScoreRow
from ..weights.loaded import Loaded

CROSS_FITTED = "the ensemble on training pictures of generators left out in fitting"
SHOWN = (estimates.AUROC, estimates.AP, estimates.BALANCED_ACCURACY)
log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FOLDS = 5
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse strengths, as scikit-learn counts


def fit(labels: Ints, logits: Floats, groups: Sequence[str], kind: str) -> Fusion:
    """The fusion of members that fits the labels best.

    Args:
        labels: (N,), 0 real, 1 synthetic.
        logits: of each member, (N, members).
        groups: generator or source of each picture; the fitted layer's penalty is the one that does
            best on those that it was not fitted on.
        kind: `average` or `fitted`, see `EnsembleOptions`.

    Raises:
        ValueError: a class has not two pictures, or `average` finds a member whose logits fall
            where they should rise.
    """
    fusion = Fusion(logits.shape[1], kind)
    state = fusion.state_dict()
    for number, column in enumerate(logits.T):
        # A fitted layer may turn a member around, which then is calibrated the other way round.
        falls = kind == "fitted" and column[labels == 1].mean() < column[labels == 0].mean()
        sign = -1.0 if falls else 1.0
        platt = fit_platt(labels, sign * column)
        state["slope"][number], state["offset"][number] = sign * platt.slope, platt.offset
    if fusion.fc is not None:
        with torch.no_grad():
            calibrated = fusion.calibrated(torch.from_numpy(logits).float()).double().numpy()
        weight, bias = _weigh(labels, calibrated, folds(labels, groups))
        state["fc.weight"].copy_(torch.from_numpy(weight))
        state["fc.bias"].copy_(torch.from_numpy(bias))
    return fusion


def _weigh(labels: Ints, calibrated: Floats, fold: Ints) -> tuple[Floats, Floats]:
    """Weights (1, members) and bias (1,) of a logistic regression in which both classes weigh the
    same, with the penalty that does best on each fold in turn, left out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]
    # Classes of a set are seldom of one size, and scores are those of an even share.
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    search = GridSearchCV(model, {"C": PENALTIES}, scoring="neg_log_loss", cv=parts)
    best = search.fit(calibrated, labels).best_estimator_
    return best.coef_, best.intercept_


def fused(fusion: Fusion, logits: Floats) -> Floats:
    """Logits (N,) of the ensemble from those of its members."""
    with torch.no_grad():
        return fusion(torch.from_numpy(logits).float()).double().numpy()


def folds(labels: Ints, groups: Sequence[str]) -> Ints:
    """Number of each picture's fold, from 0. All pictures of a generator, or of a source of
    reals, are in one fold, and each fold has both classes; a class of one group is divided by
    pictures.

    Raises:
        ValueError: a class has not two pictures.
    """
    from sklearn.model_selection import GroupKFold

    # Groups stay whole, or a fusion would be measured on generators that it was fitted on.
    chosen = [np.flatnonzero(labels == label) for label in (0, 1)]
    names = []
    for pictures in chosen:
        own: list[Any] = [groups[i] for i in pictures.tolist()]
        names.append(own if len(set(own)) > 1 else pictures.tolist())
    count = min(FOLDS, *(len(set(own)) for own in names))
    if count < 2:
        raise ValueError("expected two pictures of each class or more to fit on")
    numbers = np.empty(len(labels), dtype=np.int64)
    for pictures, own in zip(chosen, names, strict=True):
        for number, (_, part) in enumerate(GroupKFold(count).split(pictures, groups=own)):
            numbers[pictures[part]] = number
    return numbers


def cross_fitted(labels: Ints, logits: Floats, groups: Sequence[str], kind: str) -> Floats:
    """Logits (N,) of the ensemble for pictures whose generator or source it was not fitted on: each
    fold's by a fusion fitted to the others.

    Args:
        labels, logits, groups, kind: as `fit` takes them.

    Raises:
        ValueError: the pictures outside a fold cannot be fitted.
    """
    numbers, results = folds(labels, groups), np.empty(len(labels))
    for number in range(numbers.max() + 1):
        test = numbers == number
        rest = [group for group, left_out in zip(groups, test, strict=True) if not left_out]
        results[test] = fused(fit(labels[~test], logits[~test], rest, kind), logits[test])
    return results


def table_name(number: int, member: Loaded) -> str:
    """File name of a member's scores; its number is in it, for a detector may be a member twice."""
    return f"scores_{number}_{member.name}.csv"


def given_rows(path: Path, records: Sequence[Record]) -> list[ScoreRow]:
    """Rows of records as another program's file has them; without a logit where it says nothing.

    Raises:
        ConfigError: see `other_scores.logits`.
    """
    logits = other_scores.logits(path, records)
    known = {key: logit for key, logit in logits.items() if not np.isnan(logit)}
    return [row_of(record, Sample(0), known.get(record.key), NONE) for record in records]


def _usable(tables: Sequence[Sequence[ScoreRow]]) -> dict[str, tuple[int, list[float]]]:
    """Label and the members' logits of each picture that all of them could read, by key."""
    usable: dict[str, tuple[int, list[float]]] = {}
    for rows in zip(*tables, strict=True):
        # A fusion needs all members; of a picture that one could not read it learns nothing.
        logits = [row.logit for row in rows if row.logit is not None and row.label is not None]
        if len(logits) == len(rows):
            usable[rows[0].key] = (int(rows[0].label or 0), logits)
    return usable


def _part(
    usable: dict[str, tuple[int, list[float]]], records: Sequence[Record]
) -> tuple[Ints, Floats, list[str]]:
    """Labels, members' logits and groups of the records that all members could read."""
    chosen = [(*usable[r.key], r.generator or r.source) for r in records if r.key in usable]
    labels = np.array([label for label, _, _ in chosen], dtype=np.int64)
    logits = np.array([logits for _, logits, _ in chosen], dtype=np.float64)
    return labels, logits, [group for _, _, group in chosen]


def _validation_metrics(labels: Ints, logits: Floats) -> dict[str, float]:
    """The metrics of SHOWN, each in [0, 1], of logits (N,)."""
    values = (
        metrics.auroc(labels, logits),
        metrics.average_precision(labels, logits),
        metrics.balanced_accuracy(labels, logits, 0.5),
    )
    return dict(zip(SHOWN, values, strict=True))


def _fitted(
    labels: Ints, logits: Floats, groups: Sequence[str], kind: str
) -> tuple[Fusion, dict[str, float] | None]:
    """The fusion, and its cross-fitted metrics; None where too few groups fit. Arguments as of
    `fit`.

    Raises:
        ConfigError: it cannot be fitted.
    """
    try:
        fusion = fit(labels, logits, groups, kind)
    except ValueError as error:
        raise ConfigError(f"the ensemble cannot be fitted: {error}") from error
    try:
        return fusion, _validation_metrics(labels, cross_fitted(labels, logits, groups, kind))
    except ValueError as error:
        log.warning("no figures on generators left out in fitting: %s", error)
        return fusion, None


@dataclass(frozen=True)
class Fit:
    """A fitted fusion. `validation`: metrics of each member and of the fusion, by name;
    `cross_fitted`: those of the fusion on training pictures whose group was left out in fitting,
    None where too few groups fit."""

    fusion: Fusion
    validation: list[dict[str, float]]
    cross_fitted: dict[str, float] | None


def fit_tables(
    tables: Sequence[Sequence[ScoreRow]],
    train: Sequence[Record],
    val: Sequence[Record],
    kind: str,
) -> Fit:
    """The fusion fitted to the members' scores of the training pictures.

    Args:
        tables: rows of each member, of the same pictures in one order.
        train, val: records to fit on, and to measure on.
        kind: `average` or `fitted`, see `EnsembleOptions`.

    Raises:
        ConfigError: it cannot be fitted.
    """
    usable = _usable(tables)
    if lost := len(train) + len(val) - len(usable):
        log.warning("%d of %d pictures lack a member's score", lost, len(train) + len(val))
    fusion, cross = _fitted(*_part(usable, train), kind)
    labels, logits, _ = _part(usable, val)
    results = [_validation_metrics(labels, column) for column in logits.T]
    results.append(_validation_metrics(labels, fused(fusion, logits)))
    return Fit(fusion, results, cross)


def summary(titles: Sequence[str], fit: Fit) -> str:
    """A Markdown table of validation results, in percent, and a line of the cross-fitted ones.
    `titles`: of the members and of the fusion."""
    lines = [f"| validation | {' | '.join(SHOWN)} |", "|---|" + "---|" * len(SHOWN)]
    for title, values in zip(titles, fit.validation, strict=True):
        lines.append(f"| {title} | {' | '.join(f'{100 * values[k]:.2f}' for k in SHOWN)} |")
    if fit.cross_fitted:
        shown = ", ".join(f"{name} {100 * value:.2f}" for name, value in fit.cross_fitted.items())
        lines.append(f"{CROSS_FITTED}: {shown}")
    return "\n".join(lines)
