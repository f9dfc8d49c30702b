"""The weights that a training starts from, and where its results go, as flags name them.

What is scored is opened by `weights/opening.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import detectors
from detectors._errors import WeightsError

from ..config import DETECTION, Config
from ..training.start import Start
from ..weights.loaded import WeightFile, file_of, locate
from ..weights.loading import open_weights, read_folder
from ..weights.manifest import several
from ..weights.opening import backbones, check_variant
from . import rules, settings


def train_folder(args: argparse.Namespace, name: str, config: Config) -> Path:
    """Where training puts its results without --output."""
    if folder := detectors.load(name).output_folder(config.options, args.ckpt):
        return folder
    objective = config.train.objective
    return Path("runs", name, "train" if objective == DETECTION else objective)


def output(args: argparse.Namespace, usual: Path) -> Path:
    """The folder of a run's results: --output, else the usual one; in it that of --tag."""
    return (args.output or usual) / (args.tag or "")


def start_file(args: argparse.Namespace, name: str) -> WeightFile | None:
    """The file of --weights that training goes on from; None without it, or when it names folders
    of branches to be fused."""
    one = len(several(args.weights)) == 1 and name not in rules.COMBINED
    path = file_of(locate(args.weights, name)) if one else None
    return open_weights(path, name) if path and not path.is_dir() else None


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
        check_variant(file, name, config.options)
    return Start(file, backbones(settings.chosen(args, name)))
