"""The request of a training, and its start: from weights, frozen parts, a backbone, or nothing.

The request builder finds pictures and files; phase train builds the network from them, and the
training loop takes the request. No weight may stay random that a file should have given.
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
from ..weights.cards import sha256
from ..weights.loaded import WeightFile
from ..weights.loading import external_state, load_backbone, load_exact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """The pictures of a training. `how`: a text on how training and validation pictures were told
    apart; `places`: folders and files that all came from; `tests`: sets that are measured after
    each epoch, by name; `until`: the year or month by whose end all generators were out, '' where
    none is asked for."""

    train: list[Record]
    val: list[Record]
    how: str
    places: list[Path]
    tests: dict[str, list[Record]] = field(default_factory=dict)
    until: str = ""


@dataclass(frozen=True)
class Start:
    """The files that a training starts from: `file`, the weights, None = afresh; `backbones`, which
    hold frozen parts, or start a backbone."""

    file: WeightFile | None
    backbones: list[Path]

    def origins(self) -> list[dict[str, str]]:
        """The files and their digests, as run.json names them."""
        files = [(self.file.path, self.file.sha256)] if self.file else []
        files += [(path, sha256(path)) for path in self.backbones]
        return [{"file": str(path), "sha256": digest} for path, digest in files]


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
    """Raises the errors of `model_to_train` for files that are missing, without building a network;
    weights that are there but do not fit are not noticed."""
    kind = detectors.load(config.detector)
    state = dict(start.file.state) if start.file else {}
    if kind.external(config.options):
        external_state(kind, config.options, state, start.backbones, None)


def adapted(config: Config, start: Start) -> Config:
    """The configuration of a training fit for its start: frozen batch norms need statistics that a
    fresh network has not, and learn theirs there."""
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
        # Pre-training makes the file that others start from, and starts from none.
        return kind.objectives()[config.train.objective](config.options)
    model = kind(config.options)
    outside = kind.external(config.options)
    state = dict(start.file.state) if start.file else {}
    # A network of the detector without a frozen part passes over what its others need.
    if outside or kind.FROZEN_BACKBONES:
        state |= external_state(kind, config.options, state, start.backbones, None)[0]
        if start.file is None:
            # Afresh: all but the frozen parts stays as it was drawn.
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
