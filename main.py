"""Command line: train, evaluate and use detectors of AI-generated pictures.

Imports nothing heavy before the arguments are parsed, so that --help answers at once.
"""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets to this line, and no further
    sys.stderr.write(
        f"main.py: expected Python 3.11 or newer; found {sys.version.split()[0]}: bash "
        "scripts/setup.sh makes .venv, whose .venv/bin/python runs main.py\n"
    )
    sys.exit(2)

from engine.cli import app
from engine.cli.parser import parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    # PyTorch's threads shall sleep while they wait, or they take the cores from the processes that
    # decode, and from whatever else runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return app.run(p, args)


if __name__ == "__main__":
    sys.exit(main())
