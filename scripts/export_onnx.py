"""Exports a detector's networks as ONNX files, and compares those with PyTorch.

    python scripts/export_onnx.py export --detector ssp ssp.onnx
    python scripts/export_onnx.py export --train_dataset progan --mode branch --pretrain progan.onnx
    python scripts/export_onnx.py validate ssp.onnx --input data/examples
    python scripts/export_onnx.py graph

An ONNX file runs by `main.py --weights ssp.onnx`. SPAI has two: OUT.onnx with the patch encoder,
(n, 3, 224, 224) in [0, 1] -> (n, 1096), and OUT.aggregator.onnx, which makes a logit and the
attention to each patch of the n vectors of a picture. The others take a batch -> (n,). All
are fp32, for any n, and carry the card of the weights they were made of.

`graph` writes the network of the weights that ship into pretrained/, without them: by it main.py
scores with these weights, and others of the same options, without PyTorch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.cli import rules  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import shared  # noqa: E402
from scripts._shared import answer, new_parser, parse_as_main, say  # noqa: E402

if TYPE_CHECKING:
    from engine.runtime.device import Device
    from engine.scoring.table import ScoreRow
    from engine.weights.loaded import Loaded

PROGRAM = "export_onnx.py"
DIFFERENT = 1
TOLERANCE = 1e-4
# Flags of main.py that choose weights, and those that choose what they are of.
WEIGHTS = ("weights", "backbone_weights", "pretrain", "ckpt")
CHOICE = ("detector", "config", "set", "train_dataset", "mode", "branch")


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 other probabilities than PyTorch gives, or a picture could not be read; "
    p = new_parser(PROGRAM, __doc__, f"{status}2 wrong usage, weights or data")
    commands = p.add_subparsers(dest="command", required=True)
    export = commands.add_parser(
        "export", parents=[shared((*CHOICE, *WEIGHTS))], allow_abbrev=False,
        help="write a detector's networks as ONNX files",
    )  # fmt: skip
    export.add_argument("file", type=Path, metavar="OUT", help="the .onnx file to write")
    validate = commands.add_parser(
        "validate", parents=[shared((*WEIGHTS, "input", "csv_root"))], allow_abbrev=False,
        help="compare an exported file with the weights it was made of",
    )  # fmt: skip
    validate.add_argument("file", type=Path, metavar="FILE", help="the .onnx file")
    validate.add_argument(
        "--tolerance", type=number(float, 0, 1), default=TOLERANCE, metavar="X",
        help="largest difference of a probability that counts as none (%(default)s)",
    )  # fmt: skip
    commands.add_parser(
        "graph", parents=[shared((*CHOICE, *WEIGHTS))], allow_abbrev=False,
        help="write a network without its weights, to score without PyTorch",
    )  # fmt: skip
    return p


def cpu() -> Device:
    """The device that both networks are compared on."""
    import torch

    from engine.runtime.device import Device

    return Device(torch.device("cpu"))


def load(args: argparse.Namespace) -> Loaded:
    """PyTorch's detector as main.py loads it, frozen parts in fp32 whatever their file has."""
    from detectors._errors import WeightsError
    from engine.cli import settings
    from engine.weights import opening
    from engine.weights.onnx_graph import is_onnx

    if is_onnx(args.weights):
        what = f"found an ONNX file: {args.weights}"
        raise WeightsError(f"--weights: expected PyTorch's weights; {what}")
    loaded, _ = opening.load(settings.chosen(args), cpu())
    loaded.model.float()
    return loaded


def export(args: argparse.Namespace) -> int:
    """The exit status of the command `export`. Writes the files and prints what they are."""
    from detectors._errors import OptionError
    from engine.cli import settings
    from engine.weights import onnx_export
    from engine.weights.cards import sha256
    from engine.weights.loaded import card_of

    if (name := settings.detector_name(args)) in rules.COMBINED:
        raise OptionError(f"--detector: expected one detector; found {name}: export its members")
    loaded = load(args)
    card = card_of(loaded.path)
    notes = card.extra if card else None
    for path in onnx_export.export(loaded, args.file, notes or {}):
        print(f"{path}: {path.stat().st_size} bytes, sha256 {sha256(path)}")
    return 0


def graph(args: argparse.Namespace) -> int:
    """The exit status of the command `graph`. Writes the file and prints what it is."""
    import detectors
    from detectors._errors import OptionError
    from engine.cli import settings
    from engine.weights import graph as graphs
    from engine.weights import onnx_export, opening
    from engine.weights.cards import sha256
    from engine.weights.loading import build

    if detectors.arrays(name := settings.detector_name(args)) is None:
        raise OptionError(f"graph: {name} is scored by PyTorch alone")
    choice = settings.chosen(args, name)
    file = opening.weight_file(choice)
    options = choice.resolve(file).options
    # As it is built, not made faster by `optimise`: with the state dict that weight files have.
    loaded = build(name, options, file, opening.backbones(choice))
    loaded.model.float()
    path = graphs.path_of(name)
    onnx_export.export_graph(loaded, path)
    print(f"{path}: {path.stat().st_size} bytes, sha256 {sha256(path)}")
    return 0


def both(args: argparse.Namespace) -> Iterator[tuple[ScoreRow, ScoreRow]]:
    """Rows of each picture: PyTorch's and those of the ONNX file, with the file's options."""
    from engine.cli.inputs import collect
    from engine.config import resolve
    from engine.scoring.loop import ScoringOptions, score
    from engine.scoring.torch_backend import TorchBackend
    from engine.weights.onnx import load_onnx, onnx_card, open_onnx

    card = onnx_card(args.file)
    config = resolve(card.detector, [(str(args.file), {card.detector: card.options})])
    file = open_onnx(args.file, card.detector)
    exported = load_onnx(card.detector, config.options, file, cpu(), compiled=False)
    # PyTorch's detector is the one that main.py would load with the file's options.
    args.detector = card.detector
    args.set = [f"{card.detector}.{k}={json.dumps(v)}" for k, v in card.options.items()]
    records = collect(args.input, args.csv_root)
    options = ScoringOptions(config.score.batch_size, seed=config.score.seed)
    backends = (TorchBackend(model, cpu()) for model in (load(args).model, exported.model))
    batches = zip(*(score(backend, records, options) for backend in backends), strict=True)
    for ours, theirs in batches:
        yield from zip(ours, theirs, strict=True)


def validate(args: argparse.Namespace) -> int:
    """The exit status of the command `validate`. Prints each picture's probabilities."""
    from datasets._paths import visible
    from engine.scoring.probability import sigmoid

    differences: list[float] = []
    failed = 0
    line = "{:>9}  {:>9}  {:>10}  {}".format
    for ours, theirs in both(args):
        if not differences and not failed:
            print(line("PyTorch", "ONNX", "difference", "picture"))
        name = visible(ours.key)
        if ours.logit is None or theirs.logit is None:
            failed += 1
            print(line("-", "-", "error", f"{name}: {visible(ours.error or theirs.error)}"))
            continue
        pair = sigmoid(ours.logit), sigmoid(theirs.logit)
        differences.append(abs(pair[0] - pair[1]))
        print(line(*(f"{p:.6f}" for p in pair), f"{differences[-1]:.1e}", name), flush=True)
    largest = max(differences, default=0.0)
    same = bool(differences) and largest <= args.tolerance
    verdict = "within" if same else "beyond" if differences else "none compared with"
    over = f"over {len(differences)} pictures: {verdict} {args.tolerance:g}"
    print(f"largest difference {largest:.1e} {over}")
    if failed:
        say(PROGRAM, f"{failed} pictures could not be read")
    return 0 if same and not failed else DIFFERENT


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of a command line. Ends the program when they are wrong."""
    p = parser()
    args = parse_as_main(p, arguments)
    if args.command == "graph":
        return args
    if args.file.suffix.lower() != ".onnx":
        p.error(f"expected a file name that ends in .onnx; found {args.file}")
    if args.command == "validate" and not args.input:
        p.error("--input: expected pictures to compare; found none")
    return args


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parse(arguments)
    from datasets import LayoutError
    from detectors._errors import OptionError, WeightsError
    from engine.config import ConfigError

    run = {"export": export, "validate": validate, "graph": graph}[args.command]
    errors = (LayoutError, OptionError, WeightsError, ConfigError, OSError)
    return answer(PROGRAM, lambda: run(args), errors)


if __name__ == "__main__":
    sys.exit(main())
