"""The processes that share one evaluation or training, started by torchrun.

Phases, scoring and training speak to each other's processes through a World alone. Every process
must make the same calls in the same order: what only the main one does goes through `run_on_main`,
which also tells the others of its failure, so that none waits for a process that has ended. torch
is imported where there are several: phase test asks, too, and may run without it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import ConfigError

if TYPE_CHECKING:
    import torch

# A process may wait for another that scores very large pictures on a CPU; when one dies, torchrun
# ends the others at once.
PATIENCE = timedelta(hours=24)
T = TypeVar("T")


class OtherFailed(RuntimeError):
    """Another process ended with an error, and says so itself."""


def lost_another(error: RuntimeError) -> bool:
    """Whether an error says that another process of this run has gone."""
    if launched() == 1:
        return False
    from torch import distributed

    # gloo raises plain RuntimeErrors, which only their text tells apart.
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def launched() -> int:
    """Number of processes that torchrun started, this one included; 1 without torchrun.

    Raises:
        ConfigError: RANK or WORLD_SIZE are no numbers that fit.
    """
    if "RANK" not in os.environ:
        return 1
    rank, size = os.environ["RANK"], os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ConfigError(
            f"expected RANK below WORLD_SIZE in the environment, as set by torchrun; found "
            f"{rank!r} and {size!r}: unset them, or start by torchrun"
        )
    return int(size)


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return launched() == 1 or os.environ["RANK"] == "0"


def beside() -> int:
    """Number of processes of this run that share the machine, this one included."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if launched() > 1 else 1


def local_rank() -> int:
    """The number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@dataclass(frozen=True)
class World:
    """The processes of a run: this one is number `rank` of `size`. Number 0 is the main one."""

    rank: int = 0
    size: int = 1
    parent: int = field(default_factory=os.getppid)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def run_on_main(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a call in the main process, in all of them.

        Args:
            function, arguments: called in the main process alone; the result is pickled.

        Raises:
            OtherFailed: the call failed; in the main process the call's own error.
        """
        if self.size == 1:
            return function(*arguments)
        from torch import distributed

        message: list[Any] = [None, False]
        try:
            if self.main:
                message = [function(*arguments), True]
        finally:
            # Also after an error, or the others would wait for a result that never comes.
            distributed.broadcast_object_list(message, src=0)
        if not message[1]:
            raise OtherFailed("the main process failed")
        return message[0]

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank, in the main one; an empty list in the others.

        Raises:
            OtherFailed: what started the processes was killed, and could not end them.
        """
        if self.size == 1:
            return [value]
        # Here, for every batch passes through here: nothing else ends processes without a parent.
        if os.getppid() != self.parent:
            raise OtherFailed("torchrun has ended")
        from torch import distributed

        values: list[Any] | None = [None] * self.size if self.main else None
        distributed.gather_object(value, values, dst=0)
        return values or []

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of the values over all processes, in all of them."""
        if self.size == 1:
            return list(values)
        import torch
        from torch import distributed

        # float64 holds counts of pictures exactly.
        summed = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(summed)
        return summed.tolist()

    def from_main(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copies the main process's tensors over those of all others."""
        if self.size == 1:
            return
        from torch import distributed

        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


ALONE = World()


def join(device: torch.device) -> World:
    """Enters the world that torchrun started: over gloo on the CPU, nccl between CUDA devices.

    Raises:
        ConfigError: the environment does not say where they meet.
    """
    if launched() == 1:
        return ALONE
    import torch
    from torch import distributed

    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set, as by torchrun; expected {' and '.join(missing)} too: "
            "start by torchrun, or unset them"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        # Objects and sums go over gloo even beside GPUs; nccl carries gradients and buffers.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
    return World(distributed.get_rank(), distributed.get_world_size())


def leave() -> None:
    """Leaves the world that `join` entered; nothing where there are no other processes."""
    if "torch" not in sys.modules:
        return
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
