"""Rows of the benchmark's table, and how time and memory are measured for them.

The measures of `python scripts/bench` are made of these. Ways are timed in turn, so that what else
the machine does falls on all alike; no figure here is a time without something to compare it with.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch.utils.benchmark import Timer

ROOT = Path(__file__).resolve().parents[2]
# Rounds after the one that warms up; one where a round takes half a minute.
REPEATS, SLOW_REPEATS = 3, 1
POLL_SECONDS = 0.02
T = TypeVar("T")
Ways = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Figure:
    """A row of the table; `limit` is '' where the figure only informs."""

    what: str
    value: str
    limit: str = ""
    met: bool = True


def at_least(what: str, ratio: float, limit: float, details: str) -> Figure:
    """A ratio that is to be `limit` or more."""
    return Figure(what, f"{ratio:.2f} x ({details})", f">= {limit} x", ratio >= limit)


def at_most(what: str, ratio: float, limit: float, details: str) -> Figure:
    """A ratio that is to be `limit` or less."""
    return Figure(what, f"{ratio:.2f} x ({details})", f"<= {limit} x", ratio <= limit)


def seconds(ways: Ways, repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each way. All of them run in turn, after a round that warms them up, so
    that what else the machine does falls on all alike."""
    # The timer would set one thread; the ways take what the command line does.
    threads = torch.get_num_threads()
    timers = {k: Timer("way()", globals={"way": w}, num_threads=threads) for k, w in ways.items()}
    rounds = [{name: t.timeit(1).median for name, t in timers.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(times[name] for times in rounds[1:]) for name in ways}


def command(words: Sequence[object]) -> Callable[[], None]:
    """A command that runs in the repository's root. Calling it raises RuntimeError when it fails,
    but for pictures that could not be read."""

    def run() -> None:
        done = subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{words} exited with {done.returncode}: {done.stderr[-500:]}")

    return run


def peak_memory(words: Sequence[object]) -> float:
    """The most resident memory, in MB, of a command's main process, looked at again and again."""
    child = subprocess.Popen(
        [*map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        # A process that has just ended, and waits to be asked how, has no memory left.
        peak = max(peak, process.memory_info().rss)
        time.sleep(POLL_SECONDS)
    if child.returncode:
        raise RuntimeError(f"{words} exited with {child.returncode}")
    return peak / 2**20


def all_of(way: Callable[[T], object], values: Sequence[T]) -> list[object]:
    """What a way makes of each value."""
    return [way(value) for value in values]
