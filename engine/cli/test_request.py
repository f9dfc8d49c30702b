"""From the flags of phase test to a request: detector, verdict rule, pictures."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import detectors
from datasets._limits import UPRIGHT

from ..config import Config, ConfigError
from ..credentials.manifests import INSTALL, available, read_trust_list
from ..phases.test import TestRequest
from ..runtime import distributed, threads
from ..scoring import own_threshold
from ..scoring.answer import recodings
from ..scoring.backend import Backend
from ..scoring.verdict_rule import rule_of
from ..weights.loaded import Loaded
from . import graph, machine, settings
from .inputs import collect

log = logging.getLogger(__name__)
Opened = tuple[Backend, Loaded, Config]


def _by_torch(args: argparse.Namespace, resumed: Path | None) -> Opened:
    """The detector with its weights, computed by PyTorch, and the configuration it has. Raises
    ConfigError for one that takes others' scores, which say nothing of new pictures."""
    from ..scoring.torch_backend import TorchBackend
    from . import detector

    device = machine.device(args, args.precision)
    threads.set_threads(args.threads, device.device, distributed.ALONE, resumed)
    loaded, config = detector.load(args, device)
    if detectors.load(loaded.name).score_files(config.options):
        raise ConfigError(
            f"{loaded.name}.scores: expected --phase eval or train, whose pictures such files "
            "list; found test"
        )
    return TorchBackend(loaded.model, device), loaded, config


def testing(args: argparse.Namespace) -> TestRequest:
    """What phase test is asked to do; without --input it has no records, and asks for them.

    Raises:
        ConfigError, LayoutError, WeightsError: what the flags name does not exist or fit.
    """
    trust = read_trust_list(args.trust_list) if args.trust_list else None
    if args.credentials and not available():
        log.warning("--credentials: content credentials (C2PA) are not checked: %s", INSTALL)
    resumed = args.output if args.resume else None
    backend, loaded, config = graph.opened(args, resumed) or _by_torch(args, resumed)
    own_threshold.check_serves(args.threshold, loaded, config)
    rule = rule_of(loaded, args.threshold, args.prevalence)
    if args.stability:
        rule = replace(rule, views=recodings())
    if args.explain:
        machine.check_apart(args.output, [Path(name) for name in args.input])
    records = collect(args.input, args.csv_root, args.split) if args.input else []
    decoding = settings.decoding(config, UPRIGHT)
    return TestRequest(
        records=records,
        loaded=loaded,
        rule=rule,
        backend=backend,
        config=config,
        workers=machine.workers(args, len(records) or 1, decoding),
        inputs=args.input or (),
        csv_roots=args.csv_root,
        split=args.split,
        output=args.output,
        json=args.json,
        tag=args.tag or loaded.name,
        explain=args.explain,
        credentials=args.credentials,
        trust=trust,
        resume=args.resume,
        overwrite=args.overwrite,
    )
