"""From the flags of phase test --stream to a request: a detector and rule, and where to list from.

scripts/score_ray.py builds its requests here, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from ..config import ConfigError
from ..credentials import reading
from ..fetching.remote import check_protocol
from ..fetching.sources import STDIN, Source, sources
from ..phases.stream import StreamRequest
from ..scoring.answer import COLUMNS, SCORE, STABILITY
from .inputs import listed
from .test_request import testing


def listing(args: argparse.Namespace) -> Iterator[Source]:
    """The sources that flags name, which are listed when their turn comes.

    Raises:
        ConfigError, LayoutError: see `sources`.
    """
    for protocol in args.protocols:
        check_protocol(protocol, "--protocols")
    for root in args.csv_root:
        if not root.is_dir():
            raise ConfigError(f"--csv_root {root}: expected a folder with --stream; found none")
    others = {name.casefold() for name in (*COLUMNS, *STABILITY, *reading.COLUMNS)} - {SCORE}
    if args.tag and args.tag.casefold() in others:
        raise ConfigError(f"--tag: expected a name of no other column; found {args.tag}")
    names = listed(sys.stdin) if STDIN in args.input else ()
    return sources(args.input, args.csv_root, args.protocols, names, args.split)


def streaming(args: argparse.Namespace) -> StreamRequest:
    """What phase test --stream is asked to do.

    Raises:
        ConfigError, LayoutError, WeightsError: what the flags name does not exist or fit.
    """
    found = listing(args)  # first, for a slip in a name is quicker told than weights are loaded
    score = args.tag or SCORE
    return StreamRequest(testing(args), found, args.stream, args.shard_size, args.share, score)
