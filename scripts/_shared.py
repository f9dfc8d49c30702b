"""What the command lines of scripts/ share: parser, log lines, exit status, lines about names.

Every script builds its flags on `new_parser` and runs its work by `answer`, so that all of them are
asked, complain and end alike. It knows nothing of what a script does, and imports no torch.
"""

from __future__ import annotations

import argparse
import logging
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets._paths import visible
from engine.cli.argument_parser import Parser
from engine.runtime import program

SHOWN = 8  # names of a longer list
SAME_COMMAND = "the same command goes on"  # for `answer`


def new_parser(
    name: str, doc: str | None, status: str = "", whole: bool = False, **more: Any
) -> Parser:
    """The parser of a script's command line, without flags.

    Args:
        name: the script's file name, with which its complaints begin.
        doc: its module docstring, whose first line `--help` shows.
        status: what the exit statuses mean, shown below the flags.
        whole: `--help` shows all of `doc`, line by line.
        more: passed on to `Parser`.
    """
    ending = status and f"Exit status: {status}; 130 interrupted."
    return Parser(
        prog=name,
        description=doc if whole else (doc or "").split("\n")[0],
        epilog=textwrap.fill(ending) if whole else ending,
        formatter_class=argparse.RawDescriptionHelpFormatter if whole else argparse.HelpFormatter,
        allow_abbrev=False,
        **more,
    )


def add_again(p: Parser) -> None:
    """Adds what a script does with an output that holds an earlier run: --resume, --overwrite."""
    again = p.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run")


def take_network(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The weight file that `degrade.superres=FILE` among the words of --set names, the last one of
    several; and the other words."""
    from engine.scoring.superres import OPTION

    own = [word for word in words if word.startswith(f"{OPTION}=")]
    file = Path(own[-1].partition("=")[2]) if own else None
    return file, [word for word in words if word not in own]


def parse_as_main(p: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of a script that has flags of main.py, with the defaults of the others. Ends
    the program where they break a rule of main.py."""
    from engine.cli import parser, rules

    args = p.parse_args(arguments, parser.parser().parse_args([]))
    if fault := rules.broken(args, rules.detector_named(args)):
        p.error(fault)
    return args


@contextmanager
def _log_lines() -> Iterator[None]:
    """The project's log lines on standard error."""
    # Not on the root logger: the hub's library shows its warnings itself.
    log, shown = logging.getLogger("engine"), program.log_handler()
    log.addHandler(shown)
    log.setLevel(logging.INFO)
    if logging.lastResort:  # through which warnings of the data sets come
        logging.lastResort.setFormatter(program.OneLine())
    try:
        yield
    finally:
        log.removeHandler(shown)


def answer(
    name: str,
    run: Callable[[], int],
    errors: tuple[type[Exception], ...] = (),
    goes_on: str = "",
) -> int:
    """The exit status of a script's work, see `program.answer`; its log lines go to standard error.

    Args:
        name: the script's file name, with which its complaints begin.
        run: the work; gives the exit status.
        errors: of use, weights or data, beside OSError, of which one line tells.
        goes_on: what goes on where it was interrupted, such as SAME_COMMAND.
    """

    def work() -> int:
        with _log_lines():
            return run()

    return program.answer(name, work, errors, goes_on=goes_on)


def some(names: Iterable[str]) -> str:
    """The first `SHOWN` names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def say(name: str, line: str) -> None:
    """Writes a line to standard error: progress and counts, which are no results."""
    program.complain(name, line)


def tell_left_out(name: str, reasons: Mapping[str, str], what: str = "left out") -> None:
    """A line on standard error on the pictures without a result, by the reason of each; none where
    there are no such pictures."""
    if reasons:
        names = some(f"{visible(key)} ({reason})" for key, reason in reasons.items())
        say(name, f"{len(reasons):,} pictures {what}: {names}")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV as all tables of the project are written; `path` is a temporary name."""
    from engine.runtime.table_writer import TableWriter

    with TableWriter(path, columns, [], False) as table:
        table.append(rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV, whole or not at all. Raises OSError, which names it."""
    from engine.runtime.files import naming, replacing

    with naming(path), replacing(path) as temporary:
        write_rows(temporary, columns, rows)
