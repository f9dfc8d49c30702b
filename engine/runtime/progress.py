"""Progress on standard error: a bar on a terminal, a line in the log now and then elsewhere.

Scoring, training, downloads and scripts count through it. tqdm alone would fill a batch system's
log with thousands of bars, or say nothing. It never writes to standard output.
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 30.0
SCALES = {"pic": (1, "pic"), "B": (10**6, "MB")}
log = logging.getLogger(__name__)


class Progress:
    """A count of pictures, or bytes (`unit` B), with rate and time left, for use as a context
    manager. `initial`: how many were done before; `shown` is False in all processes of a run but
    one."""

    def __init__(
        self, total: int, what: str, initial: int = 0, unit: str = "pic", shown: bool = True
    ) -> None:
        self.what = what
        self.total = total
        self.count = initial
        self._initial = initial
        self._start = self._last = time.monotonic()
        self._bar = (
            tqdm(
                total=total, initial=initial, desc=what, unit=unit, unit_scale=unit == "B",
                dynamic_ncols=True,
            )
            if shown and sys.stderr.isatty()
            else None
        )  # fmt: skip
        self._scale, self._unit = SCALES[unit]

    def advance(self, count: int, **shown: str) -> None:
        """A step of the count by `count`; `shown` values stand behind the bar."""
        self.count += count
        if self._bar is not None:
            if shown:
                self._bar.set_postfix(shown, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            # Of this run alone: what was done before took no time in it.
            rate = (self.count - self._initial) / (self._last - self._start)
            left = (self.total - self.count) / rate if rate else float("inf")
            notes = "".join(f", {key} {value}" for key, value in shown.items())
            log.info(
                "%s: %d/%d, %.1f %s/s, %.0f s left%s",
                self.what, self.count // self._scale, self.total // self._scale,
                rate / self._scale, self._unit, left, notes,
            )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
