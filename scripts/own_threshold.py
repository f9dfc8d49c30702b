"""Chooses the threshold that keeps to a rate of false alarms on your own real pictures.

    python scripts/own_threshold.py MY_PHOTOS --false_alarms 0.01 --output mine.yaml
    python main.py --threshold mine.yaml --input SUSPECTS

Scores real pictures as main.py does and takes the smallest threshold that a new picture like them
exceeds with a probability of at most the rate asked for: of n pictures, all different, the k-th
smallest score, k = n + 1 - floor((n + 1) rate). What lies above it is called AI-Generated. It is
the upper end of the band of Uncertain; the lower end is the weights' own, or the threshold where
that is lower. The file has the measured rate with its exact interval. Pictures of one folder, day
or camera are alike and count for fewer than they are: take some of all that you will judge.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.cli import rules  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import shared  # noqa: E402
from scripts._shared import answer, new_parser, parse_as_main  # noqa: E402

if TYPE_CHECKING:
    from datasets import Record
    from engine.api import Scorer
    from engine.scoring.table import ScoreRow

PROGRAM = "own_threshold.py"
UNSCORED = 1
CHOICE = ("detector", "config", "set", "train_dataset", "mode", "branch")
WEIGHTS = ("weights", "backbone_weights", "pretrain", "ckpt")
MACHINE = ("device", "gpu", "precision", "batch_size", "threads", "workers", "max_megapixels")
LIMITS = ("picture_memory", "picture_seconds", "csv_root")
log = logging.getLogger("engine.scoring.own_threshold")


def parser() -> Parser:
    """The command line."""
    status = (
        "0 done; 1 done, but some pictures could not be read; 2 wrong usage, too few pictures, "
    )
    p = new_parser(PROGRAM, __doc__, f"{status}wrong weights or data", whole=True,
                   parents=[shared((*CHOICE, *WEIGHTS, *MACHINE, *LIMITS))])  # fmt: skip
    p.add_argument("input", nargs="+", metavar="REAL_PICTURES",
                   help="pictures, folders, archives, CSV files with a column image, or - for "
                   "paths on standard input, as --input of main.py takes; all of them "
                   "real")  # fmt: skip
    p.add_argument("--false_alarms", type=number(float, 0.0001, 0.5), required=True,
                   metavar="RATE",
                   help="share of real pictures that may be called AI-Generated, as 0.01, which "
                   "takes 99 readable pictures; RATE takes 1 / RATE - 1 of them, and at "
                   "least 50")  # fmt: skip
    p.add_argument("--output", dest="file", type=Path, metavar="FILE.yaml",
                   help="where the file goes (standard output)")  # fmt: skip
    p.add_argument("--overwrite", dest="replace", action="store_true",
                   help="replace a file of that name")  # fmt: skip
    return p


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of a command line. Ends the program when they are wrong."""
    p = parser()
    args = parse_as_main(p, arguments)
    if args.file and args.file.suffix.lower() not in (".yaml", ".yml"):
        p.error(f"--output: expected a name that ends in .yaml; found {args.file}")
    return args


def scored(records: Sequence[Record], scorer: Scorer) -> list[ScoreRow]:
    """The rows of all pictures, with the digests of their files."""
    from engine.runtime.progress import Progress
    from engine.scoring.cache import Memo
    from engine.scoring.loop import score

    rows: list[ScoreRow] = []
    # A lookup that knows nothing has each file's digest taken.
    options = replace(scorer.options, lookup=Memo(None))
    with Progress(len(records), "scoring") as progress:
        for batch in score(scorer.backend, records, options):
            rows += batch
            progress.advance(len(batch))
    return rows


def check(args: argparse.Namespace) -> None:
    """Raises ConfigError or LayoutError for what is wrong before any picture is read."""
    from engine.config import ConfigError

    rules.check_named(args, rules.detector_named(args))
    if args.file and args.file.exists() and not args.replace:
        raise ConfigError(f"{args.file}: already there: use --overwrite or another --output")
    if args.file and not args.file.parent.is_dir():
        raise ConfigError(f"--output {args.file}: expected a folder that is there")


def pictures(args: argparse.Namespace) -> list[Record]:
    """The pictures. Raises ConfigError when too few are listed, or one is named synthetic."""
    from datasets import Label
    from engine.cli.inputs import collect
    from engine.config import ConfigError
    from engine.scoring import own_threshold

    records = collect(args.input, args.csv_root)
    if fakes := [record.key for record in records if record.label is Label.FAKE]:
        raise ConfigError(
            f"expected real pictures alone; found {len(fakes)} that are labelled synthetic, such "
            f"as {fakes[0]}"
        )
    own_threshold.check_enough(len(records), args.false_alarms)
    return records


def run(args: argparse.Namespace) -> int:
    """The exit status. Scores the pictures and writes the file."""
    from datasets._paths import visible
    from engine.cli import settings
    from engine.cli.test_request import asked_scorer
    from engine.runtime.files import write_file
    from engine.scoring import own_threshold

    check(args)
    records = pictures(args)
    rules.check(args, settings.detector_name(args))
    # As phase test scores, so that the rate holds for its scores to the last digit.
    scorer = asked_scorer(args, len(records))
    loaded, config = scorer.loaded, scorer.config
    rows = scored(records, scorer)
    failed = [row for row in rows if row.logit is None]
    for row in failed:
        log.warning("%s: %s: left out", visible(row.key), visible(row.error))
    # A copy says nothing new; logits of one file are the same.
    logits = {row.digest: row.logit for row in rows if row.logit is not None}
    copies = len(rows) - len(failed) - len(logits)
    measured = own_threshold.choose(list(logits.values()), args.false_alarms)
    counts = {"scored": len(logits), "copies": copies, "unreadable": len(failed)}
    content = own_threshold.text(measured, args.false_alarms, counts, loaded, config)
    low, high = measured.interval()
    log.info(
        "of %d different pictures %d are above the threshold %.6f; the true rate of false alarms "
        "is between %.2f %% and %.2f %%, with a confidence of 95 %%, on pictures like these",
        measured.pictures, measured.above, measured.threshold, 100 * low, 100 * high,
    )  # fmt: skip
    if measured.threshold == 1:
        log.warning("a real picture has a score of 1: nothing will be called AI-Generated")
    if args.file:
        print(write_file(args.file, content))
    else:
        print(content, end="")
    return UNSCORED if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parse(arguments)
    from datasets import LayoutError
    from detectors._errors import OptionError, WeightsError
    from engine.config import ConfigError

    errors = (LayoutError, ConfigError, OptionError, WeightsError)
    return answer(PROGRAM, lambda: run(args), errors)


if __name__ == "__main__":
    sys.exit(main())
