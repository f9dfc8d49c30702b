"""Training of the ensemble: its members score a labelled set, then few numbers are fitted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets import Record
from detectors._base import describe_options

from . import metrics
from .calibrate import fit_platt
from .config import Config, ConfigError
from .decoding import Workers
from .degrade import NONE
from .evaluate import Scorer, score_table
from .listing import listing_digest, outlook
from .predict import Device
from .run import RUN, begin, log_to, open_output, run_info, write_json
from .table import ScoreRow
from .train import BEST, LOG
from .weight_files import Card, save_weights
from .weights import Loaded, describe_member

SHOWN = (metrics.AUROC, metrics.AP, metrics.BALANCED_ACCURACY)
log = logging.getLogger(__name__)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fusion:
    """logit = logits (N, members) @ weight (members,) + bias."""

    weight: Floats
    bias: float

    def __call__(self, logits: Floats) -> Floats:
        return logits @ self.weight + self.bias

    def state(self) -> dict[str, Tensor]:
        """The ensemble's own layer."""
        weight = torch.tensor(self.weight[None], dtype=torch.float32)
        return {"fc.weight": weight, "fc.bias": torch.tensor([self.bias], dtype=torch.float32)}


def fit(labels: NDArray[np.int64], logits: Floats, fusion: str) -> Fusion:
    """Fits labels (N,) on the members' logits (N, members).

    Args:
        labels: 0 real, 1 synthetic.
        logits: of each member.
        fusion: `average`: a slope and offset of each member alone (Platt 1999), then their mean;
            `fitted`: logistic regression on all.

    Raises:
        ValueError: a class is missing, or a member's logits fall where they should rise.
    """
    if fusion == "average":
        fits = [fit_platt(labels, column) for column in logits.T]
        slopes, offsets = np.array([[p.slope, p.offset] for p in fits]).T
        return Fusion(slopes / len(fits), float(offsets.mean()))
    from sklearn.linear_model import LogisticRegression

    # Members' logits differ in scale; the mild penalty must not.
    spread = logits.std(axis=0) + 1e-12
    model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000)
    model.fit(logits / spread, labels)
    return Fusion(model.coef_[0] / spread, float(model.intercept_[0]))


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
) -> tuple[NDArray[np.int64], Floats]:
    chosen = [found[record.key] for record in records if record.key in found]
    labels = np.array([label for label, _ in chosen], dtype=np.int64)
    return labels, np.array([logits for _, logits in chosen], dtype=np.float64)


def _judged(labels: NDArray[np.int64], logits: Floats) -> dict[str, float]:
    values = (
        metrics.auroc(labels, logits),
        metrics.average_precision(labels, logits),
        metrics.balanced_accuracy(labels, logits, 0.5),
    )
    return dict(zip(SHOWN, values, strict=True))


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
        begin(output, info, resume, ("config", "precision", "members", "listing"), names[0])
        log.info("%s", outlook(train, val, how))
        tables = []
        for name, (member, own) in zip(names, members, strict=True):
            log.info("%s: %d pictures", member.model.title, len(records))
            scorer = Scorer(member.model, device, own, workers)
            tables.append(score_table(output / name, records, scorer, (NONE,), resume))
        found = _usable(tables)
        if lost := len(records) - len(found):
            log.warning("%d of %d pictures could not be read", lost, len(records))
        try:
            fusion = fit(*_part(found, train), config.options.fusion)
        except ValueError as error:
            raise ConfigError(f"the ensemble cannot be fitted: {error}") from error
        labels, logits = _part(found, val)
        results = [_judged(labels, column) for column in logits.T]
        results.append(_judged(labels, fusion(logits)))
        info["validation"] = results
        card = Card(config.detector, describe_options(config.options), extra=dict(info))
        save_weights(output / BEST, fusion.state(), card)
        write_json(output / RUN, info)
    titles = [*(m.model.title for m, _ in members), "Ensemble"]
    return f"{summary(titles, results)}\nweights in {output / BEST}"
