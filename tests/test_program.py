"""How the programs end: exit statuses, one line for every error, and clean streams."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from engine.cli.parser import parser
from engine.runtime import program

HOSTILE = "a\x1b[2J\x1b]0;title\x07\u202egpj.exe\r\x9b31m"


def run(work: Callable[[], int], debug: bool = False) -> int:
    return program.answer("tool", work, (ValueError,), debug, "--resume goes on")


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("expected a;\nfound b"), 2, "tool: expected a; found b"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "make room; then --resume goes on"),
        (MemoryError(), 2, "out of memory"),
        (KeyError("degradation"), 70, "internal error at tests/test_program.py:"),
        (RecursionError("maximum recursion depth exceeded"), 70, "RecursionError"),
        (BrokenPipeError(), 130, ""),
    ],
)
def test_every_error_is_one_line_and_a_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    assert run(raising(error)) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == bool(said)


def test_ctrl_c_says_what_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\ntool: interrupted; --resume goes on\n"


def test_an_internal_error_shows_its_traceback_when_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(raising(KeyError("x")), debug=True) == 70
    assert "Traceback" in capsys.readouterr().err


def test_nothing_that_a_terminal_obeys_gets_through(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        sys.stdout.write(HOSTILE + "\n")
        log = logging.getLogger("hostile")
        handler = program.log_handler()
        log.addHandler(handler)
        log.warning("first\n%s", HOSTILE)
        log.removeHandler(handler)
        raise ValueError(HOSTILE)

    assert run(work) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert len(err.splitlines()) == 2
    assert (out + err).replace("\n", "").isprintable()


def test_a_hostile_word_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--device\n", HOSTILE])
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err[:-1].isprintable()


@pytest.mark.parametrize(
    ("words", "said"),
    [("--input - <&-", "found none"), ("--input - >&-", "standard output"), ("no.png 2>&-", "")],
)
def test_closed_streams(tmp_path: Path, words: str, said: str) -> None:
    """Closed standard input has no paths, closed standard output takes no results, and where
    standard error is closed only the exit status tells."""
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' {ROOT / 'main.py'} {words}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)
    assert not list(tmp_path.iterdir())


def test_a_full_device_is_one_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    code = "import sys; from engine.runtime.program import answer; "
    code += "sys.exit(answer('x', lambda: print(1)))"
    with full.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=stream, stderr=subprocess.PIPE, text=True,
            cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "make room" in line
