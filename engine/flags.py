"""What the flags of the command line choose: detector, configuration, device and weights."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import torch

from detectors._base import WeightsError

from .config import CONFIGS, Config, ConfigError, parse_override, read_yaml, resolve
from .predict import Device, open_device
from .weights import Loaded, WeightFile, build, locate, open_weights

log = logging.getLogger(__name__)


def detector_name(args: argparse.Namespace) -> str:
    """`--detector`, else cospy when one of its own flags is given, else default."""
    if args.detector:
        return args.detector
    return "cospy" if args.train_dataset or args.mode or args.branch or args.pretrain else "default"


def _cospy_layer(args: argparse.Namespace) -> dict[str, Any]:
    given = {k: getattr(args, k) for k in ("train_dataset", "mode", "branch")}
    return {"cospy": {k: v for k, v in given.items() if v is not None}}


def _flag_layer(args: argparse.Namespace) -> dict[str, Any]:
    train = {k: getattr(args, k) for k in ("epochs", "batch_size", "seed", "precision")}
    layer: dict[str, Any] = {"train": {k: v for k, v in train.items() if v is not None}}
    if args.batch_size and args.phase != "train":
        layer["score"] = {"batch_size": args.batch_size}
    return layer


def _own_config(name: str, args: argparse.Namespace) -> str:
    if name == "cospy":
        return f"cospy_{args.train_dataset or 'sd-v1_4'}"
    return name


def resolve_config(args: argparse.Namespace, name: str, file: WeightFile | None) -> Config:
    """Layers: the detector's YAML, what the weights were trained with, --config, flags, --set."""
    own = CONFIGS / f"{_own_config(name, args)}.yaml"
    layers = [(str(own), read_yaml(own))] if own.exists() else []
    if file is not None and file.card is not None:
        layers.append((str(file.path), {name: file.card.options}))
    if args.config:
        layers.append((str(args.config), read_yaml(args.config)))
    if name == "cospy":
        layers.append(("flags", _cospy_layer(args)))
    layers.append(("flags", _flag_layer(args)))
    layers += [("--set", parse_override(text)) for text in args.set]
    return resolve(name, layers)


def device(args: argparse.Namespace, precision: str | None) -> Device:
    """`--device` or `--gpu`, which falls back to the CPU with a warning; None means fp32.

    Raises:
        ConfigError: no such device, or both flags.
    """
    if args.gpu is not None and args.device:
        raise ConfigError("--gpu and --device: expected one of them; found both")
    name = args.device
    if args.gpu is not None:
        name = f"cuda:{args.gpu}"
        if args.gpu < 0 or args.gpu >= torch.cuda.device_count():
            log.warning("--gpu %d: no such GPU here; using the CPU", args.gpu)
            name = "cpu"
    return open_device(name, precision or "fp32")


def workers(args: argparse.Namespace, pictures: int) -> int:
    """`--workers`, else all cores but one; none for a few pictures."""
    if args.workers is not None:
        return args.workers
    return max(1, (os.cpu_count() or 1) - 1) if pictures >= 64 else 0


def cospy_folder(ckpt: Path, options: Any) -> Path:
    """Where CO-SPY's training puts its weights: below --ckpt, by variant and mode or branch."""
    part = options.branch if options.mode == "branch" else options.mode
    return ckpt / options.train_dataset / part


def weight_file(args: argparse.Namespace, name: str) -> WeightFile:
    """The file of `--weights`, else the detector's own.

    Raises:
        WeightsError: not there, or not this detector's.
    """
    chosen = args.weights
    if chosen is None and name == "cospy":
        # Before its weights, whether the variant exists.
        folder = cospy_folder(args.ckpt, resolve_config(args, name, None).options)
        trained = folder / "best.safetensors"
        chosen = f"cospy-{folder.parent.name}-{folder.name}" if args.pretrain else str(trained)
        if not (args.pretrain or trained.is_file()):
            raise WeightsError(
                f"{trained}: not there yet: --phase train makes it; or name a file by --weights"
            )
    return open_weights(locate(chosen, name), name)


def load(args: argparse.Namespace, on: Device) -> tuple[Loaded, Config]:
    """The detector with its weights, on the device, and the configuration it has.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    name = detector_name(args)
    file = weight_file(args, name)
    config = resolve_config(args, name, file)
    loaded = build(name, config.options, file)
    loaded.model.to(on.device)
    if args.compile:
        loaded.model.compile()
    return loaded, config
