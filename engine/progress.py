"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

LINE_SECONDS = 30.0
log = logging.getLogger(__name__)


class Progress:
    """Counts pictures; shows rate and time left. Use as a context manager."""

    def __init__(self, total: int, what: str, initial: int = 0) -> None:
        self.what = what
        self.total = total
        self.count = initial
        self._initial = initial
        self._start = self._last = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=initial, desc=what, unit="pic", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def advance(self, pictures: int, **shown: str) -> None:
        """`pictures` more are done; `shown` values stand behind the bar."""
        self.count += pictures
        if self._bar is not None:
            if shown:
                self._bar.set_postfix(shown, refresh=False)
            self._bar.update(pictures)
        elif time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            rate = (self.count - self._initial) / (self._last - self._start)
            left = (self.total - self.count) / rate if rate else float("inf")
            notes = "".join(f", {key} {value}" for key, value in shown.items())
            log.info(
                "%s: %d/%d, %.1f pic/s, %.0f s left%s",
                self.what, self.count, self.total, rate, left, notes,
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
