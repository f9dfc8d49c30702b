"""Sets detectors side by side on the same pictures: a page, a CSV and Markdown.

    python scripts/leaderboard.py runs/a runs/b --output runs/board
    python scripts/leaderboard.py runs/a theirs=scores.csv --benchmark spai --output runs/board

An entry is a folder of phase eval, or a CSV of somebody else's scores: a column digest (of
scores.csv) or key, path or image, and one of logit or score, the probability of synthetic. NAME=
before either names it. Pictures and labels are those of the folders. index.html needs no server, no
other file and no network; `scripts/serve.py --runs` serves the same page.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import benchmarks  # noqa: E402
from scripts._shared import answer, new_parser, say  # noqa: E402

if TYPE_CHECKING:
    from engine.pages.leaderboard import Board

PROGRAM = "leaderboard.py"


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__, "0 done; 2 wrong usage or data", whole=True)
    p.add_argument("entries", nargs="+", metavar="[NAME=]RUN",
                   help="folders of phase eval, and CSV files of scores")  # fmt: skip
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the files go")
    p.add_argument(
        "--benchmark",
        nargs="+",
        default=[],
        choices=benchmarks(),
        metavar="NAME",
        help="benchmarks whose published figures are listed below, as reported",
    )
    p.add_argument(
        "--kinds",
        type=Path,
        metavar="CSV",
        help="what real pictures show: a CSV with the columns image and kind",
    )
    p.add_argument("--resamples", type=number(int, 10, 100_000), default=1000,
                   help="of the intervals and tests (1000)")  # fmt: skip
    return p


def named(text: str) -> tuple[str, Path]:
    """The name of an entry, '' where it has none, and its folder or file."""
    name, separator, path = text.partition("=")
    if separator and not Path(text).exists():
        return name.strip(), Path(path)
    return "", Path(text)


def kinds_of(path: Path | None) -> dict[str, str]:
    """The kind of each picture by its name. Raises ConfigError for a CSV without the columns."""
    from datasets._csv import found_columns, read_csv
    from engine.config import ConfigError

    if path is None:
        return {}
    columns, rows = read_csv(path)
    if not {"image", "kind"} <= set(columns):
        raise ConfigError(
            f"--kinds {path}: expected the columns image and kind; found {found_columns(columns)}"
        )
    return {row["image"]: row["kind"] for row in rows}


def board_of(texts: list[str], kinds: Path | None = None, resamples: int = 1000) -> Board:
    """The board of entries as the command line names them.

    Raises:
        ConfigError, LayoutError: no evaluation among them, or one that is none.
    """
    from engine.config import ConfigError
    from engine.evaluation.comparison import names, read_run
    from engine.pages.leaderboard import entry_of_run, measure, pictures_of, read_scores
    from engine.runtime.text import distinct

    pairs = [named(text) for text in texts]
    folders = [path for _, path in pairs if not path.is_file()]
    if not folders:
        raise ConfigError("expected at least one folder of phase eval, which has the labels")
    runs = {path: read_run(path) for path in folders}
    short = dict(zip(folders, names(folders), strict=True))
    titles = distinct(name or short.get(path, path.stem) for name, path in pairs)
    pictures = pictures_of(list(runs.values()))
    asked = runs[folders[0]].info.get("degradations")
    base = str(asked[0]) if isinstance(asked, list) and asked else "none"
    entries = [
        entry_of_run(runs[path], title)
        if path in runs
        else read_scores(path, title, pictures, base)
        for title, (_, path) in zip(titles, pairs, strict=True)
    ]
    return measure(entries, pictures, base, kinds_of(kinds), resamples)


def run(args: argparse.Namespace) -> int:
    """The exit status. Measures, and writes the files."""
    from engine.evaluation.benchmark import load
    from engine.pages.board_page import PAGE, notes_of, write

    board = board_of(args.entries, args.kinds, args.resamples)
    for standing in board.standings:
        for note in notes_of(standing, board):
            say(PROGRAM, f"{standing.entry.name}: {note}")
    write(args.output, board, [load(name) for name in args.benchmark])
    print(args.output / PAGE)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parser().parse_args(arguments)
    from datasets import LayoutError
    from engine.config import ConfigError

    return answer(PROGRAM, lambda: run(args), (LayoutError, ConfigError))


if __name__ == "__main__":
    sys.exit(main())
