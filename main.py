"""Command line: train, evaluate and use detectors of AI-generated pictures.

Imports nothing heavy before the arguments are parsed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import detectors

if TYPE_CHECKING:
    from engine.config import Config
    from engine.predict import Device
    from engine.weights import Loaded, WeightFile

UNREADABLE, USAGE, INTERRUPTED = 1, 2, 130


def parser() -> argparse.ArgumentParser:
    """The command line; defaults of None mean: as the configuration says."""
    p = argparse.ArgumentParser(
        prog="main.py",
        description="Tell real pictures from AI-generated ones. score = probability of synthetic.",
        epilog="Exit status: 0 done; 1 done, but some pictures could not be read; 2 wrong usage, "
        "weights or data. Results go to standard output, everything else to standard error.",
        allow_abbrev=False,
    )
    p.add_argument(
        "--phase",
        choices=("train", "eval", "test"),
        default="test",
        help="train a detector, evaluate it on labelled pictures, or test pictures",
    )
    what = p.add_argument_group("detector")
    what.add_argument(
        "--detector",
        choices=detectors.available(),
        help="cospy if one of CO-SPY's own flags is given, otherwise default: "
        "the small one whose weights ship",
    )
    what.add_argument("--config", type=Path, metavar="FILE", help="YAML on top of the detector's")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one configuration value, such as ssp.patches=4 (repeatable)",
    )
    what.add_argument(
        "--weights",
        metavar="PATH|NAME",
        help="a weight file, or a name of pretrained/manifest.yaml",
    )
    what.add_argument(
        "--backbone_weights",
        type=Path,
        metavar="PATH",
        help="phase train: local file that the backbone starts from",
    )
    cospy = p.add_argument_group("CO-SPY")
    cospy.add_argument(
        "--train_dataset", choices=("sd-v1_4", "progan"), help="variant of CO-SPY (sd-v1_4)"
    )
    cospy.add_argument("--mode", choices=("branch", "fusion", "end2end"), help="(fusion)")
    cospy.add_argument("--branch", choices=("artifact", "semantic"), help="(artifact)")
    cospy.add_argument("--pretrain", action="store_true", help="use the published weights")
    cospy.add_argument(
        "--ckpt",
        type=Path,
        default=Path("ckpt"),
        metavar="DIR",
        help="where CO-SPY's training puts and finds weights (ckpt)",
    )
    data = p.add_argument_group("data")
    data.add_argument(
        "--input",
        nargs="+",
        metavar="PATH",
        help="phase test: pictures, folders, CSV files with a column image, "
        "or - for paths on standard input; left out: asks for paths",
    )
    data.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="phase train, eval: a folder with real/ and fake/, or a CSV with "
        "image,class[,split,generator,source]",
    )
    data.add_argument(
        "--csv_root",
        type=Path,
        metavar="DIR",
        help="folder that the paths in a CSV start from (the CSV's own)",
    )
    data.add_argument("--generators", default="", metavar="A,B", help="only these generators")
    data.add_argument("--sources", default="", metavar="A,B", help="only these sources")
    data.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="at most N pictures of each generator and source of reals",
    )
    data.add_argument(
        "--degrade",
        default="none",
        metavar="STEPS",
        help="phase eval: change every picture first, such as jpeg:90 or crop:224+jpeg:75",
    )
    out = p.add_argument_group("results")
    out.add_argument("--output", type=Path, metavar="DIR", help="where results go")
    out.add_argument("--json", action="store_true", help="phase test: a JSON object a line")
    out.add_argument("--tag", help="phase test: name of the score's column in a CSV (the detector)")
    out.add_argument(
        "--threshold",
        type=_probability,
        metavar="X",
        help="score above which a picture counts as synthetic (as the weights say)",
    )
    again = out.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    train = p.add_argument_group("training")
    train.add_argument("--epochs", type=_positive, metavar="N", help="(the recipe's)")
    train.add_argument(
        "--batch_size",
        type=_positive,
        metavar="N",
        help="pictures a step, or a forward pass when scoring (the recipe's)",
    )
    train.add_argument("--seed", type=int, metavar="N", help="(the recipe's)")
    how = p.add_argument_group("machine")
    how.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (cuda if there)")
    how.add_argument(
        "--gpu", type=int, metavar="N", help="cuda:N, or the CPU with a warning where there is none"
    )
    how.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="(fp32 for scoring)")
    how.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="processes that decode pictures (one less than the cores; "
        "0 for fewer than 64 pictures)",
    )
    how.add_argument("--compile", action="store_true", help="torch.compile the network")
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more; found {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more; found {text}")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1; found {text}")
    return value


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
    from engine.config import CONFIGS, parse_override, read_yaml, resolve

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


def _device(args: argparse.Namespace) -> Device:
    from engine.config import ConfigError
    from engine.predict import open_device

    if args.gpu is not None and args.device:
        raise ConfigError("--gpu and --device: expected one of them; found both")
    name = args.device
    if args.gpu is not None:
        import torch

        name = f"cuda:{args.gpu}"
        if args.gpu < 0 or args.gpu >= torch.cuda.device_count():
            logging.getLogger("engine").warning("--gpu %d: no such GPU; using the CPU", args.gpu)
            name = "cpu"
    return open_device(name, args.precision or "fp32")


def _workers(args: argparse.Namespace, pictures: int) -> int:
    if args.workers is not None:
        return args.workers
    return max(1, (os.cpu_count() or 1) - 1) if pictures >= 64 else 0


def _weights(args: argparse.Namespace, name: str) -> WeightFile:
    from engine.weights import locate, open_weights

    chosen = args.weights
    if chosen is None and name == "cospy":
        variant, branch = args.train_dataset or "sd-v1_4", args.branch or "artifact"
        mode = args.mode or "fusion"
        folder = branch if mode == "branch" else mode
        if args.pretrain:
            chosen = f"cospy-{variant}-{folder}"
        else:
            chosen = str(args.ckpt / variant / folder / "best.safetensors")
    return open_weights(locate(chosen, name), name)


def _loaded(args: argparse.Namespace, device: Device) -> tuple[Loaded, Config]:
    from engine.weights import build

    name = detector_name(args)
    if name == "cospy":
        resolve_config(args, name, None)  # a variant that does not exist, before its weights
    file = _weights(args, name)
    config = resolve_config(args, name, file)
    loaded = build(name, config.options, file)
    loaded.model.to(device.device)
    if args.compile:
        loaded.model.compile()
    return loaded, config


def _listed(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def run_test(args: argparse.Namespace) -> int:
    """Phase test. Returns the exit status."""
    from engine import verdict

    device = _device(args)
    loaded, config = _loaded(args, device)
    judge = verdict.judge_of(loaded, args.threshold)
    if args.input is None:
        return UNREADABLE if verdict.ask(loaded, judge, device, config) else 0
    request = verdict.Request(
        inputs=args.input, csv_root=args.csv_root, output=args.output, json=args.json,
        tag=args.tag or loaded.name, resume=args.resume, overwrite=args.overwrite,
    )  # fmt: skip
    records = verdict.collect(args.input, args.csv_root)
    workers = _workers(args, len(records))
    failed = verdict.run(request, records, loaded, judge, device, config, workers)
    return UNREADABLE if failed else 0


def run_eval(args: argparse.Namespace) -> int:
    """Phase eval. Returns the exit status."""
    import datasets
    from engine import evaluate, listing

    if args.data is None:
        raise datasets.LayoutError("--phase eval: expected --data FOLDER or CSV; found none")
    device = _device(args)
    loaded, config = _loaded(args, device)
    records = listing.part(
        datasets.open_path(args.data, config.data.split, csv_root=args.csv_root),
        _listed(args.generators), _listed(args.sources), args.limit,
    )  # fmt: skip
    title = f"{loaded.model.title} on {args.data.name}"
    request = evaluate.Request(
        output=args.output or Path("runs", loaded.name, f"eval_{args.data.stem}"), title=title,
        threshold=loaded.threshold if args.threshold is None else args.threshold,
        degradation=args.degrade, workers=_workers(args, len(records)),
        resume=args.resume, overwrite=args.overwrite,
    )  # fmt: skip
    summary, unreadable = evaluate.run(request, records, loaded, device, config)
    print(summary)
    return UNREADABLE if unreadable else 0


def run_train(args: argparse.Namespace) -> int:
    """Phase train. Returns the exit status."""
    import datasets
    from engine import listing, train
    from engine.predict import open_device
    from engine.weights import load_backbone, load_exact, open_weights

    if args.data is None:
        raise datasets.LayoutError("--phase train: expected --data FOLDER or CSV; found none")
    name = detector_name(args)
    config = resolve_config(args, name, None)
    records, val, how = listing.train_and_val(args.data, config.data, args.csv_root)
    chosen = (_listed(args.generators), _listed(args.sources), args.limit)
    records, val = listing.part(records, *chosen), listing.part(val, *chosen)
    device = _device(args) if args.gpu is not None else open_device(args.device, "fp32")
    train.seed_everything(config.train.seed)
    model = detectors.load(name)(config.options)
    if args.backbone_weights:
        load_backbone(model, args.backbone_weights)
    if args.weights:
        file = open_weights(Path(args.weights), name)
        load_exact(model, file.state if file.card else model.convert(file.state), file.path)
    if args.compile:
        model.compile()
    output = args.output or _train_folder(args, name)
    history = train.start(
        model, config, records, val, device.device, output,
        _workers(args, len(records)), how, args.resume, args.overwrite,
    )  # fmt: skip
    best = max(history, key=lambda row: row[config.train.select])
    shown = ", ".join(f"{k} {100 * best[k]:.2f}" for k in train.VALIDATED)
    print(f"best epoch {best['epoch']:.0f}: {shown}; weights in {output / train.BEST}")
    return 0


def _train_folder(args: argparse.Namespace, name: str) -> Path:
    if name != "cospy":
        return Path("runs", name, "train")
    mode = args.mode or "fusion"
    return (
        args.ckpt
        / (args.train_dataset or "sd-v1_4")
        / (args.branch or "artifact" if mode == "branch" else mode)
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status; errors of use print one line, no traceback."""
    args = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("engine").setLevel(logging.INFO)
    from datasets import LayoutError
    from detectors._base import OptionError, WeightsError
    from engine.config import ConfigError
    from engine.train import Interrupted

    phases = {"train": run_train, "eval": run_eval, "test": run_test}
    try:
        return phases[args.phase](args)
    except (LayoutError, OptionError, WeightsError, ConfigError) as error:
        if args.debug:
            raise
        print(f"main.py: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE
    except (KeyboardInterrupt, Interrupted) as error:
        if args.debug:
            raise
        print(f"main.py: {error or 'interrupted'}; --resume goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our results went away, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
