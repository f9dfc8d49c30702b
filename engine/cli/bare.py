"""What a command line means that names neither a detector nor pictures.

main.py asks before anything heavy is imported. It means what the published program does by default
of which `detectors.flags` tells, where all is there that this takes. Else two lines say what is
missing and how to get it, and the shipped detector is evaluated; a training is not begun with
anything else than was meant.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import datasets
import detectors
from datasets import LayoutError
from datasets._layout import is_folder

from ..config import ROOT, USUAL, ConfigError
from ..weights import manifest
from ..weights.manifest import BEST, PUBLISHED_BEST

EXAMPLES = ROOT / "data" / "examples"
DEMONSTRATION = Path("runs", "demonstration")
OWN_FLAGS = detectors.flags()
[MEANT] = [own.published for own in OWN_FLAGS.values() if own.published]
NAMING = (
    *(
        "detector",
        "weights",
        "backbone_weights",
        *(f for o in OWN_FLAGS.values() for f in o.implies),
    ),
    *("data", "benchmark", "data_root", "protocol", "compare", "val_data", "test_csv", "csv_root"),
)
PARTS = ("data.mscoco=", "data.flickr=")  # of a benchmark, whose pictures are then meant
OWN = "python main.py --phase train --data mine --weights pretrained/default.safetensors"


def is_bare(args: argparse.Namespace) -> bool:
    """Whether a command line of phase eval or train names neither a detector nor pictures."""
    named = any(getattr(args, flag) for flag in NAMING)
    return args.phase != "test" and not named and not any(s.startswith(PARTS) for s in args.set)


def fill(args: argparse.Namespace) -> Iterator[str]:
    """Chooses the detector and the pictures of a bare command line, in `args`. Yields lines that
    say what is missing.

    Raises:
        ConfigError: after those, where nothing can be done without it.
    """
    yield from _evaluation(args) if args.phase == "eval" else _training(args)


def caution(pictures: int) -> str:
    """What so few pictures as the examples are can tell of a detector."""
    # The exact 95 % interval (Clopper and Pearson) of an accuracy of `pictures` of `pictures`.
    least = 0.025 ** (1 / pictures)
    return (
        f"{pictures} example pictures show what a report holds, and are no measurement: even with "
        f"all of them right, an accuracy of {least:.0%} could not be ruled out (95 % interval)"
    )


def _fetch(names: list[str]) -> str:
    return f"{manifest.FETCH} {' '.join(names)}"


def _trained(folder: Path) -> Path | None:
    """The weights that a training, ours or the published program's, left in a folder."""
    files = (folder / name for name in (BEST, PUBLISHED_BEST))
    return next((path for path in files if path.is_file()), None)


def _missing_weights(trained: Path | None) -> list[str]:
    """The manifest's entries that the published detector still takes, with the user's own weights
    or with the published ones. Published files hold all encoders but the first."""
    first, *rest = MEANT.encoders
    needed = [first] if trained else [MEANT.weights, first]
    if trained and trained.name == BEST:
        needed += rest
    return [name for name in needed if manifest.find(name) is None]


def _missing_pictures(args: argparse.Namespace, root: Path, title: str) -> str:
    """What is wrong with the benchmark's pictures at its default place; '' for nothing."""
    if not is_folder(root):
        return f"{title} is not in {root}"
    try:
        datasets.load(MEANT.benchmark).records(root, None, {}, args.sources)
    except LayoutError as error:
        return f"{title} is not complete: {error}"
    return ""


def _evaluation(args: argparse.Namespace) -> Iterator[str]:
    from ..evaluation import benchmark

    usual = benchmark.load(MEANT.benchmark)
    trained = _trained(args.ckpt / MEANT.trained)
    weights = _missing_weights(trained)
    pictures = _missing_pictures(args, usual.root, usual.title)
    if not weights and not pictures:
        vars(args).update(MEANT.options)
        args.pretrain = trained is None
        return
    title, variant = MEANT.names
    ours = f"{title}'s, of {variant},"
    yield (
        f"weights: {ours} are not here ({_fetch(weights)}); the shipped detector is evaluated"
        if weights
        else f"weights: {ours} are here; without its pictures the shipped detector is evaluated"
    )
    place = EXAMPLES.relative_to(Path.cwd()) if EXAMPLES.is_relative_to(Path.cwd()) else EXAMPLES
    yield (
        f"pictures: {pictures} (python scripts/fetch_data.py {MEANT.benchmark}); "
        f"as a demonstration, the few in {place} are taken"
        if pictures
        else f"pictures: those of {usual.title} are taken"
    )
    args.detector = USUAL
    if not pictures:
        args.benchmark = MEANT.benchmark
        return
    args.data = place
    if not args.output:
        # Who asks again gets an answer again, also by newer code or with other flags: this folder
        # has nothing that the next demonstration would miss. What --output names is the user's.
        args.output, args.overwrite = DEMONSTRATION, not args.resume


def _training(args: argparse.Namespace) -> Iterator[str]:
    from ..evaluation import benchmark

    lacking = []
    if not any(map(is_folder, (MEANT.pictures, benchmark.load(MEANT.family).root))):
        lacking.append(f"its pictures in {MEANT.pictures} ({MEANT.fetch})")
    if encoders := [name for name in MEANT.encoders if manifest.find(name) is None]:
        lacking.append(f"frozen encoders ({_fetch(encoders)})")
    branches = [args.ckpt / branch for branch in MEANT.branches]
    if untrained := [str(folder) for folder in branches if not _trained(folder)]:
        lacking.append(f"trained branches in {' and '.join(untrained)} ({MEANT.recipe})")
    if not lacking:
        vars(args).update(MEANT.options)
        return
    title, variant = MEANT.names
    yield f"--phase train: {title}'s published training, of {variant}, lacks {', '.join(lacking)}"
    raise ConfigError(
        f"--phase train: a detector of your own learns from two folders, mine/real and mine/fake: "
        f"{OWN}"
    )
