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

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from datasets import LayoutError  # noqa: E402
from datasets._csv import IMAGE, read_csv  # noqa: E402
from datasets._paths import split_named, visible  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.evaluation.metrics import accuracy, auroc, average_precision, balanced_accuracy  # noqa: E402
from engine.scoring.probability import threshold_logit  # noqa: E402
from scripts._shared import answer, new_parser, say, write_table  # noqa: E402

PROGRAM = "auc_table.py"
CLASS = "class"
COMMON = (IMAGE, CLASS, "split", "generator", "source")  # no scores
KINDS = {"fake": "1", "real": "0"}  # what names of files begin with, and its class
Metric = Callable[[np.ndarray, np.ndarray], float]
Scores = Mapping[str, np.ndarray]  # logits (N,) by generator or source
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
    """The rows of one class in a result CSV; `kind` is fake or real."""

    file: Path
    kind: str
    columns: Sequence[str]
    rows: Sequence[dict[str, str]]

    @property
    def name(self) -> str:
        """The generator or source."""
        return self.file.stem.removeprefix(f"{self.kind}_")

    @property
    def splits(self) -> set[str]:
        """The splits that rows state."""
        return {split_named(row.get("split", "")) for row in self.rows} - {""}


def read_file(file: Path) -> list[Results]:
    """The rows of a result CSV by their kind, of which its name or its column class tells; none of
    a CSV where neither does, such as the predictions.csv of phase test. Raises LayoutError for no
    CSV, or where a class that must tell its kind is neither 0 nor 1."""
    columns, rows = read_csv(file, "a CSV of scores")
    named = [kind for kind in KINDS if file.name.startswith(f"{kind}_")]
    if named or CLASS not in columns:
        return [Results(file, kind, columns, rows) for kind in named]
    by_class: dict[str, list[dict[str, str]]] = {label: [] for label in KINDS.values()}
    for row in rows:
        if (label := row[CLASS].strip()) not in by_class:
            wanted = "class 0 or 1 in every row, or a name that begins with fake_ or real_"
            raise LayoutError(f"{file}: expected {wanted}; found {row[CLASS]!r}")
        by_class[label].append(row)
    kinds = {kind: by_class[label] for kind, label in KINDS.items()}
    return [Results(file, kind, columns, of_kind) for kind, of_kind in kinds.items() if of_kind]


def read_folder(folder: Path) -> list[Results]:
    """The result CSVs of a folder, sorted by name. Raises LayoutError where there is none of a
    kind, or two of one name; see also `read_file`."""
    files = {file: read_file(file) for file in sorted(folder.glob("*.csv"))}
    tables = [results for of_file in files.values() for results in of_file]
    named: dict[tuple[str, str], Results] = {}
    for results in tables:
        other = named.setdefault((results.kind, results.name), results)
        if other is not results:
            both = f"{other.file.name} and {results.file.name}"
            raise LayoutError(f"{folder}: expected {results.name} once; found {both}")
    for kind, label in KINDS.items():
        if not any(results.kind == kind for results in tables):
            raise LayoutError(
                f"{folder}: expected fake_<generator>.csv and real_<source>.csv, or CSV files with "
                f"a column {CLASS}; found no {kind}_*.csv and no class {label}"
            )
    if others := ", ".join(file.name for file, of_file in files.items() if not of_file):
        say(PROGRAM, f"{others}: passed over, for neither name nor a column {CLASS} tells the kind")
    return tables


def of_split(results: Results, split: str) -> Results:
    """The rows of a split. Raises LayoutError where there are none."""
    rows = [r for r in results.rows if split_named(r.get("split", "")) == split_named(split)]
    if not rows:
        splits = ", ".join(sorted(results.splits)) or "none stated"
        raise LayoutError(f"{results.file}: expected rows of split {split!r}; found {splits}")
    return replace(results, rows=rows)


def score_column(results: Results, tag: str | None) -> str:
    """The column of scores: `tag`, or the only one beside the common ones."""
    columns = [column for column in results.columns if column not in COMMON]
    if tag in columns:
        return tag
    if tag or len(columns) != 1:
        raise LayoutError(
            f"{results.file}: expected {f'a column {tag}' if tag else 'one column'} of scores; "
            f"found {', '.join(columns) or 'none'} beside {', '.join(COMMON)}: name one with --tag"
        )
    return columns[0]


def logits_of(results: Results, tag: str | None) -> np.ndarray:
    """Logits (N,) of the scored pictures, infinite for scores of 0 and 1. Raises LayoutError for no
    such column, a score that is no probability, a row of the other class, or no scored picture."""
    file, kind = results.file, results.kind
    column, label = score_column(results, tag), KINDS[kind]
    logits = []
    for line, row in enumerate(results.rows, 1):
        # What phase test writes of a folder has no class; then the file's name is what tells.
        if row.get(CLASS, "").strip() not in (label, ""):
            wanted = f"class {label}, or none, in every row of a {kind}_*.csv"
            where = f"{row[CLASS]!r} at {row.get(IMAGE) or f'row {line}'!r}"
            raise LayoutError(f"{file}: expected {wanted}; found {where}")
        try:
            if text := row[column].strip():
                logits.append(threshold_logit(float(text)))
        except ValueError as error:
            what = f"scores between 0 and 1; found {text!r}"
            raise LayoutError(f"{file}: expected {what}") from error
    if not logits:
        raise LayoutError(f"{file}: expected scores in column {column}; found none")
    if missing := len(results.rows) - len(logits):
        say(PROGRAM, f"{file.name}: {missing} pictures without a score")
    return np.array(logits)


def read(folder: Path, tag: str | None, split: str | None) -> tuple[Scores, Scores]:
    """Logits of the fakes by generator, and of the reals by source, all of one split.

    Args:
        folder: where the result CSVs are.
        tag: the column of scores; None: the only one.
        split: the split; None: the only one.

    Raises:
        LayoutError: rows of several splits and none chosen; see also `read_folder`, `of_split` and
            `logits_of`.
    """
    tables = read_folder(folder)
    if split is not None:
        tables = [of_split(results, split) for results in tables]
    if len(splits := set[str]().union(*(results.splits for results in tables))) > 1:
        what = f"{', '.join(sorted(splits))}: choose one with --split"
        raise LayoutError(f"{folder}: expected pictures of one split; found {what}")
    scores: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    for results in tables:
        scores[results.kind][results.name] = logits_of(results, tag)
    return scores["fake"], scores["real"]


# --- the table


def against(fake: np.ndarray, real: np.ndarray, metric: Metric) -> float:
    """The metric of a generator's logits (N,) against those of a source (M,), in [0, 1]."""
    labels = np.concatenate([np.ones(len(fake)), np.zeros(len(real))])
    return metric(labels, np.concatenate([fake, real]))


def table(
    fakes: Scores, reals: Scores, chosen: str, threshold: float
) -> tuple[list[str], list[Line]]:
    """Titles of the columns and lines of the table.

    Args:
        fakes: logits by generator, a line each, and one of their mean.
        reals: logits by source, a column each, and a line each of those called real.
        chosen: the metric of the columns; of the others there are means alone.
        threshold: of accuracies, a probability.
    """
    known = metrics(threshold)
    order = [chosen, *(name for name in known if name != chosen)]
    titles = [f"{known[chosen][0]}, {source}" for source in reals]
    titles += [f"mean {known[name][0]}" for name in order]
    rows = []
    for fake in fakes.values():
        values = [
            [against(fake, real, known[name][1]) for real in reals.values()] for name in order
        ]
        alone = accuracy(np.ones(len(fake)), fake, threshold)
        rows.append([*values[0], *np.mean(values, axis=1).tolist(), alone])
    rows.append(np.mean(rows, axis=0).tolist())
    lines: list[Line] = list(zip([*fakes, f"mean of {len(fakes)}"], rows, strict=True))
    right = [accuracy(np.zeros(len(real)), real, threshold) for real in reals.values()]
    names = [*(f"real {source}" for source in reals), f"mean of {len(reals)} real"]
    for name, alone in zip(names, [*right, float(np.mean(right))], strict=True):
        lines.append((name, [*(None for _ in titles), alone]))
    return [*titles, "single-class accuracy"], lines


def markdown(titles: Sequence[str], lines: Sequence[Line]) -> str:
    """The table in percent."""
    rows = [["generator", *titles], ["---", *("---:" for _ in titles)]]
    for name, values in lines:
        rows.append([name, *("" if v is None else f"{100 * v:.2f}" for v in values)])
    cells = ([visible(cell).replace("|", r"\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def parser() -> Parser:
    """The command line."""
    p = new_parser(PROGRAM, __doc__)
    p.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="the folder with the CSVs")
    p.add_argument("--input_dir", type=Path, metavar="DIR", help="the same")
    p.add_argument("--metric", choices=list(metrics(0.5)), default="auc",
                   help="in the columns (%(default)s)")  # fmt: skip
    p.add_argument("--tag", metavar="COLUMN", help="the column of scores, where there are several")
    p.add_argument("--split", metavar="NAME", help="only pictures of this split")
    p.add_argument("--threshold", type=number(float, 0, 1), default=0.5, metavar="X",
                   help="of accuracies (%(default)s)")  # fmt: skip
    p.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, too")
    return p


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    if (args.folder is None) == (args.input_dir is None):
        p.error("expected DIR once, alone or by --input_dir; found both or none")
    if args.tag in COMMON:
        p.error(f"--tag: expected a column of scores; found {args.tag}, which is no score")

    def run() -> int:
        fakes, reals = read(args.folder or args.input_dir, args.tag, args.split)
        titles, lines = table(fakes, reals, args.metric, args.threshold)
        if args.csv:
            rows = ([name, *values] for name, values in lines)
            write_table(args.csv, ["generator", *titles], rows)
        print(markdown(titles, lines))
        return 0

    return answer(PROGRAM, run, (LayoutError, OSError))


if __name__ == "__main__":
    sys.exit(main())
