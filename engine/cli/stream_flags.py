"""The flags of phase test --stream, which scripts/score_ray.py has, too.

Imports nothing heavy: --help waits for it.
"""

from __future__ import annotations

import argparse
from typing import Any

from .argument_parser import Parser
from .arguments import listed, number

PICTURES = 10_000  # of a part


def share(text: str) -> tuple[int, int]:
    """For argparse: `2/8` -> the second of eight, from 0: (1, 8)."""
    own, slash, machines = text.partition("/")
    if slash and own.isdecimal() and machines.isdecimal() and 1 <= int(own) <= int(machines):
        return int(own) - 1, int(machines)
    raise argparse.ArgumentTypeError(f"expected a share as 1/8, 2/8 and so on; found {text!r}")


def add_stream(p: Parser) -> None:
    """Adds the flags in a group of their own."""
    group: Any = p.add_argument_group("millions of pictures")
    p.flag(
        group,
        "--stream",
        "test",
        choices=("csv", "parquet"),
        help="phase test: list, score and write pictures part by part, into files of this form in "
        "DIR/parts, in memory that does not grow with their number; --input also takes addresses "
        "(s3://, gs://, az://, hf://, https://), and --resume skips the parts that are there",
    )
    p.flag(
        group,
        "--shard_size",
        "test",
        type=number(int, 1),
        default=PICTURES,
        metavar="N",
        help="with --stream: pictures of a part at most, rounded up to whole batches (%(default)s)",
    )
    p.flag(
        group,
        "--share",
        "test",
        type=share,
        default=(0, 1),
        metavar="I/N",
        help="with --stream: the I-th of N machines' shares of the parts, from 1/N to N/N, each "
        "with an --output of its own (1/1)",
    )
    p.flag(
        group,
        "--protocols",
        "test",
        type=listed,
        default=[],
        metavar="A,B",
        help="with --stream: protocols, as https,s3, of the addresses that CSV files and standard "
        "input may name (none); https reaches hosts of the public internet alone",
    )
