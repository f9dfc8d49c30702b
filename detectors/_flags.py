"""Flags of the command line that belong to one detector, and the rules on them, as plain data.

A detector NAME that has such flags states them in `_NAME_flags.py` as `FLAGS`, an `OwnFlags`. The
parser reads them through `detectors.flags`, so that --help shows them without importing torch, and
the engine needs no detector's name. Nothing here may import more than the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Flag:
    """A flag `--name`. `phases`: those that heed it; `options`: keywords of argparse; `member`:
    whether a detector made of others passes it on to this one; `range`: of a number, both ends."""

    name: str
    options: Mapping[str, Any]
    phases: tuple[str, ...] = ("train", "eval", "test")
    member: bool = True
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class OptionRule:
    """Flags, of which `refused` says of the resolved options whether they have no effect; `message`
    what was expected and found, with {options} in braces."""

    flags: tuple[str, ...]
    refused: Callable[[Any], bool]
    message: str


@dataclass(frozen=True)
class Published:
    """What the published program does when it is called without arguments. `names`: of the detector
    and of its variant, for messages; `options`: flags that choose it. To evaluate it: `benchmark`;
    `weights`, the manifest's entry; `encoders`, entries too, the first one needed always, the rest
    where the user trained the weights; `trained`, below --ckpt, where training puts them. To train
    it: `family`; `pictures` and `fetch`, where they lie otherwise and the command that brings them
    there; `branches`, folders that must be trained before, by `recipe`."""

    names: tuple[str, str]
    options: Mapping[str, Any]
    benchmark: str
    weights: str
    encoders: tuple[str, ...]
    trained: Path
    family: str
    pictures: Path
    fetch: str
    branches: tuple[Path, ...]
    recipe: str


@dataclass(frozen=True)
class OwnFlags:
    """`title` heads the group in --help. `implies`: flags of which any means this detector where
    none is named. `set`: flags that are options of this detector, under the same names. `rules`: on
    resolved options. `refused`: flags of all detectors that have no effect on the training of this
    one. `combines`: whether it is made of other detectors. `published`: see `Published`; where it
    is stated, pictures are known for each phase where none are named."""

    title: str = ""
    flags: tuple[Flag, ...] = ()
    implies: tuple[str, ...] = ()
    set: tuple[str, ...] = ()
    rules: tuple[OptionRule, ...] = ()
    refused: tuple[str, ...] = ()
    combines: bool = False
    published: Published | None = None


# Flags of a training by gradient, which mean nothing to a detector that is fitted at once.
NOT_OF_FITTED = (
    *("weights", "batch_size", "accumulate", "epochs", "seed", "save_every", "save_all"),
    "compile",
)
