"""What a training goes on from: weights, frozen parts, a backbone, or nothing.

The request builder finds the files; phase train builds the network from them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

import detectors
from datasets import Record
from detectors._base import Detector

from ..config import DETECTION, Config
from ..runtime.workers import Workers
from ..weights.files import sha256
from ..weights.loading import WeightFile, external_state, load_backbone, load_exact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """What a training sees. `how`: how training and validation pictures were told apart; `tests`:
    what is measured after each epoch, by name; `places`: folders and files that all came from."""

    train: list[Record]
    val: list[Record]
    how: str
    places: list[Path]
    tests: dict[str, list[Record]] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What training goes on from: `file`, the weights, None = afresh; `backbones`, files that hold
    frozen parts, or that a backbone starts from."""

    file: WeightFile | None
    backbones: list[Path]

    def origins(self) -> list[dict[str, str]]:
        """The files, as run.json names them."""
        found = [(file.path, file.sha256) for file in (self.file,) if file]
        found += [(path, sha256(path)) for path in self.backbones]
        return [{"file": str(path), "sha256": digest} for path, digest in found]


@dataclass(frozen=True)
class TrainRequest:
    """A training as it is asked for. `start`: what the network goes on from; `output`: the folder
    of the run; `compiled`: by torch.compile; `only_check`: look whether all is there, and train
    nothing; `tag`: the run's name; `resume`, `overwrite`: go on with, or delete, the run that the
    folder holds."""

    config: Config
    start: Start
    pictures: Pictures
    device: torch.device
    output: Path
    workers: Workers
    compiled: bool = False
    only_check: bool = False
    tag: str = ""
    resume: bool = False
    overwrite: bool = False


def check_start(config: Config, start: Start) -> None:
    """Looks whether all is there that `model_to_train` needs, and raises what that does, except for
    weights that are there but do not fit."""
    kind = detectors.load(config.detector)
    state = dict(start.file.state) if start.file else {}
    if kind.external(config.options):
        external_state(kind, config.options, state, start.backbones, None)


def adapted(config: Config, start: Start) -> Config:
    """The configuration of a training with what it starts from: frozen batch norms need statistics
    that a fresh network has not, and so they learn theirs there."""
    if not config.train.freeze_batchnorm or start.backbones or start.file:
        return config
    log.warning(
        "train.freeze_batchnorm: false here, for without --weights and --backbone_weights the "
        "network starts afresh and has no statistics to keep"
    )
    return replace(config, train=replace(config.train, freeze_batchnorm=False))


def model_to_train(config: Config, start: Start) -> Detector:
    """A detector as training starts it: fresh, from a backbone, or from weights.

    Raises:
        WeightsError: these do not fit.
    """
    kind = detectors.load(config.detector)
    if config.train.objective != DETECTION:
        return kind.objectives()[config.train.objective](config.options)
    model = kind(config.options)
    outside = kind.external(config.options)
    state = dict(start.file.state) if start.file else {}
    # A network of the detector without a frozen part passes over what its others need.
    if outside or kind.FROZEN_BACKBONES:
        state |= external_state(kind, config.options, state, start.backbones, None)[0]
        if start.file is None:
            fresh = tuple(k for k in model.state_dict() if not k.startswith(tuple(outside)))
            load_exact(model, state, Path(config.detector), fresh)
        else:
            load_exact(model, state, start.file.path, kind.begins_fresh(config.options))
        return model
    for path in start.backbones:
        load_backbone(model, path)
    if start.file:
        load_exact(model, state, start.file.path)
    if not (start.file or start.backbones):
        model.start_from_nothing()
    return model
