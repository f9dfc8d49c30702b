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

from ..config import CONFIGS, DETECTION, USUAL, Config, parse_override, read_yaml, resolve
from ..weights.loaded import WeightFile, card_of
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
    card = card_of(path)
    return card.detector if card else USUAL


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The flags of these names that were given."""
    values = {name: getattr(args, name) for name in names}
    return {k: v for k, v in values.items() if v is not None and v is not False and v != []}


def _own_layer(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The detector's options that flags of its own set."""
    own = detectors.flags().get(name)
    return {name: given(args, own.set)} if own and own.set else {}


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


def _objective(layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """What is learnt, as the last layer that says so has it."""
    sections = [layer["train"] for _, layer in layers if isinstance(layer.get("train"), dict)]
    named = [section["objective"] for section in sections if "objective" in section]
    return str(named[-1]) if named else DETECTION


def _recipe_file(recipe: str, objective: str) -> Path:
    """The YAML of a recipe that learns an objective."""
    return CONFIGS / (f"{recipe}.yaml" if objective == DETECTION else f"{recipe}_{objective}.yaml")


def _own_config(name: str, layers: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    """The YAML of the network that the layers choose, or of what its backbone learns from."""
    if detectors.arrays(name):
        return _recipe_file(name, _objective(layers))
    kind = detectors.load(name)
    chosen: dict[str, Any] = {}
    for _, layer in layers:
        if isinstance(layer.get(name), dict):
            chosen |= {k: v for k, v in layer[name].items() if k in kind.CHOICE}
    # Of the choice alone: another option's slip is told by the whole configuration, with its layer.
    recipe = kind.recipe(resolve(name, [("", {name: chosen})]).options)
    return _recipe_file(recipe, _objective(layers))


def _is_members(override: str, name: str) -> bool:
    """Whether a --set is about a member of a detector made of others, not about itself."""
    section = override.split(".")[0]
    return section != name and section in detectors.available()


def resolve_config(args: argparse.Namespace, name: str, file: WeightFile | None) -> Config:
    """Layers: the detector's YAML, what the weights were trained with, --config, flags, --set."""
    layers = []
    # The card comes first, so that weights run as they were trained unless somebody says otherwise.
    if file is not None and file.card is not None:
        layers.append((str(file.path), {name: file.card.options}))
    if args.config:
        layers.append((str(args.config), read_yaml(args.config)))
    layers.append(("flags", _own_layer(args, name)))
    layers.append(("flags", _flag_layer(args)))
    sets = [text for text in args.set if name not in rules.COMBINED or not _is_members(text, name)]
    layers += [("--set", parse_override(text)) for text in sets]
    own = _own_config(name, layers)
    if own.exists():
        layers.insert(0, (str(own), read_yaml(own)))
    return resolve(name, layers)


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
