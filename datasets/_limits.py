"""How one picture is decoded: by which of two ways, and what it may take of a process.

Decoders are C code that no exception and no Python signal handler interrupts, so a picture that
goes beyond a limit ends the process that decodes it: engine/runtime/workers.py has processes for
that. Standard library only.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

# `upright`: turned as EXIF says, 16 bit scaled to 8. `published`: as the published programs do it,
# by Pillow's convert("RGB") alone, which leaves pictures as they lie, and clips 16 bit at 255.
Decoding = Literal["upright", "published"]
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)
UPRIGHT, PUBLISHED = DECODINGS
GIB = 1 << 30
TIME_IS_UP = getattr(signal, "SIGPROF", None)  # Windows has none, nor the timer that sends it
STATM, STATM_BYTES = "/proc/self/statm", 200


@dataclass(frozen=True)
class Limits:
    """`megapixels` by the picture's header, tested before it is decoded; `memory` in GiB, beyond
    what its process has when it begins; `seconds` of processor time."""

    megapixels: float = 100.0
    memory: float = 4.0
    seconds: float = 60.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds this process to memory and time inside the block, which is one picture.

        Too much memory is a MemoryError, or the end of the process where C code does not expect
        that; too much time is its end by SIGPROF. Processor time, because a picture is not to blame
        for a slow disk, a busy machine or a run that was suspended. Memory on Linux alone: macOS
        does not heed the limit.
        """
        with _memory(int(self.memory * GIB)), _timer(self.seconds):
            yield


@contextmanager
def _memory(size: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    # Address space is all that Linux limits. What is mapped already, as a large LMDB or the
    # memory of a GPU, does not count against the picture.
    with open(STATM, "rb", 0) as stream:  # noqa: PTH123 - per picture, and five times as fast
        there = int(stream.read(STATM_BYTES).split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    lowest = min(limit for limit in (there + size, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _timer(seconds: float) -> Iterator[None]:
    if TIME_IS_UP is None:
        yield
        return
    # The signal's default action is the kernel's, and ends the process inside of C code, too.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
