"""How each program here begins and ends: clean streams, one line for an error, an exit status.

`main.py` and the scripts run their work by `answer`. Nothing reaches a terminal but through its
streams, so that a name of a file or a key of weights can neither move the cursor nor hide text.
Must stay quick to import: --help waits for it.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from datasets._paths import visible

from .text import one_line

USAGE, INTERNAL, SIGNALLED = 2, 70, 128  # 70 is EX_SOFTWARE of sysexits.h
INTERRUPTED = SIGNALLED + signal.SIGINT
FILE_ONLY = {"file_only": True}  # `extra` of log lines that only a log file is to have
ROOT = Path(__file__).resolve().parents[2]


class CleanStream:
    """A text stream whose control characters are written as backslash escapes, but for those that
    are `allowed`."""

    def __init__(self, stream: TextIO, allowed: str) -> None:
        self._stream, self._allowed = stream, allowed

    def write(self, text: str) -> int:
        """Writes a text. Returns the number of its characters, as streams do."""
        self._stream.write(visible(text, self._allowed))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class OneLine(logging.Formatter):
    """A formatter of log records as one line each, without control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message of a record on one line; a traceback stays as it is."""
        return one_line(super().formatMessage(record))


def log_handler() -> logging.Handler:
    """A handler that writes log lines, but for those of FILE_ONLY, to standard error as it is at
    this moment."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: not record.__dict__.keys() & FILE_ONLY.keys())
    handler.setFormatter(OneLine())
    return handler


def _fill_closed() -> None:
    """Opens each standard stream that the caller closed (`>&-`): the next file that is opened would
    take its number, and what is meant for a terminal would be written into that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the whole process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


@contextmanager
def clean_streams() -> Iterator[None]:
    """Standard output and error without control characters; a progress bar's carriage return may
    pass to standard error. Letters that a stream lacks become escapes, undecodable bytes of
    standard input come back as the bytes that they are."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    out: Any = CleanStream(sys.stdout, "\n\t")
    err: Any = CleanStream(sys.stderr, "\n\t\r")
    with redirect_stdout(out), redirect_stderr(err):
        yield


def complain(program: str, error: object) -> None:
    """One line on standard error; of several processes each but the first says which it is."""
    who = f"process {rank}: " if (rank := os.environ.get("RANK", "0")) != "0" else ""
    # In one piece: other processes write to the same place.
    sys.stderr.write(f"{program}: {who}{one_line(str(error))}\n")


def refuse(program: str, error: object, debug: bool = False, goes_on: str = "") -> int:
    """The exit status after a line about what was wrong with the use, the weights or the data.

    Args:
        program: its name, with which the line begins.
        error: an exception or a text.
        debug: whether the traceback is shown too.
        goes_on: what to do when there is room again, for a full disk.
    """
    if debug:
        traceback.print_exc()
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    room = f": make room{goes_on and f'; then {goes_on}'}" if full else ""
    complain(program, f"{error}{room}")
    return USAGE


def _line_of(error: BaseException) -> str:
    """The line of this project that an error comes from: `engine/scoring/table.py:71`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "an unknown line"


def _not_installed(error: ModuleNotFoundError) -> str:
    """A complaint about a package that this Python lacks; '' for a module of this project."""
    package = str(error.name).partition(".")[0]
    if any((ROOT / name).exists() for name in (package, f"{package}.py")):
        return ""
    python = ROOT / ".venv" / "bin" / "python"
    way = (
        "bash scripts/setup.sh installs what it takes into .venv, whose .venv/bin/python runs this"
    )
    if python.exists() and Path(sys.prefix) != ROOT / ".venv":
        way = f"use {python}, or bash scripts/setup.sh if that lacks it too"
    return f"expected the package {package}; {sys.executable} has none: {way}"


def _drop_output() -> None:
    """Drops results that standard output could not take: the interpreter would try again as it
    ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ended(
    program: str, error: BaseException, expected: tuple[type[Exception], ...], debug: bool, on: str
) -> int:
    """The exit status of work that ended by an error, after a line that says why; arguments as of
    `answer`."""
    if isinstance(error, BrokenPipeError):
        return INTERRUPTED  # the reader of our results went away, as `| head` does
    if isinstance(error, KeyboardInterrupt):
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"\n{program}: interrupted{on and f'; {on}'}\n")
        return INTERRUPTED
    if isinstance(error, (OSError, *expected)):
        return refuse(program, error, debug, on)
    if isinstance(error, ModuleNotFoundError) and (missing := _not_installed(error)):
        return refuse(program, missing, debug)
    if isinstance(error, MemoryError):
        return refuse(program, f"out of memory: {error or 'an allocation was refused'}", debug)
    if debug:
        traceback.print_exc()
    text = f"{type(error).__name__}: {error}"[:500]
    hint = "" if debug else " (--debug shows the traceback)" if program == "main.py" else ""
    complain(program, f"internal error at {_line_of(error)}: {text}{hint}: please report it")
    return INTERNAL


def answer(
    program: str,
    work: Callable[[], int],
    errors: tuple[type[Exception], ...] = (),
    debug: bool = False,
    goes_on: str = "",
) -> int:
    """Runs the work of a program between clean streams, and turns its errors into one line.

    Args:
        program: its name, with which its complaints begin.
        work: returns the exit status.
        errors: of use, weights or data, beside OSError, of which one line tells.
        debug: whether errors also show their traceback.
        goes_on: what continues an interrupted run, such as `--resume goes on`.

    Returns:
        The status of `work`; 2 after an error of use, 70 after one that is this project's own
        fault, 130 after Ctrl-C, or when the reader of the results went away.
    """
    _fill_closed()
    # Results have nowhere to go, and would be computed for nobody.
    if sys.stdout is None:
        complain(program, "expected standard output to be open; found it closed: use > /dev/null")
        return USAGE
    with clean_streams():
        try:
            status = work()
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            status = _ended(program, error, errors, debug, goes_on)
            _drop_output()
        return status
