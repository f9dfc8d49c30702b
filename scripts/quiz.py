"""Makes a questionnaire, reports its answers: people and detectors on the same pictures.

    python scripts/quiz.py make pictures.csv --output my_quiz --per_kind 20 --detectors default
    python scripts/serve.py --no_scoring --quiz my_quiz
    python scripts/quiz.py report my_quiz
    python scripts/quiz.py export my_quiz --output people.csv

make draws as many real as synthetic pictures from a CSV with the columns image and class (and
generator, source, kind), a folder or an archive, makes them alike as files, and writes quiz.yaml to
edit. Detectors are folders of phase eval in DIR/detectors, of any weights, by main.py --phase eval
--data DIR/pictures.csv --output DIR/detectors/NAME; --detectors makes those with own weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from scripts._shared import answer, new_parser, say  # noqa: E402

PROGRAM = "quiz.py"


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__, "0 done; 2 wrong usage or data", whole=True)
    commands = p.add_subparsers(dest="command", required=True, parser_class=Parser)
    make = commands.add_parser("make", help="draw pictures and write a questionnaire's folder")
    make.add_argument("data", type=Path, metavar="DATA", help="a CSV, a folder or an archive")
    make.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    make.add_argument("--seed", type=number(int, 0), default=0, help="of the draw (0)")
    make.add_argument("--by", choices=("class", "kind", "generator"), default="class",
                      help="what is balanced: classes, the classes in each kind, or generators "
                      "(class)")  # fmt: skip
    make.add_argument("--per_kind", type=number(int, 1), required=True, metavar="K",
                      help="pictures of each class, of each class in each kind, or of each "
                      "generator")  # fmt: skip
    make.add_argument("--size", type=number(int, 64, 4096), default=512, metavar="PX",
                      help="side of every picture (512)")  # fmt: skip
    make.add_argument(
        "--mode",
        choices=("one", "pair"),
        default="one",
        help="one picture at a time, or two of which one is real (one)",
    )
    make.add_argument(
        "--detectors",
        nargs="+",
        default=[],
        metavar="NAME",
        help="detectors that score the pictures, with their own weights",
    )
    make.add_argument("--workers", type=number(int, 0, 256), default=1,
                      help="processes that decode (1)")  # fmt: skip
    report = commands.add_parser("report", help="people against detectors")
    report.add_argument("folder", type=Path, metavar="DIR")
    export = commands.add_parser("export", help="people's answers as an entry of the leaderboard")
    export.add_argument("folder", type=Path, metavar="DIR")
    export.add_argument("--participant", metavar="ID", help="one person alone")
    export.add_argument("--output", type=Path, required=True, metavar="CSV")
    return p


def make(args: argparse.Namespace) -> int:
    """The exit status. Makes a questionnaire."""
    import datasets
    from datasets._csv import read_csv
    from engine.pages import quiz, quiz_make
    from engine.runtime.workers import Workers

    kinds: dict[str, str] = {}
    if args.data.suffix.lower() == ".csv":
        _, rows = read_csv(args.data)
        kinds = {row["image"]: row.get("kind", "") for row in rows}
    records = datasets.open_path(args.data)
    drawn = quiz_make.draw(records, kinds, args.by, args.per_kind, args.seed)
    workers = Workers(args.workers)
    enlarged = quiz_make.write(args.output, drawn, kinds, args.size, args.seed, args.mode, workers)
    if enlarged:
        say(PROGRAM, f"{enlarged} of {len(drawn)} pictures were enlarged to {args.size} px")
    for name in args.detectors:
        run = ("--phase", "eval", "--detector", name, "--data", args.output / quiz.TABLE,
               "--output", args.output / quiz.DETECTORS / name)  # fmt: skip
        command = [sys.executable, ROOT / "main.py", *run]
        if status := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            say(PROGRAM, f"{name}: not scored: exit status {status}")
            return status
    print(args.output / quiz.OPTIONS)
    return 0


def report(args: argparse.Namespace) -> int:
    """The exit status. Writes the report."""
    from engine.pages import quiz_report
    from engine.pages.quiz import read_quiz
    from engine.pages.quiz_answers import Answers

    print(quiz_report.write(Answers(read_quiz(args.folder))))
    return 0


def export(args: argparse.Namespace) -> int:
    """The exit status. Writes people's scores."""
    from engine.config import ConfigError
    from engine.pages import quiz_report
    from engine.pages.quiz import read_quiz
    from engine.pages.quiz_answers import Answers
    from engine.runtime.files import write_file

    answers = Answers(read_quiz(args.folder))
    sessions = quiz_report.attentive(answers)
    if args.participant:
        sessions = [s for s in sessions if s.participant == args.participant]
    if not sessions:
        raise ConfigError("expected answers that count; found none")
    print(write_file(args.output, quiz_report.scores_csv(answers.quiz, sessions)))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parser().parse_args(arguments)
    from datasets import LayoutError
    from engine.config import ConfigError

    run = {"make": make, "report": report, "export": export}[args.command]
    return answer(PROGRAM, lambda: run(args), (LayoutError, ConfigError))


if __name__ == "__main__":
    sys.exit(main())
