"""Which flags go together, and whether what they name is there: all that is told without PyTorch.

main.py asks before it imports anything heavy, so that a mistake is answered at once. `RULES` is the
one table of flags that have no effect beside others. Nothing here may import torch or numpy at its
top, or read a picture.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import detectors
from datasets import LayoutError
from datasets._layout import is_folder, unexpected
from datasets._paths import ALL

from ..config import USUAL, ConfigError, check_sections, parse_override, read_yaml
from ..scoring.own_threshold import OwnThreshold
from ..weights import manifest
from .argument_parser import Parser
from .bare import is_bare
from .parser import benchmarks, parser

OWN = detectors.flags()  # of single detectors, by their names
COMBINED = detectors.combined()
# Their weights are no entry of the manifest: those of members, or what training left.
ELSEWHERE = tuple(name for name, own in OWN.items() if own.combines or own.published)
SHOWN = 3  # missing files that an error names


@dataclass(frozen=True)
class Rule:
    """`flags`, none of which may be given where `refused` holds of the command line and of the
    detector's name, which is None as long as only the weights know it. `message` says what was
    expected and found, {in braces} the values of flags, and `name`."""

    flags: tuple[str, ...]
    refused: Callable[[argparse.Namespace, str | None], Any]
    message: str


def _phase(flags: Iterable[str], phases: tuple[str, ...]) -> Rule:
    wanted = " or ".join(phases)
    message = f"expected --phase {wanted}; found {{phase}}"
    return Rule(tuple(flags), lambda a, _: a.phase not in phases, message)


def _other(*names: str) -> Callable[[argparse.Namespace, str | None], bool]:
    # A name that only the weights know is asked for again, by `check`.
    return lambda _, name: name is not None and name not in names


@cache
def _parser() -> Parser:
    return parser()


@cache
def _defaults() -> argparse.Namespace:
    return _parser().parse_args([])


def _every_flag() -> tuple[str, ...]:
    return tuple(vars(_defaults()))


def _of_one(name: str) -> list[Rule]:
    """The rules on the flags that belong to one detector: others refuse them, but for those made of
    others, which pass some on to it."""
    flags = OWN[name].flags
    shared = tuple(flag.name for flag in flags if flag.member)
    alone = tuple(flag.name for flag in flags if not flag.member)
    message = f"expected --detector {name}; found {{name}}"
    rules = [Rule(shared, _other(name, *COMBINED), message), Rule(alone, _other(name), message)]
    refused = Rule(
        OWN[name].refused,
        lambda a, found: a.phase == "train" and found == name,
        "expected another detector; found {name}",
    )
    return [*rules, refused]


# The first broken one is told: flags of another phase come before those that lack a companion.
RULES = (
    Rule(
        ("pictures",),
        lambda a, _: a.phase != "test",
        "expected pictures by --data; found '{pictures[0]}' without a flag",
    ),
    *(_phase([flag], phases) for flag, phases in _parser().phases.items()),
    Rule(
        ("input",),
        lambda a, _: a.pictures,
        "expected all that is to be tested behind it; found '{pictures[0]}' elsewhere",
    ),
    Rule(
        tuple(
            flag for flag in _every_flag() if flag not in ("phase", "compare", "output", "debug")
        ),
        lambda a, _: a.compare,
        "expected without --compare; found both",
    ),
    Rule(("pretrain",), lambda a, _: a.weights, "expected without --weights; found both"),
    Rule(
        ("pretrain",),
        lambda a, name: a.phase == "train" and name not in COMBINED,
        "expected --phase test or eval; found train, which starts from --weights",
    ),
    *(rule for name in OWN for rule in _of_one(name)),
    Rule(
        ("threshold",),
        lambda a, name: (
            isinstance(a.threshold, OwnThreshold) and name not in (None, a.threshold.detector)
        ),
        "expected a file of the detector {name}; found one of {threshold.detector}: "
        "{threshold.path}",
    ),
    Rule(
        ("prevalence",),
        lambda a, _: isinstance(a.threshold, OwnThreshold),
        "expected a number as --threshold; found {threshold.path}, whose rate of false alarms is "
        "that of scores as they are",
    ),
    Rule(("gpu",), lambda a, _: a.device, "expected one of them, --device; found both"),
    Rule(("benchmark",), lambda a, _: a.data, "expected one of them, --data; found both"),
    Rule(("data_root", "protocol"), lambda a, _: a.data, "expected --benchmark too; found --data"),
    Rule(
        ("test_csv",),
        lambda a, _: a.phase == "eval" and (a.data or a.benchmark or a.data_root or a.protocol),
        "expected without --data, --benchmark, --data_root and --protocol; found one of them",
    ),
    Rule(
        ("csv_root",),
        lambda a, _: a.phase == "eval" and not (a.data or a.test_csv),
        "expected --data FILE.csv or --test_csv too; found none",
    ),
    Rule(
        ("split",),
        lambda a, _: a.phase == "eval" and a.split == ALL and not (a.data or a.test_csv),
        "expected the name of a benchmark's split; found {split}: left out, it takes the published",
    ),
    Rule(
        ("epochs",),
        lambda a, _: a.phase == "train" and (len(a.epochs) != 1 or a.epochs[0] < 1),
        "expected one whole number, 1 or more, in phase train; found 0, several or all",
    ),
    Rule(
        ("epochs",),
        lambda a, name: a.phase == "eval" and (not a.weights or name in COMBINED),
        "expected --weights FOLDER of the training of a detector too; found none",
    ),
    Rule(
        ("test_csv", "epochs"),
        lambda a, _: (
            a.phase == "eval" and not a.output and (len(a.test_csv) > 1 or a.epochs is not None)
        ),
        "expected --output too, for a folder of each; found none",
    ),
    Rule(
        ("phase",),
        lambda a, name: (
            a.phase != "test"
            and not (a.data or a.benchmark or a.compare)
            and not (a.phase == "eval" and a.test_csv)
            and name is not None
            and not (name in OWN and OWN[name].published)
            and not is_bare(a)
        ),
        "expected --data FOLDER or CSV, or --benchmark NAME; found neither; "
        f"benchmarks: {', '.join(benchmarks())}",
    ),
    Rule(
        ("output",),
        lambda a, _: a.phase == "test" and not (a.input or a.pictures),
        "expected --input too; found none: the prompt writes no files",
    ),
    Rule(("trust_list",), lambda a, _: not a.credentials, "expected --credentials too; found none"),
    Rule(
        ("resume", "overwrite", "explain"),
        lambda a, _: a.phase == "test" and not a.output,
        "expected --output too; found none",
    ),
    Rule(
        ("stream",),
        lambda a, _: a.phase == "test" and not a.output,
        "expected --output too; found none",
    ),
    Rule(
        ("shard_size", "share", "protocols"),
        lambda a, _: not a.stream,
        "expected --stream too; found none",
    ),
    Rule(
        ("json",),
        lambda a, _: a.stream,
        "expected --stream alone, whose rows are in DIR/parts; found both",
    ),
    Rule(
        ("explain",),
        lambda a, _: a.stream,
        "expected a run without --stream, on the pictures that matter; found both",
    ),
    Rule(("val_data",), lambda a, _: a.leak_free, "expected without --leak_free; found both"),
)


def detector_named(args: argparse.Namespace) -> str | None:
    """`--detector`, else the one whose own flags are given, else the usual one; None where the card
    of --weights decides."""
    if args.detector:
        return str(args.detector)
    for name, own in OWN.items():
        if any(getattr(args, flag) for flag in own.implies):
            return name
    return None if args.weights else USUAL


def broken(args: argparse.Namespace, name: str | None) -> str | None:
    """What the first broken rule says of a command line and a detector's name, in one line."""
    # A flag with its default's value counts as not given: argparse does not tell, and nobody minds.
    given = [flag for flag, value in vars(_defaults()).items() if getattr(args, flag) != value]
    for rule in RULES:
        for flag in rule.flags:
            if flag in given and rule.refused(args, name):
                said = rule.message.format(**vars(args) | {"name": name})
                phase = f"phase {args.phase}"
                return f"--{phase if flag in ('phase', 'pictures') else flag}: {said}"
    return None


def check(args: argparse.Namespace, name: str) -> None:
    """Raises ConfigError for a broken rule, now that the weights have told the detector's name."""
    if said := broken(args, name):
        raise ConfigError(said)


# --- what the flags name


def check_named(args: argparse.Namespace, name: str | None) -> None:
    """Raises ConfigError or LayoutError for values that are wrong whatever the detector says of
    them, and for files and folders that are not there."""
    if args.compare:
        _check_runs(args.compare)
        return
    _check_values(args, name)
    if args.weights or not (args.phase == "train" or name in ELSEWHERE):
        # Training alone takes several: the branches that a fusion starts from.
        several = manifest.several(args.weights) if args.phase == "train" else []
        for weights in several or [args.weights]:
            # Of a hub nothing is brought before all flags are known to be right.
            if not manifest.hub_of(weights):
                manifest.locate(weights, name or USUAL)
    if args.phase == "eval" and args.epochs is not None:
        manifest.epoch_files(Path(args.weights), args.epochs)
    for path in args.backbone_weights:
        manifest.locate(str(path), "", "--backbone_weights")
    if args.output and args.output.exists() and not args.output.is_dir():
        raise ConfigError(f"--output {args.output}: expected a folder; found a file")
    if args.phase == "test":
        _check_inputs(args)
        return
    if args.benchmark:
        _check_benchmark(args)
    data = labelled(args)
    kinds = [datasets.known_kind(path) for path in data]
    if args.csv_root and data and "csv_file" not in kinds:
        raise ConfigError(
            f"--csv_root: expected a CSV as --data, --val_data or --test_csv; found {data[0]}"
        )
    datasets.csv_roots(data, args.csv_root)


def labelled(args: argparse.Namespace) -> list[Path]:
    """The labelled pictures that flags name, in the order in which --csv_root is meant."""
    return [path for path in (args.data, args.val_data, *args.test_csv) if path]


def _check_runs(folders: Iterable[Path]) -> None:
    # Here, as in the functions below: numpy at the top would delay every answer of main.py.
    from ..evaluation.comparison import INFO, SCORES

    for folder in folders:
        if missing := [file for file in (INFO, SCORES) if not (folder / file).is_file()]:
            raise ConfigError(
                f"--compare {folder}: expected a folder that phase eval wrote, with {INFO} and "
                f"{SCORES}; found no {missing[0]}"
            )


def _check_values(args: argparse.Namespace, name: str | None) -> None:
    """The words of --config, --set and --degrade; of a detector's own options only the sections,
    for their names are known where the detector is imported."""
    layers = [(str(args.config), read_yaml(args.config))] if args.config else []
    layers += [("--set", parse_override(text)) for text in args.set]
    alone = name is not None and name not in COMBINED
    # One made of others hands options on to them, and which these are only its options say.
    check_sections(layers, [name] if alone and name else detectors.available())
    if args.phase == "eval":
        from ..scoring import degradations

        degradations.parse_sweep(args.degrade)


def _check_benchmark(args: argparse.Namespace) -> None:
    from ..evaluation import benchmark as published

    found = published.load(args.benchmark)
    if args.protocol:
        published.protocol(found, args.protocol)
    if args.phase == "train" and args.benchmark not in published.trainable():
        known = ", ".join(published.trainable())
        raise LayoutError(f"--benchmark: expected one to train on: {known}; found {args.benchmark}")
    root = args.data_root or found.root
    if not is_folder(root):
        raise unexpected(root, datasets.load(found.family).LAYOUT)


def _check_inputs(args: argparse.Namespace) -> None:
    """Where nothing is there of what a person named, that is a slip; a program that asks for rows
    or files gets a row for each name, whatever is there."""
    for root in args.csv_root:
        if not os.path.lexists(root):
            raise ConfigError(f"--csv_root {root}: expected a folder or an LMDB; found none")
    datasets.csv_roots([Path(name) for name in args.input or ()], args.csv_root)
    # What is streamed has addresses, too, and is asked for splits where it is listed.
    for name in (args.input or ()) if args.split and not args.stream else ():
        if datasets.kind_of(Path(name)) is None:
            raise ConfigError(
                f"--split: expected CSV files, folders or archives as --input; found {name}"
            )
    # A file on this machine may be named so.
    for name in args.input or () if not args.stream else ():
        if "://" in name and not os.path.lexists(name):
            raise ConfigError(
                f"--input {name}: expected --stream too, to read addresses; found none"
            )
    names = [name for name in args.input or () if name != "-"]
    missing = [name for name in names if not os.path.lexists(name)]
    if names and len(missing) == len(args.input) and not (args.json or args.output):
        shown = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        raise LayoutError(
            f"--input: expected pictures, folders, archives or CSV files; found nothing at {shown}"
        )
