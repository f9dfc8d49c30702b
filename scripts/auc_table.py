"""Table of every generator against every source of real pictures, from result CSVs.

    python scripts/auc_table.py DIR
    python scripts/auc_table.py --input_dir DIR --metric ap --split test --csv table.csv

DIR holds fake_<generator>.csv and real_<source>.csv with a column of scores, probabilities of
synthetic, and where they are known image, class and split: what `main.py --output DIR` writes of
folders and CSV files. A CSV of another name counts by its column class, its rows of class 1 as a
generator, those of class 0 as a source. Printed is a Markdown table in percent: the metric of each
generator against each source, its mean over sources, the same means of the other metrics, and in a
row below the means over generators, each counting alike. The SPAI study's figures are of `auc`.
The last column has the single-class accuracy: of the pictures of a generator, or of a source, those
that are called what they are; sources have rows of their own for it. All pictures of DIR are taken
where they are of one split; --split takes one of several.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from datasets import LayoutError  # noqa: E402
from datasets._csv import IMAGE, defused, read_csv  # noqa: E402
from datasets._paths import split_named, visible  # noqa: E402
from engine.cli.parser import Parser  # noqa: E402
from engine.evaluation.metrics import accuracy, auroc, average_precision, balanced_accuracy  # noqa: E402
from engine.runtime.files import write_file  # noqa: E402
from engine.scoring.probability import threshold_logit  # noqa: E402
from scripts._answer import answer, complain  # noqa: E402

PROGRAM = "auc_table.py"
CLASS = "class"
COMMON = (IMAGE, CLASS, "split", "generator", "source")  # no scores
CLASSES = {"fake": "1", "real": "0"}
Metric = Callable[[np.ndarray, np.ndarray], float]
Line = tuple[str, Sequence[float | None]]  # of the table: its name, and values in [0, 1]


def metrics(threshold: float) -> dict[str, tuple[str, Metric]]:
    """Title and function of labels (N,), logits (N,) by the name for `--metric`."""
    return {
        "auc": ("AUC", auroc),
        "ap": ("AP", average_precision),
        "acc": ("accuracy", partial(accuracy, threshold=threshold)),
        "bacc": ("balanced accuracy", partial(balanced_accuracy, threshold=threshold)),
    }


# --- reading


@dataclass(frozen=True)
class Results:
    """A result CSV, or its rows of one class; `kind`, fake or real, is that of all its rows."""

    file: Path
    kind: str
    columns: Sequence[str]
    rows: Sequence[dict[str, str]]


def read_file(file: Path) -> dict[str, Results]:
    """A result CSV by its kind, of which its name or its column class tells; none for a CSV where
    neither does, such as the predictions.csv of phase test.

    Raises:
        LayoutError: it is no CSV, or a class that must tell its kind is neither 0 nor 1.
    """
    columns, rows = read_csv(file, "a CSV of scores")
    for kind in CLASSES:
        if file.name.startswith(f"{kind}_"):
            return {kind: Results(file, kind, columns, rows)}
    if CLASS not in columns:
        return {}
    found: dict[str, list[dict[str, str]]] = {kind: [] for kind in CLASSES}
    for row in rows:
        kinds = [kind for kind, label in CLASSES.items() if label == row[CLASS].strip()]
        if not kinds:
            raise LayoutError(
                f"{file}: expected class 0 or 1 in every row, or a name that begins with fake_ or "
                f"real_; found {row[CLASS]!r}"
            )
        found[kinds[0]].append(row)
    return {kind: Results(file, kind, columns, own) for kind, own in found.items() if own}


def read_folder(folder: Path) -> dict[str, dict[str, Results]]:
    """The result CSVs of a folder, sorted by name: by kind, and then by generator or source.

    Raises:
        LayoutError: there is none of a kind, or two of one name; see also `read_file`.
    """
    found: dict[str, dict[str, Results]] = {kind: {} for kind in CLASSES}
    others = []
    for file in sorted(folder.glob("*.csv")):
        parts = read_file(file)
        others += [] if parts else [file.name]
        for kind, part in parts.items():
            name = file.stem.removeprefix(f"{kind}_")
            if name in found[kind]:
                twice = f"{found[kind][name].file.name} and {file.name}"
                raise LayoutError(f"{folder}: expected {name} once; found {twice}")
            found[kind][name] = part
    for kind, tables in found.items():
        if not tables:
            raise LayoutError(
                f"{folder}: expected fake_<generator>.csv and real_<source>.csv, or CSV files with "
                f"a column {CLASS}; found no {kind}_*.csv and no class {CLASSES[kind]}"
            )
    if others:
        said = f"{', '.join(others)}: passed over, for neither name nor a column {CLASS} tells the"
        complain(PROGRAM, f"{said} kind")
    return found


def of_split(found: Results, split: str) -> Results:
    """The rows of a split. Raises LayoutError where there are none."""
    rows = [r for r in found.rows if split_named(r.get("split", "")) == split_named(split)]
    if not rows:
        there = ", ".join(sorted(splits_of([found]))) or "none stated"
        raise LayoutError(f"{found.file}: expected rows of split {split!r}; found {there}")
    return replace(found, rows=rows)


def splits_of(tables: Iterable[Results]) -> set[str]:
    """The splits that rows state."""
    return {split_named(row.get("split", "")) for found in tables for row in found.rows} - {""}


def score_column(found: Results, tag: str | None) -> str:
    """The column of scores: `tag`, or the only one beside the common ones."""
    others = [column for column in found.columns if column not in COMMON]
    if tag in others:
        return tag
    if tag or len(others) != 1:
        raise LayoutError(
            f"{found.file}: expected {f'a column {tag}' if tag else 'one column'} of scores; found "
            f"{', '.join(others) or 'none'} beside {', '.join(COMMON)}: name one with --tag"
        )
    return others[0]


def to_logit(file: Path, text: str) -> float:
    """The logit of a probability, infinite for 0 and 1. Raises LayoutError for anything else."""
    try:
        return threshold_logit(float(text))
    except ValueError as error:
        raise LayoutError(f"{file}: expected scores between 0 and 1; found {text!r}") from error


def logits_of(found: Results, tag: str | None) -> np.ndarray:
    """Logits (N,) of a result CSV whose rows all are of one class.

    Raises:
        LayoutError: no such column, a score that is no probability, a row of the other class, or
            no scored picture.
    """
    column, label = score_column(found, tag), CLASSES[found.kind]
    for number, row in enumerate(found.rows, 1):
        # What phase test writes of a folder has no class; then the file's name is what tells.
        if row.get(CLASS, "").strip() not in (label, ""):
            raise LayoutError(
                f"{found.file}: expected class {label}, or none, in every row of a "
                f"{found.kind}_*.csv; found {row[CLASS]!r} at {row.get(IMAGE) or f'row {number}'!r}"
            )
    texts = [row[column].strip() for row in found.rows]
    scored = [to_logit(found.file, text) for text in texts if text]
    if not scored:
        raise LayoutError(f"{found.file}: expected scores in column {column}; found none")
    if missing := len(texts) - len(scored):
        complain(PROGRAM, f"{found.file.name}: {missing} pictures without a score")
    return np.array(scored)


def read(folder: Path, tag: str | None, split: str | None) -> list[dict[str, np.ndarray]]:
    """Logits of the fakes by generator, and of the reals by source, all of one split.

    Raises:
        LayoutError: rows of several splits and none chosen; see also `read_folder`, `of_split` and
            `logits_of`.
    """
    tables = list(read_folder(folder).values())
    if split is not None:
        tables = [{name: of_split(one, split) for name, one in each.items()} for each in tables]
    found = splits_of(one for each in tables for one in each.values())
    if len(found) > 1:
        raise LayoutError(
            f"{folder}: expected pictures of one split; found {', '.join(sorted(found))}: choose "
            "one with --split"
        )
    return [{name: logits_of(one, tag) for name, one in each.items()} for each in tables]


# --- the table


def against(fake: np.ndarray, real: np.ndarray, metric: Metric) -> float:
    """The metric of a generator's logits against those of a source, in [0, 1]."""
    labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
    return metric(labels, np.concatenate([fake, real]))


def table(
    fakes: dict[str, np.ndarray], reals: dict[str, np.ndarray], chosen: str, threshold: float
) -> tuple[list[str], list[Line]]:
    """Column titles and lines: of generators and their mean, of sources and theirs."""
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
        alone = accuracy(np.ones(len(fake)), fake, threshold)
        rows.append([*by_metric[chosen], *means, alone])
    rows.append(np.mean(rows, axis=0).tolist())
    lines: list[Line] = list(zip([*fakes, f"mean of {len(fakes)}"], rows, strict=True))
    right = [accuracy(np.zeros(len(real)), real, threshold) for real in reals.values()]
    names = [*(f"real {source}" for source in reals), f"mean of {len(reals)} real"]
    for name, alone in zip(names, [*right, float(np.mean(right))], strict=True):
        lines.append((name, [*(None for _ in titles), alone]))
    return [*titles, "single-class accuracy"], lines


def markdown(titles: Sequence[str], lines: Sequence[Line]) -> str:
    """The table in percent."""
    text = [["generator", *titles], ["---", *("---:" for _ in titles)]]
    for name, values in lines:
        text.append([name, *("" if v is None else f"{100 * v:.2f}" for v in values)])
    cells = ([visible(cell).replace("|", r"\|") for cell in line] for line in text)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def as_csv(titles: Sequence[str], lines: Sequence[Line]) -> str:
    """The table as fractions; what a line does not have is empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["generator", *map(defused, titles)])
    writer.writerows([defused(name), *values] for name, values in lines)
    return stream.getvalue()


def parser() -> Parser:
    """The command line."""
    p = Parser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    p.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="the folder with the CSVs")
    p.add_argument("--input_dir", type=Path, metavar="DIR", help="the same")
    p.add_argument(
        "--metric", choices=list(metrics(0.5)), default="auc", help="in the columns (%(default)s)"
    )
    p.add_argument("--tag", metavar="COLUMN", help="the column of scores, where there are several")
    p.add_argument("--split", metavar="NAME", help="only pictures of this split")
    p.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="of accuracies (%(default)s)"
    )
    p.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, too")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    if (args.folder is None) == (args.input_dir is None):
        p.error("expected DIR once, alone or by --input_dir; found both or none")
    if not 0 <= args.threshold <= 1:
        p.error(f"--threshold: expected 0 to 1; found {args.threshold}")
    if args.tag in COMMON:
        p.error(f"--tag: expected a column of scores; found {args.tag}, which is no score")

    def run() -> int:
        fakes, reals = read(args.folder or args.input_dir, args.tag, args.split)
        titles, lines = table(fakes, reals, args.metric, args.threshold)
        if args.csv:
            write_file(args.csv, as_csv(titles, lines))
        print(markdown(titles, lines))
        return 0

    return answer(PROGRAM, run, (LayoutError, OSError))


if __name__ == "__main__":
    sys.exit(main())
