"""A call in a child process with limits on memory and time, for what strangers' files ask for.

The readers of weight files call it: whatever a file makes torch or onnxruntime do, the program that
scores pictures goes on with one line about it. It is no sandbox: what is called must not run code
from a file in the first place.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from datasets import _limits

from .text import reason

LARGEST_ANSWER = 1 << 20  # bytes of JSON: cards and keys of weights, never tensors
# By the clock, for each second of the processor that is allowed: other programs run, too.
PATIENCE = 4
# A fork starts in milliseconds, where a new interpreter would import torch again. Other systems'
# libraries do not survive one.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class ConfinedError(Exception):
    """The call failed, or went beyond a limit; the text says which, in one line."""


@dataclass(frozen=True)
class Limits:
    """`memory`: bytes beyond what the child has at its start; `seconds`: of the processor;
    `written`: bytes of the largest file that it may write."""

    memory: int
    seconds: int
    written: int = 0

    @property
    def memory_text(self) -> str:
        """Complaint about a child that met `memory`."""
        return f"it needs over {self.memory >> 20} MB of memory"

    @property
    def time_text(self) -> str:
        """Complaint about a child that met `seconds`."""
        return f"it takes over {self.seconds} s"


def _restrict(limits: Limits) -> None:
    """Limits the files that this process writes, and silences its libraries: what they print about
    a limit that they met is no line of ours."""
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this process
    if sys.platform == "win32":
        return
    import resource

    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, limits.written)):
        hard = resource.getrlimit(kind)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, hard))


def _child(
    channel: Connection, limits: Limits, call: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """The life of a child: it sends the result of the call, or its error, as JSON."""
    try:
        _restrict(limits)
        with _limits.Limits(memory=limits.memory / _limits.GIB, seconds=limits.seconds).held():
            answer = {"result": call(*arguments)}
    except MemoryError:
        answer = {"error": limits.memory_text}
    # Libraries raise almost any type on damaged files (IndexError, struct.error, ...).
    except Exception as error:
        answer = {"error": reason(error)}
    channel.send_bytes(json.dumps(answer).encode())


def _ending(exit_code: int | None, limits: Limits) -> str:
    """Reason why a child ended without an answer."""
    number = -(exit_code or 0)
    if number == _limits.TIME_IS_UP:
        return limits.time_text
    if number == signal.SIGABRT:  # how C++ ends when it cannot even raise an error
        return limits.memory_text
    return f"reading it ended by signal {number}" if number > 0 else "reading it gave no answer"


def confined(call: Callable[..., Any], *arguments: Any, limits: Limits) -> Any:
    """The result of a call, computed in a child process.

    Args:
        call, arguments: picklable; the result is a value that JSON knows, at most 1 MB of it.
        limits: of the child.

    Raises:
        ConfinedError: the call raised something, or the child went beyond a limit.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_child, args=(sender, limits, call, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        # By the clock: a child that sleeps or waits uses no seconds of the processor.
        if not receiver.poll(PATIENCE * limits.seconds):
            raise ConfinedError(limits.time_text)
        answer = json.loads(receiver.recv_bytes(LARGEST_ANSWER))
    except (EOFError, OSError, ValueError) as error:
        process.join(PATIENCE)
        raise ConfinedError(_ending(process.exitcode, limits)) from error
    finally:
        # Whatever the file did to the child, it holds nothing that a kill could spoil.
        process.kill()
        process.join()
        receiver.close()
    if "error" in answer:
        raise ConfinedError(answer["error"])
    return answer["result"]
