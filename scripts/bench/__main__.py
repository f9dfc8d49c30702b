"""Measures what the command line and the detectors cost, as ratios within one run.

    python scripts/bench                   all measures
    python scripts/bench help bootstrap    these
    python scripts/bench backends:npr      one of its detectors

README.md beside this file has what they gave, and what each measures. Prints a Markdown table as
it goes; nothing is downloaded.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as main.py does, for all ways alike

from engine.config import ConfigError  # noqa: E402
from scripts._shared import answer, new_parser  # noqa: E402

PROGRAM = "bench"
NOT_MET = 1


def measure(names: Sequence[str]) -> int:
    """The exit status: 1 when a limit is not met. Prints the table."""
    import torch

    # The timer can time C++, too, and warns where there is no compiler for CUDA.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from scripts.bench.measures import MEASURES, chosen

    measures = [chosen(name) for name in names or MEASURES]
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| what | measured | limit |\n|---|---|---|")
    met = True
    for one in measures:
        with tempfile.TemporaryDirectory() as folder:
            for figure in one(Path(folder)):
                met = met and figure.met
                mark = "" if figure.met else " NOT MET"
                print(f"| {figure.what} | {figure.value} | {figure.limit}{mark} |", flush=True)
    return 0 if met else NOT_MET


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command line."""
    p = new_parser(PROGRAM, __doc__, "0 every limit met; 1 one was not; 2 wrong usage")
    p.add_argument("measures", nargs="*", metavar="NAME", help="measures to run (all of them)")
    names = p.parse_args(arguments).measures
    return answer(PROGRAM, lambda: measure(names), (ConfigError,))


if __name__ == "__main__":
    sys.exit(main())
