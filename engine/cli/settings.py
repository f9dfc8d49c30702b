"""What the flags choose of the detector's name and configuration, before any weights are loaded.

All phases ask it, and the scripts that take main.py's flags. A detector that is scored without
torch needs none for its configuration either.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectors
from datasets._limits import PUBLISHED, UPRIGHT

from ..config import USUAL, Config
from ..weights.choice import Choice
from ..weights.loaded import WeightFile, detector_of
from ..weights.manifest import epoch_files
from . import rules

log = logging.getLogger(__name__)


def detector_name(args: argparse.Namespace) -> str:
    """That of `rules.detector_named`, else of the card of `--weights`, else default."""
    if named := rules.detector_named(args):
        return named
    path = Path(args.weights)
    if args.phase == "eval" and args.epochs is not None:
        path = next(iter(epoch_files(path, args.epochs).values()))
    return detector_of(str(path)) or USUAL


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The flags of these names that were given."""
    values = {name: getattr(args, name) for name in names}
    return {k: v for k, v in values.items() if v is not None and v is not False and v != []}


def _flag_layer(args: argparse.Namespace) -> dict[str, Any]:
    train = given(args, ("batch_size", "seed", "precision"))
    if args.phase != "train":
        score = given(args, ("batch_size", "seed"))
        return {"train": train, "score": score, "data": given(args, ("split",))}
    if args.epochs:
        [train["epochs"]] = args.epochs
    train |= given(args, ("accumulate", "save_every"))
    if args.save_all:
        train["save_epochs"] = 1
    return {"train": train, "data": given(args, ("leak_free",))}


def chosen(args: argparse.Namespace, name: str | None = None) -> Choice:
    """The detector that flags ask for, which is `name` where that is known already."""
    own = detectors.flags().items()
    return Choice(
        detector=name or detector_name(args),
        weights=args.weights,
        backbones=tuple(map(str, args.backbone_weights)),
        pretrain=bool(args.pretrain),
        ckpt=args.ckpt,
        config=args.config,
        own={named: given(args, flags.set) for named, flags in own if flags.set},
        common=_flag_layer(args),
        overrides=tuple(args.set),
        compile=args.compile,
    )


def resolve_config(args: argparse.Namespace, name: str, file: WeightFile | None) -> Config:
    """The configuration of a detector as flags ask for it, with the card of its weights."""
    return chosen(args, name).resolve(file)


def decoding(config: Config, usual: str) -> str:
    """How pictures are decoded: as data.decoding says, else as is `usual`; a line says when they
    are not as viewers show them."""
    chosen = config.data.decoding or usual
    for line in decoded_otherwise(chosen):
        log.info("%s", line)
    return chosen


def decoded_otherwise(decoding: str) -> list[str]:
    """A line for whoever reads results of pictures that are not decoded as a viewer shows them."""
    if decoding != PUBLISHED:
        return []
    return [
        "pictures are decoded as the published programs do, not turned by EXIF, 16 bit clipped: "
        f"data.decoding={PUBLISHED}; {UPRIGHT} is how viewers show them"
    ]
