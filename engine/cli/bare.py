"""What a command line means that names neither a detector nor pictures.

main.py asks before anything heavy is imported. It means what the published CO-SPY program does by
default, where all is there that this takes. Else two lines say what is missing and how to get it,
and the shipped detector is evaluated; a training is not begun with anything else than was meant.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import datasets
from datasets import LayoutError
from datasets._layout import is_folder

from ..config import ROOT, ConfigError
from ..weights import manifest
from ..weights.manifest import BEST, PUBLISHED_BEST

VARIANT = "sd-v1_4"  # the published default of --train_dataset; that of --mode is fusion
BENCHMARK = "cospy_bench"
WEIGHTS, ENCODERS = f"cospy-{VARIANT}", ("siglip-so400m-384", "sd-v1_4-vae")
# Where the trainer looks, and what brings it there.
TRAINING = ("drct2m", Path("data/train", VARIANT), f"python scripts/fetch_data.py {VARIANT}")
EXAMPLES = ROOT / "data" / "examples"
DEMONSTRATION = Path("runs", "demonstration")
NAMING = (
    *("detector", "weights", "backbone_weights", "train_dataset", "mode", "branch", "pretrain"),
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


def _trained(ckpt: Path, part: str) -> Path | None:
    """What a training below --ckpt, ours or the published program's, left of a part."""
    places = (ckpt / VARIANT / part / name for name in (BEST, PUBLISHED_BEST))
    return next((place for place in places if place.is_file()), None)


def _missing_weights(trained: Path | None) -> list[str]:
    """The manifest's entries that the fusion still takes: the user's own, or the published one.
    Published files hold the autoencoder too."""
    needed = [ENCODERS[0]] if trained else [WEIGHTS, ENCODERS[0]]
    if trained and trained.name == BEST:
        needed.append(ENCODERS[1])
    return [name for name in needed if manifest.find(name) is None]


def _missing_pictures(args: argparse.Namespace, root: Path, title: str) -> str:
    """What is wrong with the benchmark's pictures at its default place; '' for nothing."""
    if not is_folder(root):
        return f"{title} is not in {root}"
    try:
        datasets.load(BENCHMARK).records(root, None, {}, args.sources)
    except LayoutError as error:
        return f"{title} is not complete: {error}"
    return ""


def _evaluation(args: argparse.Namespace) -> Iterator[str]:
    from ..evaluation import benchmark

    usual = benchmark.load(BENCHMARK)
    trained = _trained(args.ckpt, "fusion")
    weights = _missing_weights(trained)
    pictures = _missing_pictures(args, usual.root, usual.title)
    if not weights and not pictures:
        args.train_dataset, args.pretrain = VARIANT, trained is None
        return
    ours = f"CO-SPY's, of {VARIANT},"
    yield (
        f"weights: {ours} are not here ({_fetch(weights)}); the shipped detector is evaluated"
        if weights
        else f"weights: {ours} are here; without its pictures the shipped detector is evaluated"
    )
    place = EXAMPLES.relative_to(Path.cwd()) if EXAMPLES.is_relative_to(Path.cwd()) else EXAMPLES
    yield (
        f"pictures: {pictures} (python scripts/fetch_data.py {BENCHMARK}); as a demonstration, the "
        f"few in {place} are taken"
        if pictures
        else f"pictures: those of {usual.title} are taken"
    )
    args.detector = "default"
    if not pictures:
        args.benchmark = BENCHMARK
        return
    args.data = place
    if not args.output:
        # Who asks again gets an answer again, also by newer code or with other flags: this folder
        # has nothing that the next demonstration would miss. What --output names is the user's.
        args.output, args.overwrite = DEMONSTRATION, not args.resume


def _training(args: argparse.Namespace) -> Iterator[str]:
    from ..evaluation import benchmark

    family, root, fetch = TRAINING
    lacking = []
    if not any(map(is_folder, (root, benchmark.load(family).root))):
        lacking.append(f"its pictures in {root} ({fetch})")
    if encoders := [name for name in ENCODERS if manifest.find(name) is None]:
        lacking.append(f"frozen encoders ({_fetch(encoders)})")
    if parts := [part for part in ("artifact", "semantic") if not _trained(args.ckpt, part)]:
        folders = " and ".join(str(args.ckpt / VARIANT / part) for part in parts)
        lacking.append(f"trained branches in {folders} (bash train.sh --dataset {VARIANT})")
    if not lacking:
        args.train_dataset = VARIANT
        return
    yield f"--phase train: CO-SPY's published training, of {VARIANT}, lacks {', '.join(lacking)}"
    raise ConfigError(
        f"--phase train: a detector of your own learns from two folders, mine/real and mine/fake: "
        f"{OWN}"
    )
