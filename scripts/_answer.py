"""What the scripts' command lines share: names in a flag, and how a script ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.runtime import program
from engine.runtime.program import USAGE, complain
from engine.runtime.text import listed as names

__all__ = ["USAGE", "answer", "complain", "names"]


@contextmanager
def _log_lines() -> Iterator[None]:
    """The project's log lines on standard error."""
    # Not on the root logger: the hub's library shows its warnings itself.
    log, shown = logging.getLogger("engine"), program.log_handler()
    log.addHandler(shown)
    log.setLevel(logging.INFO)
    if logging.lastResort:  # through which warnings of the data sets come
        logging.lastResort.setFormatter(program.OneLine())
    try:
        yield
    finally:
        log.removeHandler(shown)


def answer(
    name: str,
    run: Callable[[], int],
    errors: tuple[type[Exception], ...] = (),
    goes_on: bool = False,
) -> int:
    """Runs a script's work, its log lines on standard error. Returns the exit status, as
    `program.answer` has it. `goes_on`: the same command goes on where it was interrupted."""

    def work() -> int:
        with _log_lines():
            return run()

    return program.answer(name, work, errors, goes_on="the same command goes on" if goes_on else "")
