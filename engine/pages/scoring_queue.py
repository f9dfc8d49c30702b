"""The one thread that scores what the server is sent, and the places of the queue before it.

The server takes a place before it reads a body, so that neither waiting requests nor their pictures
grow without bound. What scores is a `Judge`: `detector_judge` has that of a detector. Imports no
torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from datasets import Record


class QueueFull(Exception):
    """As many requests are being read, waiting or scored as the queue has places."""


@dataclass(frozen=True)
class Wishes:
    """What is asked for beside the score: a drawing of what it rests on, the scores under
    re-encodings, and what files say of their origin."""

    explain: bool = False
    stability: bool = False
    credentials: bool = False


@dataclass(frozen=True)
class About:
    """What the pages say of a detector. `rule`: threshold, band and prevalence, as --json has them;
    `explains`: whether a drawing can show what a score rests on."""

    name: str
    title: str
    weights: Path
    sha256: str
    rule: dict[str, Any] = field(default_factory=dict)
    explains: bool = False

    @property
    def band(self) -> tuple[float, float]:
        """The scores called uncertain, ends included; both the threshold where none are."""
        low, high = self.rule["band"] or (self.rule["threshold"], self.rule["threshold"])
        return low, high


class Judge(Protocol):
    """Scores pictures: one detector with its verdict rule."""

    @property
    def about(self) -> About:
        """What the pages say of it."""
        ...

    def __call__(self, records: Sequence[Record], wishes: Wishes) -> list[dict[str, Any]]:
        """The objects of --json on pictures, in their order."""
        ...


class ScoringQueue:
    """A judge behind `places` places. Used by one event loop; judging has its own thread."""

    def __init__(self, judge: Judge, places: int) -> None:
        self.judge, self.places = judge, places
        self.taken = 0
        self._thread = ThreadPoolExecutor(1, "scoring")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue. Raises QueueFull where there is none."""
        if self.taken >= self.places:
            raise QueueFull
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def score(self, records: Sequence[Record], wishes: Wishes) -> list[dict[str, Any]]:
        """What the judge says of some pictures, once it is their turn."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.judge, records, wishes)

    def close(self) -> None:
        """Ends the thread after what it does now; what waits is given up."""
        self._thread.shutdown(wait=True, cancel_futures=True)
