"""From the flags of phase test to a request: detector, verdict rule, pictures."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from datasets._limits import UPRIGHT

from ..api import Scorer, scorer_of
from ..credentials.manifests import INSTALL, available, read_trust_list
from ..credentials.reading import credentials
from ..phases.test import TestRequest
from ..scoring import backends
from . import machine, settings
from .inputs import collect

log = logging.getLogger(__name__)


def without_torch(args: argparse.Namespace, resumed: Path | None) -> backends.Opened | None:
    """What flags ask for where a graph computes it; None where PyTorch must.

    Args:
        resumed: the folder of a run that goes on.
    """
    if args.torch or args.explain or args.gpu is not None:
        return None
    choice = settings.chosen(args)
    return backends.by_graph(choice, args.device, args.precision, args.threads, resumed)


def asked_scorer(args: argparse.Namespace, pictures: int) -> Scorer:
    """The scorer that flags of phase test ask for.

    Args:
        pictures: how many there are to score.
    """
    resumed = args.output if args.resume else None

    def by_torch() -> Scorer:
        on = machine.device(args, args.precision)
        return made(backends.by_torch(settings.chosen(args), on, args.threads, resumed))

    def made(opened: backends.Opened, anew: Callable[[], Scorer] | None = None) -> Scorer:
        decoding = settings.decoding(opened[2], UPRIGHT)
        workers = machine.workers(args, pictures, decoding)
        return scorer_of(opened, args.threshold, args.prevalence, workers, anew)

    opened = without_torch(args, resumed)
    return made(opened, by_torch) if opened else by_torch()


def testing(args: argparse.Namespace) -> TestRequest:
    """What phase test is asked to do; without --input it has no records, and asks for them;
    nor with --stream, which lists them later.

    Raises:
        ConfigError, LayoutError, WeightsError: what the flags name does not exist or fit.
    """
    trust = read_trust_list(args.trust_list) if args.trust_list else None
    if args.credentials and not available():
        log.warning("--credentials: content credentials (C2PA) are not checked: %s", INSTALL)
    if args.explain:
        machine.check_apart(args.output, [Path(name) for name in args.input])
    listed = args.input and not args.stream  # which lists when a part's turn comes
    records = collect(args.input, args.csv_root, args.split) if listed else []
    scorer = asked_scorer(args, machine.MANY if args.stream else len(records) or 1)
    scorer = scorer.stable() if args.stability else scorer
    if args.credentials:
        scorer = replace(scorer, inspect=partial(credentials, trust=trust))
    return TestRequest(
        records=records,
        scorer=scorer,
        inputs=args.input or (),
        csv_roots=args.csv_root,
        split=args.split,
        output=args.output,
        json=args.json,
        tag=args.tag or scorer.loaded.name,
        explain=args.explain,
        credentials=args.credentials,
        trust=trust,
        resume=args.resume,
        overwrite=args.overwrite,
    )
