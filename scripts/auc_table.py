"""Table of every generator against every source of real pictures, from result CSVs.

    python scripts/auc_table.py DIR
    python scripts/auc_table.py DIR --metric ap --csv table.csv

DIR holds fake_<generator>.csv and real_<source>.csv with the columns image, class, split and one of
scores, probabilities of synthetic. Printed is a Markdown table in percent: the metric of each
generator against each source, its mean over sources, the same means of the other metrics, and in
the last row the means over generators, each counting alike. The SPAI study's figures are of `auc`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from datasets import LayoutError  # noqa: E402
from datasets.csv_file import read_rows  # noqa: E402
from engine.metrics import (  # noqa: E402
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
    threshold_logit,
)
from scripts._answer import answer  # noqa: E402

PROGRAM = "auc_table.py"
COMMON = ("image", "class", "split")
CLASSES = {"fake": "1", "real": "0"}
Metric = Callable[[np.ndarray, np.ndarray], float]


def metrics(threshold: float) -> dict[str, tuple[str, Metric]]:
    """Title and function of labels (N,), logits (N,) by the name for `--metric`."""
    return {
        "auc": ("AUC", auroc),
        "ap": ("AP", average_precision),
        "acc": ("accuracy", partial(accuracy, threshold=threshold)),
        "bacc": ("balanced accuracy", partial(balanced_accuracy, threshold=threshold)),
    }


# --- reading


def score_column(file: Path, columns: Sequence[str], tag: str | None) -> str:
    """The column of scores: `tag`, or the only one beside the common ones."""
    if tag and tag in columns:
        return tag
    others = [column for column in columns if column not in COMMON]
    if tag or len(others) != 1:
        raise LayoutError(
            f"{file}: expected {f'a column {tag}' if tag else 'one column of scores'}; found "
            f"{', '.join(others) or 'none'} beside {', '.join(COMMON)}: name one with --tag"
        )
    return others[0]


def to_logit(file: Path, text: str) -> float:
    """The logit of a probability, infinite for 0 and 1. Raises LayoutError for anything else."""
    try:
        return threshold_logit(float(text))
    except ValueError as error:
        raise LayoutError(f"{file}: expected scores between 0 and 1; found {text!r}") from error


def read_logits(file: Path, kind: str, tag: str | None) -> np.ndarray:
    """Logits (N,) of a result CSV whose rows all are of one class.

    Raises:
        LayoutError: no such column, a score that is no probability, a row of the other class, or
            no scored picture.
    """
    columns, rows = read_rows(file)
    column = score_column(file, columns, tag)
    for row in rows:
        if row.get("class", "").strip() != CLASSES[kind]:
            raise LayoutError(
                f"{file}: expected class {CLASSES[kind]} in every row of a {kind}_*.csv; found "
                f"{row.get('class')!r} at {row['image']!r}"
            )
    texts = [row[column].strip() for row in rows]
    scored = [to_logit(file, text) for text in texts if text]
    if not scored:
        raise LayoutError(f"{file}: expected scores in column {column}; found none")
    if missing := len(texts) - len(scored):
        print(f"{PROGRAM}: {file.name}: {missing} pictures without a score", file=sys.stderr)
    return np.array(scored)


def read_folder(folder: Path, kind: str, tag: str | None) -> dict[str, np.ndarray]:
    """Logits by generator (`kind` fake) or source (`kind` real), sorted by name."""
    files = sorted(folder.glob(f"{kind}_*.csv"))
    if not files:
        raise LayoutError(
            f"{folder}: expected fake_<generator>.csv and real_<source>.csv; found no {kind}_*.csv"
        )
    return {f.stem.removeprefix(f"{kind}_"): read_logits(f, kind, tag) for f in files}


# --- the table


def against(fake: np.ndarray, real: np.ndarray, metric: Metric) -> float:
    """The metric of a generator's logits against those of a source, in [0, 1]."""
    labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
    return metric(labels, np.concatenate([fake, real]))


def table(
    fakes: dict[str, np.ndarray], reals: dict[str, np.ndarray], chosen: str, threshold: float
) -> tuple[list[str], list[list[float]]]:
    """Column titles, and a row of values in [0, 1] for each generator and for their mean."""
    known = metrics(threshold)
    order = [chosen, *(name for name in known if name != chosen)]
    titles = [f"{known[chosen][0]}, {source}" for source in reals]
    titles += [f"mean {known[name][0]}" for name in order]
    rows = []
    for fake in fakes.values():
        by_metric = {
            name: [against(fake, real, known[name][1]) for real in reals.values()] for name in order
        }
        means = [float(np.mean(by_metric[name])) for name in order]
        rows.append([*by_metric[chosen], *means])
    rows.append(np.mean(rows, axis=0).tolist())
    return titles, rows


def markdown(names: Sequence[str], titles: Sequence[str], rows: Sequence[Sequence[float]]) -> str:
    """The table in percent."""
    lines = [f"| generator | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for name, row in zip(names, rows, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{100 * value:.2f}' for value in row)} |")
    return "\n".join(lines)


def write_csv(
    path: Path, names: Sequence[str], titles: Sequence[str], rows: Sequence[Sequence[float]]
) -> None:
    """The table as fractions, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["generator", *titles])
        writer.writerows([name, *row] for name, row in zip(names, rows, strict=True))
    temporary.replace(path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0])
    p.add_argument("folder", type=Path, metavar="DIR", help="the folder with the CSVs")
    p.add_argument(
        "--metric", choices=list(metrics(0.5)), default="auc", help="in the columns (%(default)s)"
    )
    p.add_argument("--tag", metavar="COLUMN", help="the column of scores, where there are several")
    p.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="of accuracies (%(default)s)"
    )
    p.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, too")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    if not 0 <= args.threshold <= 1:
        p.error(f"--threshold: expected 0 to 1; found {args.threshold}")

    def run() -> int:
        fakes, reals = (read_folder(args.folder, kind, args.tag) for kind in CLASSES)
        titles, rows = table(fakes, reals, args.metric, args.threshold)
        names = [*fakes, f"mean of {len(fakes)}"]
        if args.csv:
            write_csv(args.csv, names, titles, rows)
        print(markdown(names, titles, rows))
        return 0

    return answer(PROGRAM, run, (LayoutError, OSError))


if __name__ == "__main__":
    sys.exit(main())
