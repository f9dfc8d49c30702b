"""Requests to stop a training, heeded when nothing is lost.

The training loop collects signals here and looks at them between steps. A handler must do next to
nothing: it runs in the middle of whatever the program does.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)
SAME_REQUEST_SECONDS = 2.0


class Interrupted(Exception):
    """The end of a training that was asked to stop, by the signal `number`, and has saved its
    state."""

    def __init__(self, number: int, output: Path) -> None:
        super().__init__(f"stopped by signal {number} after saving {output}")
        self.number = number


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """The list of SIGINT and SIGTERM that came in the context, to be heeded when nothing is lost. A
    second one kills, unless it follows at once: torchrun passes on what a batch system sends to all
    processes anyway."""
    received: list[int] = []
    previous: dict[int, Any] = {}
    first = math.inf

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if not received:
            first = now
            log.warning("stopping as soon as the state is saved; once more stops at once")
        received.append(number)
        # The signal's own way of ending the program, as if nobody had listened.
        if now - first >= SAME_REQUEST_SECONDS:
            signal.signal(number, previous[number])
            signal.raise_signal(number)

    # SIGTERM is what batch systems send when the time of a job ends.
    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
