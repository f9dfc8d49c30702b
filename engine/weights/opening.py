"""Detectors opened as they are chosen: their weights located, loaded and put on a device.

`engine/api.py`, the requests of all phases and the scripts come here with a `Choice`. A detector
made of others is opened with its members; what was fitted with other weights of theirs is refused.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import detectors
from detectors._errors import WeightsError

from ..config import Config, ConfigError
from ..runtime.device import PRECISIONS, Device
from .choice import Choice
from .fetch import fetch
from .loaded import Loaded, WeightFile, describe_member, locate
from .loading import build, check_keys, missing_parts, open_weights
from .manifest import BEST, PUBLISHED_BEST
from .onnx import load_onnx, open_onnx
from .onnx_graph import is_onnx

log = logging.getLogger(__name__)


def _own_file(choice: Choice) -> WeightFile:
    """The weights of a detector whose training has a folder below --ckpt: those of --weights, the
    published ones, or those trained there."""
    name = choice.detector
    kind, options = detectors.load(name), choice.resolve(None).options
    parts = kind.weight_parts(options)
    if choice.weights:
        return open_weights(locate(choice.weights, name), name, parts)
    if choice.pretrain:
        return open_weights(fetch(kind.entry(options)), name, parts)
    folder = kind.output_folder(options, choice.ckpt)
    assert folder is not None
    trained = folder / BEST
    if not trained.is_file():
        # The published program's file holds its own layer alone: the others lie beside its folder.
        if (folder / PUBLISHED_BEST).is_file():
            return open_weights(folder.parent, name, parts)
        raise WeightsError(
            f"{trained}: not there yet: --phase train makes it; --pretrain takes the published "
            "weights; or name a file or folder by --weights, such as the --output of its training"
        )
    return open_weights(trained, name)


def backbones(choice: Choice) -> list[Path]:
    """The files of --backbone_weights, each a path or a name of the manifest. Raises WeightsError
    when one is neither."""
    return [locate(path, "", "--backbone_weights") for path in choice.backbones]


def weight_file(choice: Choice) -> WeightFile:
    """The file of `--weights`, else the detector's own.

    Raises:
        WeightsError: not there, or not this detector's.
    """
    name = choice.detector
    if is_onnx(choice.weights):
        return open_onnx(locate(choice.weights, name), name)
    kind = detectors.load(name)
    if kind.output_folder(kind.Options(), choice.ckpt):
        return _own_file(choice)
    return open_weights(locate(choice.weights, name), name)


def check_variant(file: WeightFile, name: str, options: Any) -> None:
    """Raises WeightsError when weights are of another network than is asked for: their keys may be
    the same."""
    kind = detectors.load(name)
    then = file.card.options if file.card else {}
    for key, value in kind.chosen(options).items():
        if (was := then.get(key, value)) != value:
            raise WeightsError(
                f"{file.path}: holds {kind.title} with {key} {was}; found --{key} {value}: leave "
                "it out, or name other weights"
            )


def load(choice: Choice, on: Device) -> tuple[Loaded, Config]:
    """The detector with its weights, on the device, and the configuration it has.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    name = choice.detector
    if choice.combined:
        return _load_combined(choice, on)
    file = weight_file(choice)
    config = choice.resolve(file)
    if is_onnx(file.path):
        return load_onnx(name, config.options, file, on, choice.compile), config
    check_variant(file, name, config.options)
    if choice.pretrain and not choice.backbones:
        kind = detectors.load(name)
        for entry in missing_parts(kind, config.options, file.state).values():
            fetch(entry)
    loaded = build(name, config.options, file, backbones(choice), PRECISIONS[on.precision])
    loaded.model.optimise()
    loaded.model.to(on.device)
    if choice.compile:
        loaded.model.compile()
    return replace(loaded, compiled=choice.compile), config


def load_members(choice: Choice, options: Any, on: Device) -> list[tuple[Loaded, Config]]:
    """The members of a detector with their weights, each as it would be opened by itself."""
    pairs = detectors.load(choice.detector).made_of(options)
    return [load(choice.member(member, weights), on) for member, weights in pairs]


def _members_there(choice: Choice, options: Any, on: Device) -> list[Loaded | None]:
    """The members, with None for one whose weights are not here, where the options leave it out.

    Raises:
        WeightsError: it may not be left out, or none is here.
    """
    name = choice.detector
    members: list[Loaded | None] = []
    for member, weights in detectors.load(name).made_of(options):
        try:
            members.append(load(choice.member(member, weights), on)[0])
        except WeightsError as error:
            if options.missing != "leave_out":
                raise
            log.warning("%s is left out: %s", member, error)
            members.append(None)
    if not any(members):
        raise WeightsError(f"{name}: expected the weights of a member; found none of them")
    return members


def _check_members(
    name: str, path: Path, members: Sequence[Loaded | None], fitted: Sequence[Any]
) -> None:
    """Raises WeightsError when the whole was fitted with other weights or options."""
    if len(members) == len(fitted):  # one that is left out was not looked at
        fitted = [then for member, then in zip(members, fitted, strict=True) if member]
    found = [describe_member(member) for member in members if member]
    if [member.get("sha256") for member in fitted] != [member["sha256"] for member in found]:
        raise WeightsError(
            f"{path}: was fitted with other weights of its members: name those by --set "
            f"{name}.weights=[...], or fit it again"
        )
    for then, now in zip(fitted, found, strict=True):
        for key, value in then["options"].items():
            if now["options"].get(key) != value:
                raise WeightsError(
                    f"{path}: was fitted with {now['detector']}.{key}={value}; found "
                    f"{now['options'].get(key)}: give it by --set, or fit it again"
                )


def _load_combined(choice: Choice, on: Device) -> tuple[Loaded, Config]:
    """A detector made of others: fitted, by --weights; else the average of their probabilities."""
    name = choice.detector
    kind: Any = detectors.load(name)
    file = open_weights(locate(choice.weights, name), name) if choice.weights else None
    config = choice.resolve(file)
    fitted = file is not None and file.card is not None
    if config.options.fusion == "fitted" and not fitted:
        raise ConfigError(
            f"{name}.fusion=fitted: expected --weights of a fitted {name}; found none: "
            f"--phase train --detector {name} makes them"
        )
    every = _members_there(choice, config.options, on)
    model = kind(config.options, [member and member.model for member in every]).eval()
    model.to(on.device)
    members = [member for member in every if member]
    external = {f"{m.name}: {part}": p for m in members for part, p in m.external.items()}
    sums = [member.sha256 for member in members]
    digest = hashlib.sha256("".join(sums).encode()).hexdigest()
    if file is None or file.card is None:
        log.warning(
            "the members' probabilities are averaged as they are; --phase train --detector %s "
            "calibrates them on a labelled set",
            name,
        )
        path = Path("+".join(member.path.name for member in members))
        return Loaded(model, name, path, digest, 0.5, None, external, members), config
    _check_members(name, file.path, every, (file.card.extra or {}).get("members", []))
    check_keys(file.state, model.fusion.state_dict(prefix="fusion."), file.path)
    model.fusion.load_state_dict({k.removeprefix("fusion."): v for k, v in file.state.items()})
    model.fusion.to(on.device)
    card, digest = file.card, hashlib.sha256((digest + file.sha256).encode()).hexdigest()
    threshold, band = card.threshold, card.band
    return Loaded(model, name, file.path, digest, threshold, band, external, members), config
