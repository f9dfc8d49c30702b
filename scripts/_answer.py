"""What the scripts' command lines share: names in a flag, and how a script ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

USAGE, INTERRUPTED = 2, 130


def names(text: str) -> list[str]:
    """`engine._text.listed`, which --help does without."""
    from engine._text import listed

    return listed(text)


def answer(
    program: str,
    run: Callable[[], int],
    errors: tuple[type[Exception], ...] = (),
    goes_on: bool = False,
) -> int:
    """Runs a script's work, its log lines on standard error. Returns the exit status: that of
    `run`, 2 after one of `errors`, of which one line tells, 130 after Ctrl-C. `goes_on`: the same
    command goes on where it was interrupted."""
    # Not on the root logger: the hub's library shows its warnings itself.
    log, shown = logging.getLogger("engine"), logging.StreamHandler(sys.stderr)
    log.addHandler(shown)
    log.setLevel(logging.INFO)
    try:
        return run()
    except errors as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        more = "; the same command goes on" if goes_on else ""
        print(f"\n{program}: interrupted{more}", file=sys.stderr)
        return INTERRUPTED
    finally:
        log.removeHandler(shown)
