"""The flags of the command line; `rules` says which go together. Imports nothing heavy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import detectors
from datasets._limits import Limits
from datasets._paths import ALL, visible

from ..runtime.program import USAGE
from ..runtime.text import listed
from ..scoring.probability import EVEN
from .arguments import folder_name, number, share, threshold

# Flags that only some phases heed; the others refuse them rather than pass over them.
PHASES = {
    **dict.fromkeys(("input", "json", "explain", "stability"), ("test",)),
    **dict.fromkeys(
        ("data", "benchmark", "data_root", "generators", "sources", "limit"), ("train", "eval")
    ),
    **dict.fromkeys(("protocol", "degrade", "compare", "cache", "min_pictures"), ("eval",)),
    "group_by": ("eval",),
    **dict.fromkeys(("threshold", "prevalence", "split"), ("test", "eval")),
    **dict.fromkeys(("epochs", "test_csv"), ("train", "eval")),
    **dict.fromkeys(("accumulate", "save_every", "save_all", "check"), ("train",)),
    **dict.fromkeys(("val_data", "leak_free"), ("train",)),
    **dict.fromkeys(("feat_interp", "feat_interp_alpha", "feat_interp_ratio"), ("train",)),
}


def benchmarks() -> list[str]:
    """Names of the files in configs/benchmarks/, without importing what reads them."""
    folder = Path(__file__).parents[2] / "configs" / "benchmarks"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def epochs(text: str) -> tuple[int, ...]:
    """For argparse: `35` or `0,4,34` -> the numbers, each once; `all` -> none."""
    one = number(int, 0)
    return () if text == ALL else tuple(dict.fromkeys(one(part) for part in listed(text)))


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
        """As argparse has it; `--set` takes several values, pictures may stand between flags, where
        argparse takes those in one place only, and no word is empty: an empty path would be the
        current folder."""
        words = list(sys.argv[1:] if args is None else args)
        for place, word in enumerate(words):
            if not word or (word.startswith("--") and word.find("=") == len(word) - 1):
                before = (flag for flag in reversed(words[:place]) if flag.startswith("-"))
                flag = word[:-1] or next(before, "the first word")
                self.error(f"{flag}: expected a value; found an empty one")
        found, unknown = super().parse_known_args(_each_with_its_flag(words), namespace)
        if hasattr(found, "pictures") and not any(word.startswith("-") for word in unknown):
            found.pictures, unknown = [*found.pictures, *unknown], []
        return found, unknown

    def error(self, message: str) -> NoReturn:
        said = visible(" ".join(message.split()))
        self.exit(USAGE, f"{self.prog}: {said}; --help lists the flags\n")


def add_decoding(group: Any) -> None:
    """Flags that say how pictures are decoded, for `flags.workers`; scripts have them, too."""
    limits = Limits()
    group.add_argument(
        "--workers",
        type=number(int, 0, 1024),
        metavar="N",
        help="processes that decode pictures (one less than the cores; 1 for fewer than 64 "
        "pictures); 0 = none but this one, which limits neither their memory nor their time",
    )
    group.add_argument(
        "--max_megapixels",
        type=number(float, 0.001, 10_000),
        default=limits.megapixels,
        metavar="N",
        help="a larger picture is an error, and not decoded (%(default)g)",
    )
    group.add_argument(
        "--picture_memory",
        type=number(float, 0.125, 1024),
        default=limits.memory,
        metavar="GIB",
        help="that decoding one picture may take, on Linux (%(default)g)",
    )
    group.add_argument(
        "--picture_seconds",
        type=number(float, 0.1, 86_400),
        default=limits.seconds,
        metavar="S",
        help="of processor time that decoding one picture may take (%(default)g)",
    )


def parser() -> Parser:
    """The command line; defaults of None mean: as the configuration says."""
    p = Parser(
        prog="main.py",
        description="Tell real pictures from AI-generated ones. score = probability of synthetic.",
        epilog="Parentheses state defaults. Exit status: 0 done; 1 done, but some pictures could "
        "not be scored; 2 wrong usage, weights or data; 70 an error of the program "
        "itself; 130, 143 interrupted. Results go to "
        "standard output, everything else to standard error.",
        allow_abbrev=False,
    )
    p.add_argument(
        "pictures",
        nargs="*",
        default=[],
        metavar="PICTURE",
        help="pictures, folders and so on to test, as for --input",
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
        "--weights, else default, the one whose weights ship",
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
        "pretrained/manifest.yaml; to train CO-SPY's fusion, also A,B: what its branches' "
        "trainings left in --output",
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
    cospy.add_argument(
        "--feat_interp",
        action="store_true",
        help="phase train, branch semantic: learn from mixed features",
    )
    cospy.add_argument(
        "--feat_interp_alpha",
        type=number(float, 0.01, 1000),
        metavar="X",
        help="of the Beta distribution that the shares follow (0.2)",
    )
    cospy.add_argument(
        "--feat_interp_ratio",
        type=number(float, 0, 1),
        metavar="X",
        help="share of the pictures that are mixed (0.5)",
    )
    cospy.add_argument(
        "--leak_free",
        action="store_true",
        help="phase train, mode fusion: one half of the val split to train on, the other to choose "
        "by; published: all of it for both",
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
        help=f"phase eval: one of {', '.join(benchmarks())}; phase train: one with training "
        "pictures; with CO-SPY and neither --data nor this, that of its variant",
    )
    data.add_argument(
        "--val_data",
        type=Path,
        metavar="PATH",
        help="phase train: validation pictures, as for --data; left out: the split val of the "
        "data, or where they have none a tenth of each generator",
    )
    data.add_argument(
        "--test_csv",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="labelled CSV files or folders, each a set of its own (one or more, repeatable). "
        "Phase train: measured after each epoch, nothing is chosen by them; phase eval, in place "
        "of --data: each evaluated into a folder of its name below --output",
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
        action="append",
        default=[],
        metavar="DIR",
        help="folder, or LMDB, that the paths in a CSV start from (the CSV's own folder); "
        "repeatable: one for all CSV files, or one for each, in the order of --data, --val_data, "
        "--test_csv or of --input",
    )
    data.add_argument(
        "--split",
        metavar="NAME",
        help="only pictures of this split, or all; phase eval: of a CSV with several (test), "
        "otherwise (all of them, or the benchmark's own); phase test: (all)",
    )
    for name in ("generators", "sources"):
        data.add_argument(
            f"--{name}", type=listed, default=[], metavar="A,B", help=f"only these {name}"
        )
    data.add_argument(
        "--limit",
        type=number(int, 1),
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
        "--stability",
        action="store_true",
        help="phase test: score each picture as JPEG 85 and 70, WebP 80, and shrunk to 0.7 as JPEG "
        "90, too; a verdict that does not hold in all becomes Uncertain (5 times the work)",
    )
    out.add_argument(
        "--explain",
        action="store_true",
        help="phase test: draw what each score rests on, into DIR/explain",
    )
    out.add_argument(
        "--tag",
        type=folder_name,
        metavar="NAME",
        help="of a run, for run.json and reports. Phase train, eval: a folder of this name in "
        "--output takes the results; phase test: the column of scores in a CSV (the detector)",
    )
    out.add_argument(
        "--threshold",
        type=threshold,
        metavar="X|FILE",
        help="score above which a picture counts as synthetic (as the weights say), or the file "
        "that scripts/own_threshold.py made of your own real pictures, which has a band, too",
    )
    out.add_argument(
        "--prevalence",
        type=share,
        default=EVEN,
        metavar="P",
        help="share of the pictures that you expect to be generated, between 0 and 1: scores "
        "become the probabilities for it, log(P / (1 - P)) is added to each logit; threshold and "
        "band stay as they are, so that verdicts change (%(default)g, for which scores are "
        "calibrated)",
    )
    out.add_argument(
        "--group_by",
        type=listed,
        default=[],
        metavar="A,B",
        help="phase eval: divide each generator by what JSON beside its pictures says, as by steps",
    )
    out.add_argument(
        "--min_pictures",
        type=number(int, 1),
        metavar="N",
        help="phase eval: a generator enters the means with N pictures or more, of the real ones "
        "that it is measured against too (10)",
    )
    again = out.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    train = p.add_argument_group("training")
    train.add_argument(
        "--epochs",
        type=epochs,
        metavar="N",
        help="phase train: passes over the training pictures (the recipe's); phase eval: 0,4,34 or "
        "all: the weights in the folder --weights that --save_all left of these epochs (the log's "
        "epoch 1 is epoch_0), each evaluated into a folder of its own below --output",
    )
    train.add_argument(
        "--batch_size",
        type=number(int, 1),
        metavar="N",
        help="pictures a step, or at a time when scoring (the recipe's)",
    )
    train.add_argument(
        "--accumulate",
        type=number(int, 1),
        metavar="N",
        help="batches that an optimizer step takes together (1)",
    )
    train.add_argument(
        "--save_every",
        type=number(int, 0),
        metavar="N",
        help="steps between checkpoints, from which --resume goes on; 0 = after epochs only (200)",
    )
    train.add_argument(
        "--save_all", action="store_true", help="keep the weights of every epoch, too"
    )
    train.add_argument(
        "--check",
        action="store_true",
        help="look whether pictures and weights are there and the output is free, and end",
    )
    train.add_argument(
        "--seed", type=number(int, 0, 2**63), metavar="N", help="of all randomness (the recipe's)"
    )
    how = p.add_argument_group("machine")
    how.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (cuda if there)")
    how.add_argument(
        "--gpu",
        type=number(int, 0),
        metavar="N",
        help="cuda:N, or the CPU with a warning where there is none",
    )
    how.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the network's arithmetic (fp32; in training the recipe's)",
    )
    add_decoding(how)
    how.add_argument(
        "--threads",
        type=number(int, 1, 1024),
        metavar="N",
        help="threads that compute on the CPU (those of OMP_NUM_THREADS, else all cores that this "
        "process may use; with --resume those that the run began with)",
    )
    how.add_argument("--compile", action="store_true", help="torch.compile the network")
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def shared(names: Sequence[str]) -> Parser:
    """Some of main.py's flags, as it has them, for the command line of a script."""
    p = Parser(add_help=False)
    for action in parser()._actions:
        if action.dest in names:
            p._add_action(action)
    return p
