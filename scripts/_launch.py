"""torchrun for the recipes' scripts: processes on this machine, whose status is that of the script.

    python scripts/_launch.py N main.py FLAGS

Ends with the status of the process that failed first, or 128 + the number of the signal that came,
without torchrun's report, which would hide the one line in which the process said what was wrong.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

SIGNALLED = 128
# What the processes have to end a step and save, or to end a validation, before they are killed.
PATIENCE_SECONDS = 600


def main(arguments: list[str]) -> int:
    """Command line: see above. Returns the exit status."""
    count, *command = arguments
    logging.disable()
    where = ["--standalone", "--nproc-per-node", count]
    try:
        torchrun([*where, "--shutdown-timeout", str(PATIENCE_SECONDS), *command])
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else SIGNALLED - status
    except SignalException as error:
        return SIGNALLED + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
