"""The fit of detectors that learn at once, not by gradient: features first, then `Detector.fit`.

Phase train calls `fitted` in every process. The frozen encoder runs over each picture once; what is
kept of a picture is its feature. Nothing here writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from datasets._images import PictureDataset
from detectors._base import Detector

from ..config import Config, ConfigError
from ..runtime.device import Device
from ..runtime.distributed import World
from ..weights.loading import check_keys
from .encoder_cache import embed
from .start import TrainRequest


@dataclass(frozen=True)
class Fitted:
    """A fitted detector in evaluation mode. `config`: with its options, whose sizes may follow from
    the pictures; `pictures`: number of those that it was fitted to; `bad`: errors of the unreadable
    ones, by key."""

    model: Detector
    config: Config
    pictures: int
    bad: Mapping[str, str]


def fitted(request: TrainRequest, model: Detector, device: Device, world: World) -> Fitted:
    """The detector that fits the request's training pictures.

    Args:
        request: the pictures, seen as in scoring, and the recipe.
        model: with its frozen parts, on the device.
        device: that computes.
        world: the processes, which share the pictures; each gets the whole result.

    Raises:
        ConfigError: too many pictures cannot be read, or the rest are of one class.
        OptionError: the detector finds nothing to fit.
    """
    records, workers, config = request.pictures.train, request.workers, request.config
    pictures = PictureDataset(
        records, model.transform(train=False), seed=config.train.seed, limits=workers.limits,
        decoding=workers.decoding,
    )  # fmt: skip
    features = embed(model.eval(), pictures, device, config.train.batch_size, workers, False, world)
    assert features is not None
    bad = {records[index].key: error for index, error in features.errors.items()}
    if len(bad) > config.train.most_bad(len(records)):
        raise ConfigError(
            f"{len(bad)} of {len(records)} training pictures could not be read, such as "
            f"{min(bad)} ({bad[min(bad)]}): repair them, or allow more by --set "
            "train.max_bad=SHARE"
        )
    readable = sorted(features.rows_of)  # in the order of the records, whichever process had them
    labels = [int(records[index].label or 0) for index in readable]
    if len(set(labels)) < 2:
        raise ConfigError("expected readable training pictures of both classes; found one class")
    groups = [records[index].generator or records[index].source for index in readable]
    values = features.values[[features.rows_of[index] for index in readable]]
    options, state = type(model).fit(values, torch.tensor(labels), groups, model.options)
    # Only sizes differ: the frozen parts are moved, not read again.
    with torch.device("meta"):
        network = type(model)(options)
    outside = tuple(type(model).external(options))
    frozen = {k: v for k, v in model.state_dict().items() if k.startswith(outside)}
    check_keys(frozen | state, network.state_dict(), request.output)
    network.load_state_dict(frozen | state, assign=True)
    network.to(device.device)
    return Fitted(network.eval(), replace(config, options=options), len(readable), bad)
