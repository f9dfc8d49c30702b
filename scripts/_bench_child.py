"""Runs a command and prints its wall time in seconds, its peak resident memory in bytes and its
exit status, each on a line of standard output; the command's own is thrown away.

A process of its own: on Linux a child's peak begins with what its parent held when it started it,
and this one holds nothing.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time


def main() -> None:
    """Command line: the command and its arguments."""
    start = time.monotonic()
    child = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=False)
    seconds = time.monotonic() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    print(seconds, peak, child.returncode, sep="\n")


if __name__ == "__main__":
    main()
