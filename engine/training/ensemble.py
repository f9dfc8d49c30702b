"""Training of the ensemble: its members score a labelled set, then few numbers are fitted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets import Record
from datasets._splits import outlook
from detectors._base import describe_options
from detectors._fusion import Fusion

from ..config import Config, ConfigError
from ..evaluation import estimates, metrics
from ..evaluation.calibration import fit_platt
from ..runtime.device import Device
from ..runtime.run_folder import RUN, begin, log_to, open_output, write_json
from ..runtime.workers import Workers
from ..scoring.degradations import NONE
from ..scoring.provenance import run_info
from ..scoring.scorer import Scorer, listing_digest, score_table
from ..scoring.table import ScoreRow
from ..weights.files import Card, save_weights
from ..weights.loading import Loaded, describe_member
from ..weights.manifest import BEST
from .outputs import LOG

CROSS_FITTED = "the ensemble on training pictures of generators left out in fitting"
SHOWN = (estimates.AUROC, estimates.AP, estimates.BALANCED_ACCURACY)
log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FOLDS = 5
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse strengths, as scikit-learn counts


def fit(labels: Ints, logits: Floats, groups: Sequence[str], kind: str) -> Fusion:
    """The fusion of members that fits labels (N,) best.

    Args:
        labels: 0 real, 1 synthetic.
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
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    search = GridSearchCV(model, {"C": PENALTIES}, scoring="neg_log_loss", cv=parts)
    best = search.fit(calibrated, labels).best_estimator_
    return best.coef_, best.intercept_


def fused(fusion: Fusion, logits: Floats) -> Floats:
    """Logits (N,) of the ensemble from those of its members."""
    with torch.no_grad():
        return fusion(torch.from_numpy(logits).float()).double().numpy()


def folds(labels: Ints, groups: Sequence[str]) -> Ints:
    """The number of each picture's fold, from 0. All pictures of a generator, or of a source of
    reals, are in one fold, and each fold has both classes; a class of one group is divided by
    pictures.

    Raises:
        ValueError: a class has not two pictures.
    """
    from sklearn.model_selection import GroupKFold

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
    """The ensemble's logits (N,) of pictures whose generator or source it was not fitted on: each
    fold's by what the others give. Raises ValueError when those cannot be fitted."""
    numbers, found = folds(labels, groups), np.empty(len(labels))
    for number in range(numbers.max() + 1):
        test = numbers == number
        rest = [group for group, left_out in zip(groups, test, strict=True) if not left_out]
        found[test] = fused(fit(labels[~test], logits[~test], rest, kind), logits[test])
    return found


def table_name(number: int, member: Loaded) -> str:
    """File of a member's scores; a detector may be a member twice."""
    return f"scores_{number}_{member.name}.csv"


def _usable(tables: Sequence[Sequence[ScoreRow]]) -> dict[str, tuple[int, list[float]]]:
    """Label and the members' logits of each picture that all of them could read, by key."""
    found: dict[str, tuple[int, list[float]]] = {}
    for rows in zip(*tables, strict=True):
        logits = [row.logit for row in rows if row.logit is not None and row.label is not None]
        if len(logits) == len(rows):
            found[rows[0].key] = (int(rows[0].label or 0), logits)
    return found


def _part(
    found: dict[str, tuple[int, list[float]]], records: Sequence[Record]
) -> tuple[Ints, Floats, list[str]]:
    """Labels, members' logits and groups of the records that all members could read."""
    chosen = [(*found[r.key], r.generator or r.source) for r in records if r.key in found]
    labels = np.array([label for label, _, _ in chosen], dtype=np.int64)
    logits = np.array([logits for _, logits, _ in chosen], dtype=np.float64)
    return labels, logits, [group for _, _, group in chosen]


def _judged(labels: Ints, logits: Floats) -> dict[str, float]:
    values = (
        metrics.auroc(labels, logits),
        metrics.average_precision(labels, logits),
        metrics.balanced_accuracy(labels, logits, 0.5),
    )
    return dict(zip(SHOWN, values, strict=True))


def _fitted(
    labels: Ints, logits: Floats, groups: Sequence[str], kind: str
) -> tuple[Fusion, dict[str, float] | None]:
    """The fusion, and how it does on what it was not fitted on; None where too few groups fit.

    Raises:
        ConfigError: it cannot be fitted.
    """
    try:
        fusion = fit(labels, logits, groups, kind)
    except ValueError as error:
        raise ConfigError(f"the ensemble cannot be fitted: {error}") from error
    try:
        return fusion, _judged(labels, cross_fitted(labels, logits, groups, kind))
    except ValueError as error:
        log.warning("no figures on generators left out in fitting: %s", error)
        return fusion, None


def summary(names: Sequence[str], results: Sequence[dict[str, float]]) -> str:
    """A Markdown table of validation results, percent."""
    lines = [f"| validation | {' | '.join(SHOWN)} |", "|---|" + "---|" * len(SHOWN)]
    for name, values in zip(names, results, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{100 * values[k]:.2f}' for k in SHOWN)} |")
    return "\n".join(lines)


def run(
    members: Sequence[tuple[Loaded, Config]],
    config: Config,
    train: Sequence[Record],
    val: Sequence[Record],
    device: Device,
    output: Path,
    workers: Workers,
    how: str,
    resume: bool,
    overwrite: bool,
    tag: str = "",
) -> str:
    """Scores both parts with every member, which comes with its own configuration, fits on `train`,
    writes best.safetensors and run.json. `how` says how the parts were told apart.

    Returns:
        What members and ensemble do on `val`, a Markdown table, and where the weights are.

    Raises:
        ConfigError: the folder holds another run, a name stands for two pictures, or the set cannot
            be fitted.
    """
    records = [*train, *val]
    if twice := {record.key for record in train} & {record.key for record in val}:
        raise ConfigError(
            f"expected names of their own for training and validation pictures; found {min(twice)} "
            "among both: list them in one CSV with a column split"
        )
    names = [table_name(number, member) for number, (member, _) in enumerate(members)]
    with open_output(output, (BEST, RUN, LOG, *names), resume, overwrite), log_to(output / LOG):
        info = run_info(config, device, None)
        described = [describe_member(member) for member, _ in members]
        info |= {"members": described, "listing": listing_digest(records), "split": how}
        info["tag"] = tag
        begin(
            output, info, resume, ("config", "precision", "threads", "members", "listing"), names[0]
        )
        log.info("%s", outlook(train, val, how))
        tables = []
        for name, (member, own) in zip(names, members, strict=True):
            log.info("%s: %d pictures", member.model.title, len(records))
            scorer = Scorer(member.model, device, own, workers)
            tables.append(score_table(output / name, records, scorer, (NONE,), resume))
        found = _usable(tables)
        if lost := len(records) - len(found):
            log.warning("%d of %d pictures could not be read", lost, len(records))
        fusion, honest = _fitted(*_part(found, train), config.options.fusion)
        labels, logits, _ = _part(found, val)
        results = [_judged(labels, column) for column in logits.T]
        results.append(_judged(labels, fused(fusion, logits)))
        info |= {"validation": results, "cross_fitted": honest}
        card = Card(config.detector, describe_options(config.options), extra=dict(info))
        save_weights(output / BEST, fusion.state_dict(prefix="fusion."), card)
        write_json(output / RUN, info)
    titles = [*(m.model.title for m, _ in members), "Ensemble"]
    table = summary(titles, results)
    if honest:
        shown = ", ".join(f"{name} {100 * value:.2f}" for name, value in honest.items())
        table += f"\n{CROSS_FITTED}: {shown}"
    return f"{table}\nweights in {output / BEST}"
