"""What the flags of the command line choose: detector, configuration, device and weights."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import detectors
from detectors._errors import WeightsError

from ..config import (
    DETECTION,
    Config,
    ConfigError,
)
from ..runtime.device import PRECISIONS, Device
from ..training.start import Start
from ..weights.fetch import fetch
from ..weights.loaded import Loaded, WeightFile, describe_member, is_run, locate
from ..weights.loading import build, check_keys, missing_parts, open_weights, read_folder
from ..weights.manifest import BEST, PUBLISHED_BEST, several
from ..weights.onnx import load_onnx, open_onnx
from ..weights.onnx_graph import is_onnx
from . import rules, settings

log = logging.getLogger(__name__)


def train_folder(args: argparse.Namespace, name: str, config: Config) -> Path:
    """Where training puts its results without --output."""
    if folder := detectors.load(name).output_folder(config.options, args.ckpt):
        return folder
    objective = config.train.objective
    return Path("runs", name, "train" if objective == DETECTION else objective)


def output(args: argparse.Namespace, usual: Path) -> Path:
    """The folder of a run's results: --output, else the usual one; in it that of --tag."""
    return (args.output or usual) / (args.tag or "")


def _own_file(args: argparse.Namespace, name: str) -> WeightFile:
    """The weights of a detector whose training has a folder below --ckpt: those of --weights, the
    published ones, or those trained there."""
    kind, options = detectors.load(name), settings.resolve_config(args, name, None).options
    parts = kind.weight_parts(options)
    if args.weights:
        return open_weights(locate(args.weights, name), name, parts)
    if args.pretrain:
        return open_weights(fetch(kind.entry(options)), name, parts)
    folder = kind.output_folder(options, args.ckpt)
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


def backbones(args: argparse.Namespace) -> list[Path]:
    """The files of --backbone_weights, each a path or a name of the manifest. Raises WeightsError
    when one is neither."""
    return [locate(str(path), "", "--backbone_weights") for path in args.backbone_weights]


def weight_file(args: argparse.Namespace, name: str) -> WeightFile:
    """The file of `--weights`, else the detector's own.

    Raises:
        WeightsError: not there, or not this detector's.
    """
    if is_onnx(args.weights):
        return open_onnx(locate(args.weights, name), name)
    kind = detectors.load(name)
    if kind.output_folder(kind.Options(), args.ckpt):
        return _own_file(args, name)
    return open_weights(locate(args.weights, name), name)


def _check_variant(file: WeightFile, name: str, options: Any) -> None:
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


def load(args: argparse.Namespace, on: Device) -> tuple[Loaded, Config]:
    """The detector with its weights, on the device, and the configuration it has.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    name = settings.detector_name(args)
    if name in rules.COMBINED:
        return _load_combined(args, name, on)
    file = weight_file(args, name)
    config = settings.resolve_config(args, name, file)
    if is_onnx(file.path):
        return load_onnx(name, config.options, file, on, args.compile), config
    _check_variant(file, name, config.options)
    if args.pretrain and not args.backbone_weights:
        kind = detectors.load(name)
        for entry in missing_parts(kind, config.options, file.state).values():
            fetch(entry)
    loaded = build(name, config.options, file, backbones(args), PRECISIONS[on.precision])
    loaded.model.optimise()
    loaded.model.to(on.device)
    if args.compile:
        loaded.model.compile()
    return replace(loaded, compiled=args.compile), config


def _member_args(args: argparse.Namespace, name: str, weights: str | None) -> argparse.Namespace:
    """The command line as if it asked for one member: flags that belong to another detector are
    not given, and a --set of `member.key` is the member's."""
    texts = [text for text in args.set if text.split(".")[0] == name]
    changes: dict[str, Any] = {"detector": name, "set": texts, "config": None}
    for other, own in detectors.flags().items():
        if other != name:
            changes |= dict.fromkeys(own.implies)
    member = argparse.Namespace(**{**vars(args), **changes, "weights": None})
    if member.pretrain and weights is None:
        return member
    # None where the entry is the usual one: then the member looks for its weights by itself.
    entry = detectors.load(name).entry(settings.resolve_config(member, name, None).options)
    member.weights, member.pretrain = weights or (entry if entry != name else None), False
    return member


def load_members(
    args: argparse.Namespace, name: str, options: Any, on: Device
) -> list[tuple[Loaded, Config]]:
    """The members of a detector with their weights, each as its own command line would load it."""
    pairs = detectors.load(name).made_of(options)
    return [load(_member_args(args, member, weights), on) for member, weights in pairs]


def _members_there(
    args: argparse.Namespace, name: str, options: Any, on: Device
) -> list[Loaded | None]:
    """The members, with None for one whose weights are not here, where the options leave it out.

    Raises:
        WeightsError: it may not be left out, or none is here.
    """
    members: list[Loaded | None] = []
    for member, weights in detectors.load(name).made_of(options):
        try:
            members.append(load(_member_args(args, member, weights), on)[0])
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


def _load_combined(args: argparse.Namespace, name: str, on: Device) -> tuple[Loaded, Config]:
    """A detector made of others: fitted, by --weights; else the average of their probabilities."""
    kind: Any = detectors.load(name)
    file = open_weights(locate(args.weights, name), name) if args.weights else None
    config = settings.resolve_config(args, name, file)
    fitted = file is not None and file.card is not None
    if config.options.fusion == "fitted" and not fitted:
        raise ConfigError(
            f"{name}.fusion=fitted: expected --weights of a fitted {name}; found none: "
            f"--phase train --detector {name} makes them"
        )
    every = _members_there(args, name, config.options, on)
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


def start_file(args: argparse.Namespace, name: str) -> WeightFile | None:
    """The file of --weights that training goes on from; None without it, or when it names folders
    of branches to be fused."""
    one = len(several(args.weights)) == 1 and name not in rules.COMBINED
    path = locate(args.weights, name) if one else None
    return open_weights(path, name) if path and (is_run(path) or not path.is_dir()) else None


def start_of(args: argparse.Namespace, name: str, config: Config, file: WeightFile | None) -> Start:
    """What training goes on from: `start_file`, or the parts that must be trained before.

    Raises:
        WeightsError: it is not there, or of another variant.
    """
    kind = detectors.load(name)
    parts = kind.trained_before(config.options)
    if parts and file is None:
        trained = kind.output_folder(config.options, args.ckpt)
        usual = [trained.parent] if trained else []
        folders = [locate(each, name) for each in several(args.weights)] or usual
        file = read_folder(name, folders[0], parts, *folders[1:])
    elif args.weights and file is None:
        raise WeightsError(f"{args.weights}: expected a weight file of {name}; found a folder")
    if file is not None:
        _check_variant(file, name, config.options)
    return Start(file, backbones(args))
