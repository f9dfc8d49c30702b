"""SSP's table: trained on one subset of GenImage, tested on all eight, the baseline beside SSP.

    bash scripts/train_ssp.sh all && bash scripts/train_ssp.sh all --detector ssp_baseline
    python scripts/ssp_table.py runs/ssp/*/genimage runs/ssp_baseline/*/genimage --output runs/table

Each RUN is the folder of an evaluation of `ssp` or `ssp_baseline` on GenImage; its run.json says on
which subset the weights were trained. Accuracies are in percent; as published, SSP's averages weigh
every picture alike, its baseline's every subset. Printed is the Markdown table; --output has
table.md, table.png and table.csv, with the published figure beside each accuracy, which stands in a
column of its own where a run had other pictures, and not at all where its options were others.
Nothing is scored here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import LayoutError  # noqa: E402
from datasets._limits import UPRIGHT  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.evaluation import benchmark as benchmarks  # noqa: E402
from engine.evaluation.benchmark import PUBLISHED, THRESHOLD, Measurement, as_stated, comparable  # noqa: E402
from engine.evaluation.benchmark_file import Benchmark, Published  # noqa: E402
from engine.evaluation.cells import labels_logits  # noqa: E402
from engine.evaluation.comparison import read_run  # noqa: E402
from engine.evaluation.estimates import ACCURACY  # noqa: E402
from engine.evaluation.metrics import accuracy  # noqa: E402
from engine.evaluation.reported import OTHER_PICTURES  # noqa: E402
from engine.runtime.files import write_file  # noqa: E402
from engine.scoring.table import ScoreRow  # noqa: E402
from scripts._shared import answer, new_parser, write_table  # noqa: E402

PROGRAM = "ssp_table.py"
DETECTORS = ("ssp_baseline", "ssp")  # in the order of a cell of the published table
AVERAGE = "average"
COLUMNS = ("detector", "trained_on", "tested_on", "accuracy", "reported", OTHER_PICTURES)
# Rows: (detector, training subset) -> test subset, or AVERAGE, -> accuracy in percent.
Table = dict[tuple[str, str], dict[str, float]]


@dataclass(frozen=True)
class Results:
    """What a run measured: by test subset the accuracy in percent, the number of scored pictures,
    and the accuracy that was published of the same detector, if it was. `others`: the subsets, and
    AVERAGE, of which that is of other pictures."""

    detector: str
    trained_on: str
    accuracy: Mapping[str, float]
    pictures: Mapping[str, int]
    reported: Mapping[str, float]
    others: frozenset[str]

    def row(self) -> dict[str, float]:
        """Accuracies, and their average as that of the detector was published."""
        weights = self.pictures if self.detector == "ssp" else dict.fromkeys(self.accuracy, 1)
        right = sum(self.accuracy[name] * weight for name, weight in weights.items())
        return {**self.accuracy, AVERAGE: right / sum(weights.values())}


def _figures(info: Mapping[str, Any], benchmark: Benchmark) -> Published | None:
    """The published figures of a run's detector, as its options and training make it; None where
    these are none that was published. As those of others where the run's split or decoding is."""
    config = info["config"]
    chosen = config[config["detector"]]
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in chosen.items()}
    run = Measurement(
        detector=config["detector"],
        options=SimpleNamespace(**options),
        base=info["degradations"][0],
        split=config.get("data", {}).get("split"),
        trained_on=tuple(info["trained_on"]),
        decoding=info.get("decoding", UPRIGHT),  # which earlier runs do not name
    )
    return comparable(benchmark, run)[0]


def _others(
    labels: Mapping[str, NDArray[np.int64]], figures: Published, benchmark: Benchmark
) -> frozenset[str]:
    """The subsets, and AVERAGE, of which a run has other pictures than the figures are of, by the
    labels (N,) of its pictures."""
    names = set(figures.others & labels.keys())
    for name, values in labels.items():
        synthetic = int(values.sum())
        counts = values.size - synthetic, synthetic
        if not all(map(as_stated, counts, benchmark.facts.stated(name, name))):
            names.add(name)
    return frozenset(names | ({AVERAGE} if names else set()))


def read_results(folder: Path, benchmark: Benchmark) -> Results:
    """The results of an evaluation, accuracies at the published threshold.

    Raises:
        ConfigError: the folder is no evaluation.
        LayoutError: it is one of other detectors, pictures or protocol, or of weights of which
            nothing says that they were trained on one subset.
    """
    run, subsets = read_run(folder), benchmark.generators
    info = run.info
    detector, trained = info.get("config", {}).get("detector"), info.get("trained_on", [])
    asked = info.get("benchmark"), info.get("protocol")
    if detector not in DETECTORS or asked != ("genimage", PUBLISHED):
        raise LayoutError(
            f"{folder}: expected an evaluation of {' or '.join(DETECTORS)} on genimage by the "
            f"protocol {PUBLISHED}; found {detector} on {asked[0]} by {asked[1]}"
        )
    if len(trained) != 1 or trained[0] not in subsets:
        raise LayoutError(
            f"{folder}: expected weights that were trained on one of {', '.join(subsets)}; found "
            f"{', '.join(trained) or 'none named in their card'}"
        )
    by_subset: dict[str, list[ScoreRow]] = {}
    for (_, degradation), row in run.rows.items():
        if degradation == info["degradations"][0]:
            by_subset.setdefault(row.source, []).append(row)
    if missing := [name for name in subsets if name not in by_subset]:
        raise LayoutError(f"{folder}: expected results on all subsets; no {', '.join(missing)}")
    pairs = {name: labels_logits(by_subset[name]) for name in subsets}
    right = {name: 100 * accuracy(*pair, THRESHOLD) for name, pair in pairs.items()}
    labels = {name: pair[0] for name, pair in pairs.items()}
    counts = {name: values.size for name, values in labels.items()}
    figures = _figures(info, benchmark)
    reported = _row(figures) if figures else {}
    others = _others(labels, figures, benchmark) if figures else frozenset()
    return Results(detector, trained[0], right, counts, reported, others)


def measured(folders: Sequence[Path], benchmark: Benchmark) -> list[Results]:
    """The results of all runs. Raises LayoutError where two are of one detector and subset."""
    runs: dict[tuple[str, str], Results] = {}
    for folder in folders:
        results = read_results(folder, benchmark)
        key = results.detector, results.trained_on
        if key in runs:
            raise LayoutError(f"{folder}: expected one run of {key[0]} on {key[1]}; found two")
        runs[key] = results
    return list(runs.values())


def _row(figures: Published) -> dict[str, float]:
    """A row as it was published."""
    average = next(iter(figures.averages[ACCURACY].values()))
    return {**figures.generators[ACCURACY], AVERAGE: average}


def markdown(title: str, table: Table, subsets: Sequence[str]) -> str:
    """The table as published: a cell has the baseline's accuracy, then SSP's; a dash where there
    was no run."""
    columns = [*subsets, AVERAGE]
    lines = [f"| {title} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for trained in subsets:
        rows = [table.get((name, trained), {}) for name in DETECTORS]
        cells = [
            " / ".join(f"{row[column]:.1f}" if column in row else "–" for row in rows)
            for column in columns
        ]
        lines.append(f"| {trained} | {' | '.join(cells)} |")
    return "\n".join(lines)


def csv_rows(runs: Sequence[Results]) -> Iterator[list[object]]:
    """A row of `COLUMNS` per accuracy, in percent, with the published one: `reported` where it is
    of the same pictures, in the last column where it is of others."""
    for run in runs:
        for tested, value in run.row().items():
            known = run.reported.get(tested)
            figures = [None, known] if tested in run.others else [known, None]
            yield [run.detector, run.trained_on, tested, round(value, 4), *figures]


def heat_map(table: Table, subsets: Sequence[str]) -> bytes:
    """A panel for each detector of the table, as PNG. Needs matplotlib."""
    from engine.reporting.drawing import figure, png

    columns = [*subsets, AVERAGE]
    shown = [name for name in DETECTORS if any(detector == name for detector, _ in table)]
    drawing = figure(1.5 + 5.5 * len(shown), 4.8)
    axes = drawing.subplots(1, len(shown), squeeze=False)[0]
    for panel, name in zip(axes, shown, strict=True):
        values = [
            [table.get((name, trained), {}).get(column, float("nan")) for column in columns]
            for trained in subsets
        ]
        image = panel.imshow(values, cmap="cividis", vmin=50, vmax=100)
        panel.set_title(name)
        panel.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
        panel.set_yticks(range(len(subsets)), subsets)
        panel.set_xlabel("tested on")
        panel.set_ylabel("trained on")
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                if value == value:  # a run that is missing leaves its cells empty
                    colour = "black" if value > 78 else "white"
                    panel.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7,
                               color=colour)  # fmt: skip
    drawing.colorbar(image, ax=list(axes), label="accuracy, %", shrink=0.8)
    return png(drawing)


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__)
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of evaluations")
    p.add_argument("--output", type=Path, metavar="DIR", help="where table.* go, too")
    return p


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parser().parse_args(arguments)

    def run() -> int:
        benchmark = benchmarks.load("genimage")
        subsets = benchmark.generators
        runs, figures = measured(args.runs, benchmark), benchmark.published.values()
        published: Table = {(f.detector, f.trained_on[0]): _row(f) for f in figures}
        table: Table = {(run.detector, run.trained_on): run.row() for run in runs}
        titled = {"trained on": table, "reported": published}
        text = "\n\n".join(
            markdown(f"{title}: baseline / SSP, %", rows, subsets) for title, rows in titled.items()
        )
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            write_file(args.output / "table.md", text + "\n")
            write_table(args.output / "table.csv", COLUMNS, csv_rows(runs))
            write_file(args.output / "table.png", heat_map(table, subsets))
        print(text)
        return 0

    return answer(PROGRAM, run, (ConfigError, LayoutError, OSError))


if __name__ == "__main__":
    sys.exit(main())
