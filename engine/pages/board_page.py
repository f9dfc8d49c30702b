"""The leaderboard as files: one HTML page that needs nothing else, a CSV, and Markdown.

`scripts/leaderboard.py` writes them, and the server shows the page. Everything shown is what
`leaderboard.measure` gave; nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from ..evaluation.benchmark_file import Benchmark
from ..evaluation.estimates import AUROC
from ..reporting.document import Table, policy, render_markdown
from ..reporting.tables import UNDEFINED, metric_name, percent
from ..runtime.files import write_file
from ..runtime.table_writer import csv_text
from .leaderboard import COLUMNS, Board, Standing
from .site import STATIC
from .site import render as render_template

PAGE, TABLE, MARKDOWN = "index.html", "leaderboard.csv", "leaderboard.md"
TITLE = "Detectors side by side"
WIDTH, HEIGHT, LEFT, BELOW = 640, 320, 56, 44  # px of the plot, and of its margins
NEAREST = 0.001  # smallest error drawn: the axis is logarithmic


@dataclass(frozen=True)
class Dot:
    """An entry in the plot: its rank, name and place in px."""

    rank: int
    name: str
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its place in px and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Error against time per picture, both logarithmic."""

    dots: Sequence[Dot]
    across: Sequence[Tick]
    down: Sequence[Tick]


def notes_of(standing: Standing, board: Board) -> list[str]:
    """What a reader has to know of an entry, in full sentences."""
    auroc, notes = standing.measured[AUROC], []
    if standing.turned:
        notes.append(
            f"AUROC below chance: its scores look turned round; turned back they would have "
            f"{100 * (1 - auroc.value):.1f}."
        )
    if standing.missing:
        total = board.n_real + board.n_synthetic
        notes.append(f"{standing.missing} of {total} pictures have no score: measured on the rest.")
    if standing.entry.foreign:
        notes.append(f"Scores that are of no picture here: {standing.entry.foreign}.")
    if not standing.entry.info:
        notes.append("A table of scores by others: machine and training are unknown.")
    elif standing.seen:
        notes.append(f"Learnt from {', '.join(sorted(standing.seen))}.")
    if not standing.clustered:
        notes.append("Interval over pictures alone: too few generators and sources.")
    return notes


def shade(value: float) -> int:
    """The shade of an AUROC, 0 (chance or below) to 10 (all right)."""
    return min(10, max(0, math.floor(20 * (value - 0.5) + 1e-9)))


def _steps(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from at most `low` to at least `high`."""
    first = math.floor(math.log10(low))
    steps = [m * 10.0**e for e in range(first, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    below = [step for step in steps if step < low][-1:]
    return [*below, *inside, *[step for step in steps if step > high][:1]]


def plot_of(board: Board) -> Plot | None:
    """The plot of the entries whose time is known; None without any."""
    timed = [
        (rank, standing, standing.milliseconds, max(NEAREST, 1 - standing.measured[AUROC].value))
        for rank, standing in enumerate(board.standings, 1)
        if standing.milliseconds
    ]
    if not timed:
        return None
    times = _steps(min(t for *_, t, _ in timed), max(t for *_, t, _ in timed))
    errors = _steps(min(e for *_, e in timed), max(e for *_, e in timed))

    def place(value: float, steps: Sequence[float], start: float, end: float) -> float:
        low, high = math.log10(steps[0]), math.log10(steps[-1])
        share = (math.log10(value) - low) / (high - low) if high > low else 0.5
        return round(start + share * (end - start), 1)

    def x(value: float) -> float:
        return place(value, times, LEFT + 14, WIDTH - 20)

    def y(value: float) -> float:
        return place(value, errors, HEIGHT - BELOW - 10, 16)

    return Plot(
        [
            Dot(rank, s.entry.name, x(t), y(e), f"{s.entry.name}: {t:.3g} ms, {100 * e:.1f} %")
            for rank, s, t, e in timed
        ],
        [Tick(x(step), f"{step:g}") for step in times],
        [Tick(y(step), f"{100 * step:g}") for step in errors],
    )


def reported_of(benchmarks: Sequence[Benchmark]) -> Iterator[tuple[str, str, str, str]]:
    """Title, benchmark, metric and figure of each average that somebody published, in percent."""
    for benchmark in benchmarks:
        for published in benchmark.published.values():
            for metric, averages in published.averages.items():
                for kind, value in averages.items():
                    mean = "all pictures" if kind == "pictures" else f"mean over {kind}"
                    yield published.title, benchmark.title, f"{metric}, {mean}", f"{value:g}"


def render(board: Board, benchmarks: Sequence[Benchmark] = ()) -> str:
    """The page, with its style and its script in it.

    Args:
        board: the standings.
        benchmarks: whose published figures stand below, as reported.
    """
    style = "".join((STATIC / name).read_text("utf-8") for name in ("site.css", "board.css"))
    script = "".join((STATIC / name).read_text("utf-8") for name in ("tables.js", "board.js"))
    return render_template(
        "board.j2", title=TITLE, board=board, columns=COLUMNS, plot=plot_of(board),
        width=WIDTH, height=HEIGHT, left=LEFT, below=BELOW,
        reported=list(reported_of(benchmarks)), percent=percent, metric_name=metric_name,
        notes_of=notes_of, shade=shade, undefined=UNDEFINED,
        policy=Markup(policy(style, script)), style=Markup(style), script=Markup(script),
    )  # fmt: skip


def table_of(board: Board) -> Table:
    """The standings as text, for Markdown."""
    header = ["rank", "entry", "group", *map(metric_name, COLUMNS), "ms per picture", "missing"]
    rows = []
    for rank, s in enumerate(board.standings, 1):
        values = [percent(s.measured[AUROC]), *(percent(s.measured[m].value) for m in COLUMNS[1:])]
        time = UNDEFINED if s.milliseconds is None else f"{s.milliseconds:.3g}"
        rows.append([str(rank), s.entry.name, str(s.group), *values, time, str(s.missing)])
    return Table(header, rows, names=2)


def csv_of(board: Board) -> str:
    """The standings with all axes as CSV, fractions as they are."""
    axes = [(axis, name) for axis, names in board.names.items() for name in names]
    header = ["rank", "entry", "group", "auroc_low", "auroc_high", *COLUMNS, "milliseconds",
              "missing", "turned", *(f"{axis}: {name}" for axis, name in axes)]  # fmt: skip
    rows: list[Sequence[object]] = [header]
    for rank, s in enumerate(board.standings, 1):
        auroc = s.measured[AUROC]
        values = (s.measured[name].value for name in COLUMNS)
        of_axes = (s.axes.get(axis, {}).get(name) for axis, name in axes)
        rows.append([rank, s.entry.name, s.group, auroc.low, auroc.high, *values,
                     s.milliseconds, s.missing, s.turned, *of_axes])  # fmt: skip
    return csv_text(rows)


def write(folder: Path, board: Board, benchmarks: Sequence[Benchmark] = ()) -> None:
    """Writes the page, the CSV and the Markdown into a folder, which is made where it is not there.

    Args:
        folder: where they go; files of these names are replaced.
        board, benchmarks: as `render` has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes = [f"{s.entry.name}: {note}" for s in board.standings for note in notes_of(s, board)]
    markdown = render_markdown(
        "leaderboard.j2", TITLE, table=table_of(board), notes=notes, board=board
    )
    write_file(folder / TABLE, csv_of(board))
    write_file(folder / MARKDOWN, markdown)
    write_file(folder / PAGE, render(board, benchmarks))
