"""A run of main.py, from parsed flags to an exit status: the checks, the phase, and its errors.

`main.py` calls `run`. Nothing heavy is imported before `rules` has looked at the flags, so that a
mistake is answered at once; every error ends in one line on standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ..runtime.program import SIGNALLED, USAGE, answer, complain, log_handler, refuse
from .argument_parser import Parser

PROGRAM, UNSCORED, GOES_ON = "main.py", 1, "--resume goes on"
LOADING = (
    "loading the detector; a path is asked for, such as data/examples/real/coffee.png; an empty "
    "line, q, exit or Ctrl-D ends; `python main.py data/examples` scores a folder without asking\n"
)


def run(parser: Parser, args: argparse.Namespace) -> int:
    """Runs a parsed command line. Returns the exit status."""
    logging.getLogger("engine").setLevel(logging.INFO)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its lines itself

    def work() -> int:
        logging.basicConfig(level=logging.WARNING, handlers=[log_handler()])
        return _checked(parser, args)

    # Training handles signals once it has begun, and saves its state.
    begun = args.output if args.phase == "test" else args.phase == "eval" or args.resume
    return answer(PROGRAM, work, debug=args.debug, goes_on=GOES_ON if begun else "")


def _checked(parser: Parser, args: argparse.Namespace) -> int:
    """Runs a phase, once the flags are looked at."""
    from datasets import LayoutError

    from ..config import ConfigError

    try:
        check(parser, args)
    except (ConfigError, LayoutError) as error:
        return refuse(PROGRAM, error, args.debug)
    if args.phase == "test" and not args.input:
        sys.stderr.write(LOADING)
    return _run_phase(args)


def check(parser: Parser, args: argparse.Namespace) -> None:
    """Looks at all that can be told of the flags without PyTorch, makes --input of pictures that
    stand without a flag, and chooses what a command line leaves open that names nothing.

    Raises:
        ConfigError, LayoutError: what a flag names is wrong, or not there.
    """
    from . import bare, rules

    name = rules.detector_named(args)
    if problem := rules.broken(args, name):
        parser.error(problem)
    args.input, args.pictures = args.pictures or args.input, []
    if bare.is_bare(args):
        for line in bare.fill(args):
            if os.environ.get("RANK", "0") == "0":  # of several processes one says so
                complain(PROGRAM, line)
        name = rules.detector_named(args)
    rules.check_named(args, name)


def _print(text: str) -> None:
    """Puts results on standard output; nothing for '', of processes but the main one."""
    if text:
        sys.stdout.write(f"{text}\n")


def _test(args: argparse.Namespace) -> int:
    if args.stream:
        from ..phases import stream
        from .stream_request import streaming

        return UNSCORED if stream.run(streaming(args)) else 0
    from ..phases import test
    from .test_request import testing

    request = testing(args)
    failed = test.run(request) if args.input else test.ask(request)
    return UNSCORED if failed else 0


def _eval(args: argparse.Namespace) -> int:
    from ..phases import compare, eval
    from ..runtime import distributed
    from . import series
    from .eval_request import evaluating

    unreadable = 0
    if args.compare:
        summary = compare.compare(args.compare, args.output) if distributed.is_main() else ""
    elif series.is_asked_for(args):
        summary, unreadable = series.run(args)
    else:
        summary, unreadable = eval.run(*evaluating(args))
    _print(summary)
    return UNSCORED if unreadable else 0


def _train(args: argparse.Namespace) -> int:
    from ..phases import train
    from .train_request import training

    request, world = training(args)
    if isinstance(request, train.CombineRequest):
        summary = train.combine(request)
    else:
        summary = train.run(request, world)
    _print(summary)
    return 0


class Ending(NamedTuple):
    """How a run ends: exit status, and the line on standard error, '' for none."""

    status: int
    line: str


def _ending(error: Exception) -> Ending | None:
    """How a run ends by an error; None for one that is no user's."""
    from datasets import LayoutError
    from detectors._errors import OptionError, WeightsError

    from ..config import ConfigError
    from ..runtime import distributed
    from ..runtime.signals import Interrupted

    text, smaller = str(error), "use a smaller --batch_size"
    torch: Any = sys.modules.get("torch")  # without it its errors cannot have come
    no_room = isinstance(error, RuntimeError) and "can't allocate memory" in text
    lost = isinstance(error, RuntimeError) and distributed.lost_another(error)
    table = (
        (isinstance(error, Interrupted), SIGNALLED + getattr(error, "number", 0),
         f"{text}; {GOES_ON}"),
        (isinstance(error, distributed.OtherFailed), USAGE, ""),
        (isinstance(error, (LayoutError, OptionError, WeightsError, ConfigError)), USAGE, text),
        (torch and isinstance(error, torch.OutOfMemoryError), USAGE,
         f"{text.split('. ')[0]}: {smaller}, or --device cpu"),
        (no_room, USAGE, f"out of memory: {smaller}"),  # of the CPU, for which torch has no class
        (lost, USAGE, f"another process of this run has ended; {GOES_ON}"),
    )  # fmt: skip
    return next((Ending(status, line) for holds, status, line in table if holds), None)


def _run_phase(args: argparse.Namespace) -> int:
    """Runs a phase. Returns the exit status."""
    from ..config import ConfigError
    from ..runtime import distributed
    from . import rules, settings

    phases: dict[str, Callable[[argparse.Namespace], int]]
    phases = {"train": _train, "eval": _eval, "test": _test}
    try:
        # Of several processes one says how it goes.
        logging.disable(logging.NOTSET if distributed.is_main() else logging.WARNING)
        if distributed.launched() > 1 and args.phase == "test":
            raise ConfigError("--phase test: expected one process; found several")
        if not args.compare:
            rules.check(args, settings.detector_name(args))
        return phases[args.phase](args)
    except Exception as error:
        ending = _ending(error)
        if ending is None:
            raise
        if ending.status == USAGE and ending.line:
            return refuse(PROGRAM, ending.line, args.debug)
        if ending.line and distributed.is_main():
            complain(PROGRAM, ending.line)
        return ending.status
    finally:
        distributed.leave()
