"""The device that computes and its precision, opened once for a run.

The command line opens it, and scoring and training compute under its `autocast`. It never falls
back to another device than was asked for: scores of two devices differ in their last digits.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from ..config import ConfigError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Device and precision that a model runs in; `precision`: one of PRECISIONS."""

    device: torch.device
    precision: str = "fp32"

    def autocast(self) -> AbstractContextManager:
        """Mixed precision as asked for; nothing in fp32."""
        kind = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=kind) if kind else nullcontext()


def open_device(name: str | None, precision: str) -> Device:
    """The device of --device: `cpu`, `cuda`, `cuda:N`, `mps`, or None for the first of CUDA and CPU
    that is there.

    Raises:
        ConfigError: this machine has no such device, or it has not that precision.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device: expected cpu, cuda, cuda:N or mps; found {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: this machine has none; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"--device: expected cpu, cuda, cuda:N or mps; found {name!r}")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16: expected a GPU; use bf16 or fp32 on the CPU")
    return Device(device, precision)


def reuse_memory() -> None:
    """Lets the C library keep the memory of freed tensors for the next ones, in this process.

    By default glibc gives large blocks back to the system at once and gets them anew, page by page,
    which takes longer than computing what is written there. Other systems' libraries are left as
    they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def training_device(device: torch.device, precision: str | None) -> Device:
    """The device of a training, in `precision`, or None = mixed precision on CUDA alone: bf16 where
    the card has it, else fp16. Raises ConfigError for fp16 on a CPU."""
    if precision is None:
        if device.type != "cuda":
            precision = "fp32"
        else:
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision fp16: expected a GPU; use bf16 or fp32 on the CPU")
    return Device(device, precision)


# Names in malloc.h, and how many freed bytes at the end of the heap the process keeps.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 1 << 30
