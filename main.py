"""Command line: train, evaluate and use detectors of AI-generated pictures.

Imports nothing heavy before the arguments are parsed, so that --help answers at once, and no
PyTorch before `rules` has looked at what they name.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets to this line, and no further
    sys.stderr.write(
        f"main.py: expected Python 3.11 or newer; found {sys.version.split()[0]}: bash "
        "scripts/setup.sh makes .venv, whose .venv/bin/python runs main.py\n"
    )
    sys.exit(2)

from datasets._limits import UPRIGHT
from engine.cli.parser import Parser, parser
from engine.runtime.program import SIGNALLED, USAGE, answer, complain, log_handler, refuse

PROGRAM, UNSCORED, GOES_ON = "main.py", 1, "--resume goes on"
LOADING = (
    "loading the detector; a path is asked for, such as data/examples/real/coffee.png; an empty "
    "line, q, exit or Ctrl-D ends; `python main.py data/examples` scores a folder without asking\n"
)


def run_test(args: argparse.Namespace) -> int:
    """Phase test. Returns the exit status."""
    from engine.cli import detector, machine
    from engine.phases import test
    from engine.runtime import distributed, threads
    from engine.scoring import own_threshold
    from engine.scoring.answer import recodings
    from engine.scoring.verdict_rule import judge_of

    device = machine.device(args, args.precision)
    resumed = args.output if args.resume else None
    threads.set_threads(args.threads, device.device, distributed.ALONE, resumed)
    loaded, config = detector.load(args, device)
    own_threshold.check_serves(args.threshold, loaded, config)
    judge = judge_of(loaded, args.threshold, args.prevalence)
    if args.stability:
        judge = replace(judge, views=recodings())
    if args.input is None:
        workers = machine.workers(args, 1, detector.decoding(config, UPRIGHT))
        return UNSCORED if test.ask(loaded, judge, device, config, args.json, workers) else 0
    if args.explain:
        machine.check_apart(args.output, [Path(name) for name in args.input])
    records = test.collect(args.input, args.csv_root, args.split)
    workers = machine.workers(args, len(records), detector.decoding(config, UPRIGHT))
    request = test.Request(
        inputs=args.input, csv_roots=args.csv_root, split=args.split, output=args.output,
        json=args.json, tag=args.tag or loaded.name, explain=args.explain,
        workers=workers, resume=args.resume, overwrite=args.overwrite,
    )  # fmt: skip
    failed = test.run(request, records, loaded, judge, device, config)
    return UNSCORED if failed else 0


def run_eval(args: argparse.Namespace) -> int:
    """Phase eval. Returns the exit status."""
    from engine.cli import detector, eval_request, machine, series
    from engine.phases import eval
    from engine.runtime import distributed, threads

    if args.compare:
        from engine.phases import compare

        if distributed.is_main():
            print(compare.compare(args.compare, args.output))
        return 0

    device = machine.device(args, args.precision)
    world = distributed.join(device.device)
    resumed = detector.output(args, args.output) if args.resume and args.output else None
    threads.set_threads(args.threads, device.device, world, resumed)
    if series.is_asked_for(args):
        summary, unreadable = series.run(args, device, world)
    else:
        [args] = eval_request.each_set(args).values()
        loaded, config = detector.load(args, device)
        request, records = eval_request.evaluation(args, loaded, config)
        machine.check_apart(request.output, [args.data] if args.data else [])
        summary, unreadable = eval.run(request, records, loaded, device, config, world)
    if world.main:
        print(summary)
    return UNSCORED if unreadable else 0


def run_train(args: argparse.Namespace) -> int:
    """Phase train. Returns the exit status."""
    from datasets import _splits as splits
    from engine.cli import detector, machine, train_request
    from engine.phases import train
    from engine.runtime import distributed, threads
    from engine.training import ensemble, schedule

    name = detector.detector_name(args)
    file = detector.start_file(args, name)
    config = detector.resolve_config(args, name, file)
    train_request.check(args, name, config)
    # A recipe says in which precision it trains.
    device = machine.device(args, args.precision if name == detector.ENSEMBLE else None)
    world = distributed.join(device.device)
    output = detector.output(args, detector.train_folder(args, name, config))
    threads.set_threads(args.threads, device.device, world, output if args.resume else None)
    again = (args.resume, args.overwrite)
    if name == detector.ENSEMBLE:
        found = train_request.pictures(args, config)
        machine.check_apart(output, found.places)
        members = detector.load_members(args, config.options, device)
        decoding = detector.decoding(config, config.data.train_decoding)
        workers = machine.workers(args, len(found.train), decoding)
        parts = (found.train, found.val)
        tag = args.tag or ""
        print(
            ensemble.run(members, config, *parts, device, output, workers, found.how, *again, tag)
        )
        return 0
    start = detector.start_of(args, name, config, file)
    config = detector.adapted(config, start)
    world.shared(lambda: train.check(config, device.device, output, *again))
    found = train_request.pictures(args, config)
    machine.check_apart(output, found.places)
    schedule.check_learns(config.train, found.train, world.size)
    if args.check:
        detector.check_start(name, config, start)
        if world.main:
            print(f"{output}: {splits.outlook(found.train, found.val, found.how)}")
        return 0
    origins = start.origins()
    history = world.shared(
        lambda: train_request.finished(output, config, found, origins) if args.resume else None
    )
    if history is None:
        train.seed_everything(config.train.seed)
        model = detector.model_to_train(name, config, start)
        decoding = detector.decoding(config, config.data.train_decoding)
        workers = machine.workers(args, len(found.train), decoding)
        history = train.start(
            model, config, found.train, found.val, device.device, output, workers, found.how,
            *again, found.tests, world, args.compile, origins, args.tag or "",
        )  # fmt: skip
    if world.main:
        print(train_request.summary(history, config, output))
    return 0


def check(p: Parser, args: argparse.Namespace) -> None:
    """Looks at all that can be told of the arguments at once, makes --input of pictures that stand
    without a flag, and chooses what a command line leaves open that names nothing.

    Raises:
        ConfigError, LayoutError: what a flag names is wrong, or not there.
    """
    from engine.cli import bare, rules

    name = rules.detector_named(args)
    if said := rules.broken(args, name):
        p.error(said)
    args.input, args.pictures = args.pictures or args.input, []
    if bare.is_bare(args):
        for line in bare.fill(args):
            if os.environ.get("RANK", "0") == "0":  # of several processes one says so
                complain(PROGRAM, line)
        name = rules.detector_named(args)
    rules.check_named(args, name)


def run(p: Parser, args: argparse.Namespace) -> int:
    """Runs a phase. Returns the exit status; errors of use print one line, no traceback."""
    from datasets import LayoutError
    from engine.config import ConfigError

    try:
        check(p, args)
    except (ConfigError, LayoutError) as error:
        return refuse(PROGRAM, error, args.debug)
    if args.phase == "test" and not args.input:
        sys.stderr.write(LOADING)
    return run_phase(args)


def run_phase(args: argparse.Namespace) -> int:
    """`run`, once PyTorch is needed."""
    import torch

    from datasets import LayoutError
    from detectors._base import OptionError, WeightsError
    from engine.cli import detector, rules
    from engine.config import ConfigError
    from engine.runtime import distributed
    from engine.runtime.signals import Interrupted

    phases = {"train": run_train, "eval": run_eval, "test": run_test}
    try:
        # Of several processes one says how it goes.
        logging.disable(logging.NOTSET if distributed.is_main() else logging.WARNING)
        if distributed.launched() > 1 and args.phase == "test":
            raise ConfigError("--phase test: expected one process; found several")
        if not args.compare:
            rules.check(args, detector.detector_name(args))
        return phases[args.phase](args)
    except Interrupted as error:
        if distributed.is_main():
            complain(PROGRAM, f"{error}; {GOES_ON}")
        return SIGNALLED + error.number
    except distributed.OtherFailed:
        return USAGE
    except (LayoutError, OptionError, WeightsError, ConfigError) as error:
        return refuse(PROGRAM, error, args.debug)
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        return refuse(PROGRAM, f"{reason}: use a smaller --batch_size, or --device cpu", args.debug)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # of the CPU, for which torch has no class
            raise MemoryError("use a smaller --batch_size") from error
        if not distributed.lost_another(error):
            raise
        return refuse(PROGRAM, f"another process of this run has ended; {GOES_ON}", args.debug)
    finally:
        distributed.leave()


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    # PyTorch's threads shall sleep while they wait, or they take the cores from the processes that
    # decode, and from whatever else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.getLogger("engine").setLevel(logging.INFO)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its lines itself

    def work() -> int:
        logging.basicConfig(level=logging.WARNING, handlers=[log_handler()])
        return run(p, args)

    # Training handles signals once it has begun, and saves its state.
    begun = args.output if args.phase == "test" else args.phase == "eval" or args.resume
    return answer(PROGRAM, work, debug=args.debug, goes_on=GOES_ON if begun else "")


if __name__ == "__main__":
    sys.exit(main())
