"""Command line: train, evaluate and use detectors of AI-generated pictures.

Imports nothing heavy before the arguments are parsed, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import detectors

UNREADABLE, USAGE, INTERRUPTED = 1, 2, 130
# Flags that only some phases heed; the others refuse them rather than pass over them.
PHASES = {
    **dict.fromkeys(("input", "json", "tag", "explain"), ("test",)),
    **dict.fromkeys(("data", "generators", "sources", "limit"), ("train", "eval")),
    **dict.fromkeys(
        ("benchmark", "data_root", "protocol", "degrade", "compare", "cache"), ("eval",)
    ),
    "threshold": ("test", "eval"),
    "epochs": ("train",),
}


def benchmarks() -> list[str]:
    """Names of the files in configs/benchmarks/, without importing what reads them."""
    return sorted(path.stem for path in Path(__file__).parent.glob("configs/benchmarks/*.yaml"))


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """For argparse: text -> a number of that kind from `low` to `high`."""
    limits = f"{low} or more" if high == math.inf else f"{low} to {high}"
    wanted = f"a {'whole ' if kind is int else ''}number, {limits}"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"expected {wanted}; found {text!r}")

    return parse


def _each_with_its_flag(words: Sequence[str]) -> list[str]:
    """`--set a.b=1 c.d=2` -> `--set a.b=1 --set c.d=2`. With nargs="+" argparse would also take
    what follows them, such as a script's file."""
    found: list[str] = []
    for word in words:
        after_value = len(found) > 1 and found[-2] == "--set"
        if after_value and "=" in word and not word.startswith("-"):
            found.append("--set")
        found.append(word)
    return found


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it; `--set` takes several values."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(_each_with_its_flag(words), namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; --help lists the flags\n")


def parser() -> Parser:
    """The command line; defaults of None mean: as the configuration says."""
    p = Parser(
        prog="main.py",
        description="Tell real pictures from AI-generated ones. score = probability of synthetic.",
        epilog="Parentheses state defaults. Exit status: 0 done; 1 done, but some pictures could "
        "not be read; 2 wrong usage, weights or data; 130 interrupted. Results go to standard "
        "output, everything else to standard error.",
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
        help="without it: cospy if one of CO-SPY's own flags is given, else that of the card of "
        "--weights, else default, the small one whose weights ship",
    )
    what.add_argument("--config", type=Path, metavar="FILE", help="YAML on top of the detector's")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="configuration values, such as ssp.patches=4 (one or more, repeatable)",
    )
    what.add_argument(
        "--weights",
        metavar="PATH|NAME",
        help="a weight file, a folder with the three files of CO-SPY, or a name of "
        "pretrained/manifest.yaml",
    )
    what.add_argument(
        "--backbone_weights",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH|NAME",
        help="files, or names of pretrained/manifest.yaml, for frozen encoders (SigLIP, CLIP, "
        "autoencoder), or that training starts a backbone from",
    )
    cospy = p.add_argument_group("CO-SPY")
    cospy.add_argument(
        "--train_dataset", choices=("sd-v1_4", "progan"), help="variant of CO-SPY (sd-v1_4)"
    )
    cospy.add_argument("--mode", choices=("branch", "fusion", "end2end"), help="of CO-SPY (fusion)")
    cospy.add_argument(
        "--branch", choices=("artifact", "semantic"), help="in mode branch (artifact)"
    )
    cospy.add_argument(
        "--pretrain",
        action="store_true",
        help="use the published weights, downloaded if they are not there",
    )
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
        help="phase test: pictures, folders, archives, CSV files with a column image, "
        "or - for paths on standard input; left out: asks for paths. A name that starts with a "
        "dash is written ./-name",
    )
    data.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="phase train, eval: a folder with real/ and fake/, an archive of such (.tar, .zip, "
        ".lmdb, .parquet), or a CSV with image,class[,split,generator,source]",
    )
    data.add_argument(
        "--benchmark",
        choices=benchmarks(),
        metavar="NAME",
        help=f"phase eval: one of {', '.join(benchmarks())}; with CO-SPY and neither --data nor "
        "this, the benchmark of its variant",
    )
    data.add_argument(
        "--data_root",
        type=Path,
        metavar="DIR",
        help="where the benchmark lies (its place below data/); parts of it that lie elsewhere by "
        "--set data.mscoco=DIR and so on",
    )
    data.add_argument(
        "--protocol",
        metavar="NAME",
        help="how the benchmark is measured: published, or matched, where format and size tell "
        "nothing (published)",
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
        type=_number(int, 1),
        metavar="N",
        help="at most N pictures of each generator and source of reals",
    )
    data.add_argument(
        "--degrade",
        nargs="+",
        default=["none"],
        metavar="STEPS",
        help="phase eval: change every picture first, as by jpeg:90 or crop:224+jpeg:75; several, "
        "as in jpeg:95,75,50 blur:1,2, are a robustness sweep",
    )
    out = p.add_argument_group("results")
    out.add_argument("--output", type=Path, metavar="DIR", help="where results go")
    out.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="phase eval: set the results in these folders side by side, and score nothing",
    )
    out.add_argument(
        "--cache",
        metavar="DIR",
        help="phase eval: where scores are kept for later runs, or none (the user's cache folder)",
    )
    out.add_argument("--json", action="store_true", help="phase test: a JSON object a line")
    out.add_argument(
        "--explain",
        action="store_true",
        help="phase test: draw what each score rests on, into DIR/explain",
    )
    out.add_argument("--tag", help="phase test: name of the score's column in a CSV (the detector)")
    out.add_argument(
        "--threshold",
        type=_number(float, 0, 1),
        metavar="X",
        help="score above which a picture counts as synthetic (as the weights say)",
    )
    again = out.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    train = p.add_argument_group("training")
    train.add_argument(
        "--epochs",
        type=_number(int, 1),
        metavar="N",
        help="how often each picture is seen (the recipe's)",
    )
    train.add_argument(
        "--batch_size",
        type=_number(int, 1),
        metavar="N",
        help="pictures a step, or at a time when scoring (the recipe's)",
    )
    train.add_argument(
        "--seed", type=_number(int, 0), metavar="N", help="of all randomness (the recipe's)"
    )
    how = p.add_argument_group("machine")
    how.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (cuda if there)")
    how.add_argument(
        "--gpu", type=int, metavar="N", help="cuda:N, or the CPU with a warning where there is none"
    )
    how.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the network's arithmetic (fp32; in training the recipe's)",
    )
    how.add_argument(
        "--workers",
        type=_number(int, 0),
        metavar="N",
        help="processes that decode pictures (one less than the cores; "
        "0 for fewer than 64 pictures)",
    )
    how.add_argument("--compile", action="store_true", help="torch.compile the network")
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def check_flags(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program when a flag was given that would have no effect."""
    for name, phases in PHASES.items():
        if args.phase not in phases and getattr(args, name) != p.get_default(name):
            p.error(f"--{name}: expected --phase {' or '.join(phases)}; found {args.phase}")
    if args.pretrain and args.weights:
        p.error("--pretrain, --weights: expected one of them; found both")
    if args.detector not in (None, "cospy", "ensemble"):
        for name in ("train_dataset", "mode", "branch", "pretrain"):
            if getattr(args, name):
                p.error(f"--{name}: expected --detector cospy; found {args.detector}")
    if args.compare:
        for name, value in vars(args).items():
            if name not in ("phase", "compare", "output", "debug") and value != p.get_default(name):
                p.error(f"--{name}: expected without --compare; found both")
    if args.data and args.benchmark:
        p.error("--data, --benchmark: expected one of them; found both")
    if args.phase == "test":
        if args.output and not args.input:
            p.error("--output: expected --input too; the prompt writes no files")
        if (args.resume or args.overwrite or args.explain) and not args.output:
            p.error("--resume, --overwrite, --explain: expected --output too; found none")


def run_test(args: argparse.Namespace) -> int:
    """Phase test. Returns the exit status."""
    from engine import flags, verdict

    device = flags.device(args, args.precision)
    loaded, config = flags.load(args, device)
    judge = verdict.judge_of(loaded, args.threshold)
    if args.input is None:
        return UNREADABLE if verdict.ask(loaded, judge, device, config, args.json) else 0
    records = verdict.collect(args.input, args.csv_root)
    request = verdict.Request(
        inputs=args.input, csv_root=args.csv_root, output=args.output, json=args.json,
        tag=args.tag or loaded.name, explain=args.explain,
        workers=flags.workers(args, len(records)), resume=args.resume, overwrite=args.overwrite,
    )  # fmt: skip
    failed = verdict.run(request, records, loaded, judge, device, config)
    return UNREADABLE if failed else 0


def run_eval(args: argparse.Namespace) -> int:
    """Phase eval. Returns the exit status."""
    if args.compare:
        from engine import compare

        print(compare.compare(args.compare, args.output))
        return 0
    from engine import distributed, eval_flags, evaluate, flags

    device = flags.device(args, args.precision)
    world = distributed.join(device.device)
    loaded, config = flags.load(args, device)
    request, records = eval_flags.evaluation(args, loaded, config)
    summary, unreadable = evaluate.run(request, records, loaded, device, config, world)
    if world.main:
        print(summary)
    return UNREADABLE if unreadable else 0


def run_train(args: argparse.Namespace) -> int:
    """Phase train. Returns the exit status."""
    import datasets
    from engine import flags, fuse, listing, train

    if args.data is None:
        raise datasets.LayoutError("--phase train: expected --data FOLDER or CSV; found none")
    name = flags.detector_name(args)
    config = flags.resolve_config(args, name, None)
    records, val, how = listing.train_and_val(args.data, config.data, args.csv_root)
    chosen = (flags.listed(args.generators), flags.listed(args.sources), args.limit)
    records, val = listing.part(records, *chosen, val), listing.part(val, *chosen, records)
    listing.check_classes(args.data, records, val)
    device = flags.device(args, None)  # the recipe says in which precision
    output = args.output or flags.train_folder(args, name, config)
    if name == flags.ENSEMBLE:
        members = flags.load_members(args, config.options, device)
        workers = flags.workers(args, len(records))
        print(
            fuse.run(
                members, config, records, val, device, output, workers, args.resume, args.overwrite
            )
        )
        print(f"weights in {output / train.BEST}")
        return 0
    train.seed_everything(config.train.seed)
    model = flags.model_to_train(args, name, config)
    if args.compile:
        model.compile()
    history = train.start(
        model, config, records, val, device.device, output,
        flags.workers(args, len(records)), how, args.resume, args.overwrite,
    )  # fmt: skip
    best = max(history, key=lambda row: row[config.train.select])
    shown = ", ".join(f"{k} {100 * best[k]:.2f}" for k in train.VALIDATED)
    print(f"best epoch {best['epoch']:.0f}: {shown}; weights in {output / train.BEST}")
    return 0


def _say_nothing(*_: object, **__: object) -> None:
    """For processes that leave the talking to the main one."""


def run(args: argparse.Namespace) -> int:
    """Runs a phase. Returns the exit status; errors of use print one line, no traceback."""
    import torch

    from datasets import LayoutError
    from detectors._base import OptionError, WeightsError
    from engine import distributed
    from engine.config import ConfigError
    from engine.train import Interrupted

    phases = {"train": run_train, "eval": run_eval, "test": run_test}
    # Of several processes one speaks.
    complain = print if distributed.is_main() else _say_nothing
    logging.disable(logging.NOTSET if distributed.is_main() else logging.WARNING)
    try:
        if distributed.launched() > 1 and args.phase != "eval":
            raise ConfigError(f"--phase {args.phase}: expected one process; found several")
        status = phases[args.phase](args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader of our results went away, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except Interrupted as error:
        complain(f"main.py: {error}; --resume goes on", file=sys.stderr)
        return INTERRUPTED
    except distributed.OtherFailed:
        return USAGE
    except (LayoutError, OptionError, WeightsError, ConfigError, OSError) as error:
        if args.debug:
            raise
        complain(f"main.py: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE
    except torch.OutOfMemoryError as error:
        if args.debug:
            raise
        reason = str(error).split(". ")[0]
        print(f"main.py: {reason}: use a smaller --batch_size, or --device cpu", file=sys.stderr)
        return USAGE
    finally:
        distributed.leave()


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    check_flags(p, args)
    # PyTorch's threads shall sleep while they wait, or they take the cores from the processes that
    # decode, and from whatever else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("engine").setLevel(logging.INFO)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its lines itself
    # File names are any bytes, and a terminal may lack the letters: neither may end a run.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    try:
        return run(args)
    except KeyboardInterrupt:
        if args.debug:
            raise
        goes_on = "; --resume goes on" if args.output or args.phase != "test" else ""
        print(f"\nmain.py: interrupted{goes_on}", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
