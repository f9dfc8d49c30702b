"""The flags of the command line, each with the phases that heed it; `rules` says which go together.

`main.py` and the scripts parse by it. A detector's own flags are data beside the detector
(`detectors._flags`). Imports nothing heavy: --help waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectors
from datasets._limits import Limits
from datasets._paths import ALL

from ..scoring.probability import EVEN
from .argument_parser import Parser
from .arguments import folder_name, listed, month, number, share, threshold
from .stream_flags import add_stream


def benchmarks() -> list[str]:
    """Names of the files in configs/benchmarks/, without importing what reads them."""
    folder = Path(__file__).parents[2] / "configs" / "benchmarks"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def epochs(text: str) -> tuple[int, ...]:
    """For argparse: `35` or `0,4,34` -> the numbers, each once; `all` -> none."""
    one = number(int, 0)
    return () if text == ALL else tuple(dict.fromkeys(one(part) for part in listed(text)))


def add_decoding(group: Any) -> None:
    """Flags that say how pictures are decoded, for `flags.workers`; scripts have them, too."""
    limits = Limits()
    group.add_argument(
        "--workers",
        type=number(int, 0, 1024),
        metavar="N",
        help="processes that decode pictures, at most: another starts where pictures are waited "
        "for (as many as processors; 1 for fewer than 64 pictures); 0 = none but this one, which "
        "limits neither their memory nor their time",
    )
    group.add_argument(
        "--max_megapixels",
        type=number(float, 0.001, 10_000),
        default=limits.megapixels,  # the library has the same
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


def _detector(p: Parser) -> None:
    """Which detector, configuration and weights."""
    group = p.add_argument_group("detector")
    p.flag(
        group,
        "--detector",
        choices=detectors.available(),
        metavar="NAME",
        help=f"{', '.join(detectors.available())}; without it: cospy if one of CO-SPY's own flags "
        "is given, else that of the card of --weights, else default, the one whose weights ship",
    )
    p.flag(group, "--config", type=Path, metavar="FILE", help="YAML on top of the detector's")
    p.flag(
        group,
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="configuration values, such as ssp.patches=4 (one or more, repeatable)",
    )
    p.flag(
        group,
        "--weights",
        metavar="PATH|NAME",
        help="a weight file, a folder with the three files of CO-SPY, a folder that "
        "scripts/publish.py wrote or hf:ORG/NAME[@REVISION], or a name of "
        "pretrained/manifest.yaml; to train CO-SPY's fusion, also A,B: what its branches' "
        "trainings left in --output",
    )
    p.flag(
        group,
        "--backbone_weights",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH|NAME",
        help="files, or names of pretrained/manifest.yaml, for frozen encoders (SigLIP, CLIP, "
        "autoencoder), or that training starts a backbone from",
    )


def _data(p: Parser) -> None:
    """Where the pictures lie."""
    group = p.add_argument_group("data")
    p.flag(
        group,
        "--input",
        "test",
        nargs="+",
        metavar="PATH",
        help="phase test: pictures, folders, archives, CSV files with a column image, "
        "or - for paths on standard input; left out: asks for paths. A name that starts with a "
        "dash is written ./-name",
    )
    p.flag(
        group,
        "--data",
        "train eval",
        type=Path,
        metavar="PATH",
        help="phase train, eval: a folder with real/ and fake/, an archive of such (.tar, .zip, "
        ".lmdb, .parquet), or a CSV with image,class[,split,generator,source,released]",
    )
    p.flag(
        group,
        "--benchmark",
        "train eval",
        choices=benchmarks(),
        metavar="NAME",
        help=f"phase eval: one of {', '.join(benchmarks())}; phase train: one with training "
        "pictures; with CO-SPY and neither --data nor this, that of its variant",
    )
    p.flag(
        group,
        "--val_data",
        "train",
        type=Path,
        metavar="PATH",
        help="phase train: validation pictures, as for --data; left out: the split val of the "
        "data, or where they have none a tenth of each generator",
    )
    p.flag(
        group,
        "--test_csv",
        "train eval",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="labelled CSV files or folders, each a set of its own (one or more, repeatable). "
        "Phase train: measured after each epoch, nothing is chosen by them; phase eval, in place "
        "of --data: each evaluated into a folder of its name below --output",
    )
    p.flag(
        group,
        "--data_root",
        "train eval",
        type=Path,
        metavar="DIR",
        help="where the benchmark lies (its place below data/); parts of it that lie elsewhere by "
        "--set data.mscoco=DIR and so on",
    )
    p.flag(
        group,
        "--protocol",
        "eval",
        metavar="NAME",
        help="how the benchmark is measured: published, or matched, where format and size tell "
        "nothing (published)",
    )
    p.flag(
        group,
        "--csv_root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder, or LMDB, that the paths in a CSV start from (the CSV's own folder); "
        "repeatable: one for all CSV files, or one for each, in the order of --data, --val_data, "
        "--test_csv or of --input",
    )


def _selection(p: Parser) -> None:
    """Which of the pictures, and what is done to them first."""
    group = p.add_argument_group("selection")
    p.flag(
        group,
        "--split",
        "test eval",
        metavar="NAME",
        help="only pictures of this split, or all; phase eval: of a CSV with several (test), "
        "otherwise (all of them, or the benchmark's own); phase test: (all)",
    )
    # Not in phase test, whose pictures have neither.
    for name in ("generators", "sources"):
        p.flag(
            group,
            f"--{name}",
            "train eval",
            type=listed,
            default=[],
            metavar="A,B",
            help=f"only these {name}",
        )
    p.flag(
        group,
        "--until",
        "train",
        type=month,
        metavar="YYYY[-MM]",
        help="phase train: only generators that were out by the end of this year or month, by the "
        "data's own dates or configs/generators.yaml; of unknown date, none. All real pictures",
    )
    p.flag(
        group,
        "--limit",
        "train eval",
        type=number(int, 1),
        metavar="N",
        help="at most N pictures of each generator and source of reals",
    )
    p.flag(
        group,
        "--degrade",
        "eval",
        nargs="+",
        default=["none"],
        metavar="STEPS",
        help="phase eval: change every picture first, as by jpeg:90 or crop:224+jpeg:75; several, "
        "as in jpeg:95,75,50 blur:1,2, are a robustness sweep",
    )


def _results(p: Parser) -> None:
    """Where results go, and what is told beside scores."""
    group = p.add_argument_group("results")
    p.flag(group, "--output", type=Path, metavar="DIR", help="where results go")
    p.flag(
        group,
        "--cache",
        "eval",
        metavar="DIR",
        help="phase eval: where scores are kept for later runs, or none (the user's cache folder)",
    )
    p.flag(group, "--json", "test", action="store_true", help="phase test: a JSON object a line")
    p.flag(
        group,
        "--explain",
        "test",
        action="store_true",
        help="phase test: draw what each score rests on, into DIR/explain",
    )
    p.flag(
        group,
        "--credentials",
        "test",
        action="store_true",
        help="phase test: also tell what each file says of its origin, in signed content "
        "credentials (C2PA) and metadata, which can be removed and forged; changes no score",
    )
    p.flag(
        group,
        "--trust_list",
        "test",
        type=Path,
        metavar="FILE",
        help="phase test: certificates (PEM) of those whose content credentials are trusted (none)",
    )
    p.flag(
        group,
        "--tag",
        type=folder_name,
        metavar="NAME",
        help="of a run, for run.json and reports. Phase train, eval: a folder of this name in "
        "--output takes the results; phase test: the column of scores in a CSV (the detector), "
        "with --stream in each part (score)",
    )
    again = group.add_mutually_exclusive_group()
    p.flag(again, "--resume", action="store_true", help="go on with an interrupted run")
    p.flag(again, "--overwrite", action="store_true", help="replace an earlier run")


def _verdicts(p: Parser) -> None:
    """How scores become verdicts, and how they are measured."""
    group = p.add_argument_group("verdicts and measures")
    p.flag(
        group,
        "--threshold",
        "test eval",
        type=threshold,
        metavar="X|FILE",
        help="score above which a picture counts as synthetic (as the weights say), or the file "
        "that scripts/own_threshold.py made of your own real pictures, which has a band, too",
    )
    p.flag(
        group,
        "--prevalence",
        "test eval",
        type=share,
        default=EVEN,
        metavar="P",
        help="share of the pictures that you expect to be generated, between 0 and 1: scores "
        "become the probabilities for it, log(P / (1 - P)) is added to each logit; threshold and "
        "band stay as they are, so that verdicts change (%(default)g, for which scores are "
        "calibrated)",
    )
    p.flag(
        group,
        "--stability",
        "test",
        action="store_true",
        help="phase test: score each picture as JPEG 85 and 70, WebP 80, and shrunk to 0.7 as JPEG "
        "90, too; a verdict that does not hold in all becomes Uncertain (5 times the work)",
    )
    p.flag(
        group,
        "--group_by",
        "eval",
        type=listed,
        default=[],
        metavar="A,B",
        help="phase eval: divide each generator by what JSON beside its pictures says, as by steps",
    )
    p.flag(
        group,
        "--min_pictures",
        "eval",
        type=number(int, 1),
        metavar="N",
        help="phase eval: a generator enters the means with N pictures or more, of the real ones "
        "that it is measured against too (10)",
    )
    p.flag(
        group,
        "--compare",
        "eval",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="phase eval: set the results in these folders side by side, and score nothing",
    )


def _training(p: Parser) -> None:
    """How a detector learns."""
    group = p.add_argument_group("training")
    p.flag(
        group,
        "--epochs",
        "train eval",
        type=epochs,
        metavar="N",
        help="phase train: passes over the training pictures (the recipe's); phase eval: 0,4,34 or "
        "all: the weights in the folder --weights that --save_all left of these epochs (the log's "
        "epoch 1 is epoch_0), each evaluated into a folder of its own below --output",
    )
    p.flag(
        group,
        "--batch_size",
        type=number(int, 1),
        metavar="N",
        help="pictures a step, or at a time when scoring (the recipe's)",
    )
    p.flag(
        group,
        "--accumulate",
        "train",
        type=number(int, 1),
        metavar="N",
        help="batches that an optimizer step takes together (1)",
    )
    p.flag(
        group,
        "--save_every",
        "train",
        type=number(int, 0),
        metavar="N",
        help="steps between checkpoints, from which --resume goes on; 0 = after epochs only (200)",
    )
    p.flag(
        group,
        "--save_all",
        "train",
        action="store_true",
        help="keep the weights of every epoch, too",
    )
    p.flag(
        group,
        "--check",
        "train",
        action="store_true",
        help="look whether pictures and weights are there and the output is free, and end",
    )
    p.flag(
        group,
        "--seed",
        type=number(int, 0, 2**63),
        metavar="N",
        help="of all randomness (the recipe's)",
    )


def _machine(p: Parser) -> None:
    """What computes and decodes."""
    group = p.add_argument_group("machine")
    p.flag(group, "--device", metavar="NAME", help="cpu, cuda, cuda:N or mps (cuda if there)")
    p.flag(
        group,
        "--gpu",
        type=number(int, 0),
        metavar="N",
        help="cuda:N, or the CPU with a warning where there is none",
    )
    p.flag(
        group,
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the network's arithmetic (fp32; in training the recipe's)",
    )
    add_decoding(group)
    p.flag(
        group,
        "--threads",
        type=number(int, 1, 1024),
        metavar="N",
        help="threads that compute on the CPU (those of OMP_NUM_THREADS, else all cores that this "
        "process may use; with --resume those that the run began with)",
    )
    p.flag(
        group,
        "--torch",
        "test",
        action="store_true",
        help="compute with PyTorch what the CPU scores faster without it: the same to 1e-4",
    )
    p.flag(group, "--compile", action="store_true", help="torch.compile the network")
    p.flag(group, "--debug", action="store_true", help="show the traceback of an error")


def _own_flags(p: Parser) -> None:
    """The flags that belong to single detectors."""
    for own in detectors.flags().values():
        if own.flags:
            group = p.add_argument_group(own.title)
            for flag in own.flags:
                kind = {"type": number(float, *flag.range)} if flag.range else {}
                p.flag(group, f"--{flag.name}", " ".join(flag.phases), **kind, **flag.options)


def parser() -> Parser:
    """The command line; defaults of None mean: as the configuration says."""
    p = Parser(
        prog="main.py",
        description="Tell real pictures from AI-generated ones. score = probability of synthetic.",
        epilog="Parentheses state defaults. Exit status: 0 done; 1 done, but some pictures could "
        "not be scored; 2 wrong usage, weights or data; 70 an error of the program "
        "itself; 130, 143 interrupted. Results go to "
        "standard output, everything else to standard error.",
        # What a short form means would change with each flag that is added.
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
        default="test",  # as `main.py photo.jpg` is all that most people ask
        help="train a detector, evaluate it on labelled pictures, or test pictures",
    )
    groups = (_detector, _own_flags, _data, _selection, _results, _verdicts)
    for add in (*groups, add_stream, _training, _machine):
        add(p)
    return p


def shared(names: Sequence[str]) -> Parser:
    """Some of main.py's flags, as it has them, for the command line of a script."""
    p = Parser(add_help=False)  # the script's own parser has it
    for action in parser()._actions:
        if action.dest in names:
            p._add_action(action)
    return p
