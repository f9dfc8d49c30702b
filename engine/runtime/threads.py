"""The threads of a run: how many compute, and how many processes may decode beside them.

The last digits of a logit depend on the number of threads that sum it up. Each phase therefore sets
it once, before the weights are loaded, and a resumed run takes the number that it began with. torch
is imported by what sets its threads alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import joblib

from ..config import ConfigError
from . import distributed
from .distributed import World
from .run_folder import RUN

if TYPE_CHECKING:
    import torch


def usable() -> int:
    """Number of processors that this process may use, by its affinity and its container's CPU
    quota; a core that runs two threads counts twice."""
    return joblib.cpu_count()


def decoders() -> int:
    """Number of processes that may decode beside those that compute: as many as processors. Each
    starts only where pictures are waited for, so that beside a slow network one does it all, and
    a fast one is not kept waiting (measured: `scripts/bench workers`)."""
    return max(1, usable() // distributed.beside())


def cores() -> int:
    """Number of processor cores among the `usable`: arithmetic gains nothing from a second thread
    of one."""
    try:
        numbers = os.sched_getaffinity(0)
        siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        count = len({Path(siblings.format(number)).read_text() for number in numbers})
    except (AttributeError, OSError):  # elsewhere than on Linux
        return usable()
    return min(count, usable())


def default_threads(on_cpu: bool) -> int:
    """Number of threads without --threads: that of OMP_NUM_THREADS, else all cores.

    Several processes on one machine that compute on the CPU take as many each as one alone would,
    for their scores shall be the same; beside GPUs they share the cores.
    """
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of nested levels
    by_torchrun = named == "1" and "TORCHELASTIC_RUN_ID" in os.environ  # which nobody asked for
    if named.isdecimal() and int(named) and not by_torchrun:
        return int(named)
    return cores() if on_cpu else max(1, cores() // distributed.beside())


def _recorded(output: Path) -> int | None:
    """Number of threads that the run in a folder began with; None where no run says one."""
    try:
        count = json.loads((output / RUN).read_text(encoding="utf-8"))["threads"]
    except (OSError, ValueError, TypeError, KeyError):
        return None  # none yet, or damaged: who reads the whole of it says so
    return count if type(count) is int and count > 0 else None


def thread_count(asked: int | None, on_cpu: bool, resumed: Path | None = None) -> int:
    """Number of threads that a network is computed with.

    Args:
        asked: `--threads`; None leaves the choice to the run that is resumed, else to the machine.
        on_cpu: whether the network computes on the CPU.
        resumed: the folder of a run that goes on.

    Raises:
        ConfigError: the run that goes on began with another number than was asked for.
    """
    begun = _recorded(resumed) if resumed else None
    if asked and begun and asked != begun:
        raise ConfigError(
            f"--resume: the run in {resumed} had --threads {begun}; found --threads {asked}: "
            "leave it out, or use --overwrite or another --output"
        )
    return begun or asked or default_threads(on_cpu)


def set_threads(
    asked: int | None, device: torch.device, world: World, resumed: Path | None = None
) -> None:
    """Sets the number of threads that PyTorch computes with, in all processes alike.

    Args:
        asked, resumed: as `thread_count` has them.
        device: on which the network computes.
        world: its main process decides.

    Raises:
        ConfigError: see `thread_count`.
    """
    import torch

    threads = world.run_on_main(thread_count, asked, device.type == "cpu", resumed)
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
