"""Serves the pages and the JSON API: check pictures in a browser, at http://127.0.0.1:8000/.

    python scripts/serve.py                            # the detector that ships
    python scripts/serve.py --detector spai --weights spai --port 8080

One process, one detector, loaded once; requests wait in a bounded queue. Pictures stay in memory,
and nothing of them is stored or logged. It listens to this machine alone: docs/usage/pages.md says
what to put before it where others shall reach it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
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
    from engine.pages.scoring_queue import ScoringQueue
    from engine.pages.server import Parts

PROGRAM = "serve.py"
CHOICE = ("detector", "config", "set", "train_dataset", "mode", "branch")
WEIGHTS = ("weights", "backbone_weights", "pretrain", "ckpt", "threshold", "prevalence")
MACHINE = ("torch", "device", "gpu", "precision", "batch_size", "threads", "max_megapixels")
LIMITS = ("picture_memory", "picture_seconds")


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__, "2 wrong usage or weights, or the address is taken; 143 ended "
                   "by SIGTERM, after the answers in work", whole=True,
                   parents=[shared((*CHOICE, *WEIGHTS, *MACHINE, *LIMITS))])  # fmt: skip
    p.add_argument("--trust_list", dest="trusted", type=Path, metavar="FILE",
                   help="certificates (PEM) of those whose content credentials are "
                   "trusted")  # fmt: skip
    p.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="[NAME=]RUN",
        help="show a leaderboard of these, as scripts/leaderboard.py takes them",
    )
    p.add_argument("--quiz", type=Path, metavar="DIR",
                   help="run the questionnaire that scripts/quiz.py made there")  # fmt: skip
    p.add_argument("--no_scoring", dest="scoring", action="store_false",
                   help="load no detector: no demo and no API")  # fmt: skip
    p.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                   help="address to listen at (127.0.0.1: this machine alone)")  # fmt: skip
    p.add_argument("--port", type=number(int, 0, 65535), default=8000,
                   help="port to listen at, 0 for any that is free (8000)")  # fmt: skip
    p.add_argument("--hosts", nargs="+", default=[], metavar="NAME",
                   help="names by which browsers reach the server, beside localhost")  # fmt: skip
    p.add_argument("--queue", type=number(int, 1, 1000), default=8,
                   help="requests that arrive, wait or are scored at a time; more are answered "
                   "429 (8)")  # fmt: skip
    p.add_argument(
        "--per_minute",
        type=number(int, 1),
        default=120,
        metavar="REQUESTS",
        help="requests for scores that one client may send in a minute (120)",
    )
    p.add_argument("--max_megabytes", type=number(float, 0.001, 1024), default=32.0, metavar="MB",
                   help="size of a request, all its pictures together (32)")  # fmt: skip
    p.add_argument("--max_pictures", type=number(int, 1, 1000), default=16, metavar="N",
                   help="pictures of a request (16)")  # fmt: skip
    p.add_argument("--upload_seconds", type=number(float, 0.1, 3600), default=30.0,
                   metavar="SECONDS", help="time until a request has arrived (30)")  # fmt: skip
    return p


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of a command line. Ends the program when they are wrong."""
    p = parser()
    args = parse_as_main(p, arguments)
    args.credentials, args.trust_list = True, args.trusted
    if not (args.scoring or args.runs or args.quiz):
        p.error("--no_scoring: expected --runs or --quiz too; found nothing to serve")
    return args


def queue_of(args: argparse.Namespace) -> ScoringQueue:
    """The detector, loaded, behind its queue."""
    from engine.cli import settings
    from engine.cli.test_request import testing
    from engine.pages.detector_judge import DetectorJudge
    from engine.pages.scoring_queue import ScoringQueue

    rules.check_named(args, rules.detector_named(args))
    rules.check(args, settings.detector_name(args))

    request = testing(args)
    return ScoringQueue(DetectorJudge(request.scorer, request.trust), args.queue)


def parts_of(args: argparse.Namespace) -> Parts:
    """What there is to serve."""
    from engine.pages.board_page import render
    from engine.pages.quiz import read_quiz
    from engine.pages.quiz_answers import Answers
    from engine.pages.server import Parts
    from scripts.leaderboard import board_of

    quiz = Answers(read_quiz(args.quiz)) if args.quiz else None
    board = render(board_of(args.runs)) if args.runs else None
    return Parts(queue_of(args) if args.scoring else None, quiz, board)


def run(args: argparse.Namespace) -> int:
    """The exit status. Loads the detector and answers until it is told to end."""
    from engine.pages.server import (
        ServerOptions,
        address_of,
        application,
        listening,
        server_of,
    )
    from engine.pages.uploads import UploadLimits
    from engine.runtime.run_folder import take

    uploads = UploadLimits(args.max_megabytes, args.max_pictures, args.upload_seconds)
    hosts = tuple(name.lower() for name in (args.host, *args.hosts))
    options = ServerOptions(hosts, args.per_minute, uploads)
    with ExitStack() as stack:
        if args.quiz:
            stack.enter_context(take(args.quiz))  # two servers would mix up its answers
        # Before the detector is loaded, which takes long: a taken port is told at once.
        listener = stack.enter_context(listening(args.host, args.port))
        server = server_of(application(parts_of(args), options))
        print(address_of(listener), flush=True)
        say(PROGRAM, "Ctrl-C ends")
        server.run(sockets=[listener])
    return 0


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
