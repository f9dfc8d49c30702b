"""How far a detector falls when pictures are posted, filtered, made into memes or enlarged.

    python scripts/study.py data/study/fake_*.csv data/study/real_*.csv --output runs/study
    python scripts/study.py DATA.csv --output runs/spai_study --detector spai --weights FILE

Phase eval scores every picture as it is and after the study's four derivations, into DIR/scores; a
killed run goes on by the same command. DIR/study.md has, for each derivation, the AUC of every
generator against every source, its mean with the drop from the original and their 95 % intervals
(bootstrap over pictures, the same ones before and after), and the share of verdicts that flipped;
study.csv and means.csv have the numbers, study.png shows them. Each set is measured in the
study's own formats and with all pictures as JPEG 75: in its own, real and synthetic pictures partly
come in different formats, which tells the classes apart. The CSVs hold a set each, fake_NAME.csv or
real_NAME.csv, or pictures of several generators and sources. Super-resolution is by the network
whose weights --set degrade.superres=FILE names, else bicubic. Printed is the table of means.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import LayoutError  # noqa: E402
from detectors._errors import OptionError, WeightsError  # noqa: E402
from engine.cli import app, series  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import parser as main_parser  # noqa: E402
from engine.cli.parser import shared  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.evaluation.bootstrap import areas_roc, drawn_samples, measured, rank  # noqa: E402
from engine.evaluation.comparison import Run, read_run  # noqa: E402
from engine.runtime.files import write_file  # noqa: E402
from engine.runtime.progress import Progress  # noqa: E402
from engine.runtime.run_folder import RUN  # noqa: E402
from engine.scoring import superres  # noqa: E402
from engine.scoring.probability import threshold_logit  # noqa: E402
from scripts._shared import (  # noqa: E402
    SAME_COMMAND,
    answer,
    new_parser,
    say,
    take_network,
    write_table,
)

PROGRAM = "study.py"
FLAGS = (
    "detector", "weights", "backbone_weights", "config", "set", "csv_root", "generators", "sources",
    "limit", "split", "cache", "threshold", "batch_size", "device", "gpu", "precision", "workers",
    "max_megapixels", "picture_memory", "picture_seconds", "threads", "compile", "debug",
)  # fmt: skip
# What messages of main.py name, and what it is here.
OWN_WORDS = (
    ("--data, --val_data or --test_csv", "CSV"),
    ("--test_csv", "CSV"),
    ("--degrade: ", ""),
    ("--overwrite or another", "another"),
)
ORIGINAL = "original"
OWN, SAME = "study", "jpeg:75"  # the formats: of the study, and one for all
CONFIDENCE = 0.95
FORMATS = (OWN, SAME)
ENLARGED = "enlarge:2"  # without weights of a network
# Format -> derivation -> degradations of synthetic and of real pictures.
Derived = Mapping[str, Mapping[str, tuple[str, str]]]
COLUMNS = ("format", "derivation", "generator", "source", "auc")
MEANS = ("format", "derivation", "auc", "low", "high", "drop", "drop_low", "drop_high", "flipped")
Floats = NDArray[np.float64]


def derived(enlarged: str) -> Derived:
    """The study's derivations, its super-resolution by the step `enlarged`."""
    plain = {
        "filter": "instagram:random", "meme": "meme", "screenshot": "post", "superres": enlarged,
    }  # fmt: skip
    same = {ORIGINAL: SAME} | {name: f"{step}+{SAME}" for name, step in plain.items()}
    own = {
        ORIGINAL: ("none", "none"),
        "filter": (same["filter"], same["filter"]),
        "meme": ("meme", "meme"),
        "screenshot": ("post", "post"),
        # Each keeps its picture's format: PNG of synthetic ones, JPEG 75 of real ones.
        "superres": (enlarged, same["superres"]),
    }
    return {OWN: own, SAME: {name: (step, step) for name, step in same.items()}}


def all_steps(derivations: Derived) -> list[str]:
    """Every degradation, once."""
    pairs = (pair for of_format in derivations.values() for pair in of_format.values())
    return list(dict.fromkeys(step for pair in pairs for step in pair))


@dataclass(frozen=True)
class Pictures:
    """The pictures of a generator or source that have a score under all steps: by step the logits
    (n,), in one order."""

    name: str
    logits: Mapping[str, Floats]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(next(iter(self.logits.values())))

    def draws(self, resamples: int, seed: int) -> NDArray[np.int64]:
        """Which pictures each resample takes, (resamples, n); the same for every derivation."""
        rng = np.random.default_rng((seed, zlib.crc32(self.name.encode())))
        return rng.integers(0, self.size, (resamples, self.size))


@dataclass(frozen=True)
class Mean:
    """A derivation in one format: its mean AUC, the drop from the original, each with an interval,
    the share of verdicts that it flips, and the AUC of each generator and source."""

    form: str
    derivation: str
    auc: tuple[float, float, float]
    drop: tuple[float, float, float]
    flipped: float
    cells: Mapping[tuple[str, str], float]


def named(row_name: str, default: str, folder: str, kind: str) -> str:
    """The name of a generator or source: that of its rows, or of its CSV where rows say none."""
    return row_name if row_name not in ("", default) else folder.removeprefix(f"{kind}_")


def sets(runs: Sequence[Run], steps: Sequence[str]) -> tuple[list[Pictures], list[Pictures]]:
    """Generators and sources of the sets that are scored under all steps, sorted by name.

    Raises:
        LayoutError: there are no pictures of a class that have all scores.
    """
    logits: dict[tuple[int, str], dict[str, list[float]]] = {}
    for run in runs:
        for key in sorted({key for key, _ in run.rows}):
            rows = [run.rows.get((key, step)) for step in steps]
            if any(row is None for row in rows):
                continue
            first = rows[0]
            assert first is not None
            label = int(first.label or 0)
            if label:
                name = named(first.generator, "fake", run.name, "fake")
            else:
                name = named(first.source, "", run.name, "real")
            columns = logits.setdefault((label, name), defaultdict(list))
            for step, row in zip(steps, rows, strict=True):
                assert row is not None
                assert row.logit is not None
                columns[step].append(row.logit)
    fakes, reals = (
        [
            Pictures(name, {step: np.array(column) for step, column in columns.items()})
            for (label, name), columns in sorted(logits.items())
            if label == wanted
        ]
        for wanted in (1, 0)
    )
    for kind, pictures in (("synthetic", fakes), ("real", reals)):
        if not pictures:
            raise LayoutError(
                f"expected {kind} pictures in the CSVs that can be scored; found none"
            )
    return fakes, reals


def areas(
    fake: Pictures, real: Pictures, steps: tuple[str, str], resamples: int, seed: int
) -> tuple[float, Floats]:
    """AUROC of a generator against a source, and of their resamples (resamples,).

    Args:
        fake, real: the pictures.
        steps: the degradations of the former and of the latter.
        resamples, seed: of the bootstrap.
    """
    logits = np.concatenate([fake.logits[steps[0]], real.logits[steps[1]]])
    ranking = rank(np.arange(len(logits)) < fake.size, logits)
    drawn = fake.draws(resamples, seed), real.draws(resamples, seed)
    return float(areas_roc(measured(ranking))[0]), areas_roc(drawn_samples(ranking, drawn))


def interval(value: float, samples: Floats) -> tuple[float, float, float]:
    """A value with the ends of its percentile interval."""
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return value, float(low), float(high)


def flips(pictures: Sequence[Pictures], before: str, after: str, limit: float) -> tuple[int, int]:
    """How many verdicts differ between two degradations, and of how many."""
    changed = sum(
        int(((p.logits[before] > limit) != (p.logits[after] > limit)).sum()) for p in pictures
    )
    return changed, sum(p.size for p in pictures)


def measure(
    fakes: Sequence[Pictures],
    reals: Sequence[Pictures],
    plan: Derived,
    limit: float,
    resamples: int,
    seed: int,
) -> list[Mean]:
    """The means of every derivation in every format, the original of a format first.

    Args:
        fakes, reals: generators and sources.
        plan: the derivations.
        limit: the logit above which a picture is called synthetic.
        resamples, seed: of the bootstrap.
    """
    means = []
    pairs = list(product(fakes, reals))
    with Progress(len(pairs) * sum(map(len, plan.values())), "measuring") as progress:
        for form, derivations in plan.items():
            first: tuple[float, Floats] | None = None
            for name, steps in derivations.items():
                cells, drawn = {}, np.zeros(resamples)
                for fake, real in pairs:
                    cells[fake.name, real.name], samples = areas(fake, real, steps, resamples, seed)
                    # Generators count alike, and in each its sources: the mean over all pairs.
                    drawn += samples / len(pairs)
                    progress.advance(1)
                value = float(np.mean(list(cells.values())))
                first = first or (value, drawn)
                changed = [
                    flips(group, derivations[ORIGINAL][side], steps[side], limit)
                    for side, group in enumerate((fakes, reals))
                ]
                flipped = sum(c for c, _ in changed) / sum(n for _, n in changed)
                drop = interval(first[0] - value, first[1] - drawn)
                means.append(Mean(form, name, interval(value, drawn), drop, flipped, cells))
    return means


def percent(values: tuple[float, float, float]) -> str:
    """A value with its interval, in percent."""
    value, low, high = (100 * v for v in values)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def summary(means: Sequence[Mean]) -> str:
    """The table of means, as Markdown."""
    lines = [
        "| format | derivation | mean AUC | drop | verdicts flipped |",
        "|---|---|---|---|---|",
    ]
    for mean in means:
        drop = "–" if mean.derivation == ORIGINAL else percent(mean.drop)
        flipped = "–" if mean.derivation == ORIGINAL else f"{100 * mean.flipped:.1f}"
        lines.append(
            f"| {mean.form} | {mean.derivation} | {percent(mean.auc)} | {drop} | {flipped} |"
        )
    return "\n".join(lines)


def document(means: Sequence[Mean], title: str) -> str:
    """study.md: the means, which derivation is worst, and a table of every pair for each."""
    parts = [f"# {title}", summary(means)]
    for form in FORMATS:
        changed = (m for m in means if m.form == form and m.derivation != ORIGINAL)
        worst = max(changed, key=lambda mean: mean.drop[0])
        parts.append(f"Worst in format {form}: {worst.derivation}, {percent(worst.auc)}.")
    parts.append("AUC in percent; each interval is of 95 %.")
    for mean in means:
        sources = list(dict.fromkeys(source for _, source in mean.cells))
        lines = [
            f"## {mean.derivation}, format {mean.form}\n",
            f"| generator | {' | '.join(sources)} |", f"|---|{'---|' * len(sources)}",
        ]  # fmt: skip
        for generator in dict.fromkeys(generator for generator, _ in mean.cells):
            values = [f"{100 * mean.cells[generator, source]:.1f}" for source in sources]
            lines.append(f"| {generator} | {' | '.join(values)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def plot(means: Sequence[Mean]) -> bytes:
    """Mean AUC of each derivation with its interval, a row of dots for each format, as PNG."""
    from engine.reporting import drawing

    drawn, axes = drawing.single(7, 3.6, "", "mean AUC, %")
    names = [mean.derivation for mean in means if mean.form == OWN]
    for index, form in enumerate(FORMATS):
        values = 100 * np.array([mean.auc for mean in means if mean.form == form])
        colour, marker = drawing.series(index)
        places = np.arange(len(names)) + 0.15 * (index - 0.5)
        spread = np.abs(values[:, 1:] - values[:, :1]).T
        label = "the study's formats" if form == OWN else "all as JPEG 75"
        axes.errorbar(places, values[:, 0], spread, color=colour, marker=marker, linestyle="",
                      capsize=3, label=label)  # fmt: skip
    axes.axhline(50, color="0.5", linewidth=1, linestyle=":")
    axes.set_xticks(range(len(names)), names)
    axes.legend(frameon=False)
    return drawing.png(drawn)


def score(args: argparse.Namespace, output: Path, steps: Sequence[str]) -> list[Run]:
    """The sets, scored under the steps by main.py's own evaluation of each."""
    words = ["--phase", "eval", "--output", str(output), "--degrade", *steps]
    words += ["--test_csv", *map(str, args.input)]
    if (output / RUN).exists():
        words.append("--resume")
    parser = main_parser()
    parser.prog = PROGRAM
    own = {name: getattr(args, name) for name in FLAGS}
    request = argparse.Namespace(**{**vars(parser.parse_args(words)), **own})
    app.check(parser, request)
    series.run(request)
    return [read_run(path.parent) for path in sorted(output.glob(f"*/{RUN}"))]


def run_study(args: argparse.Namespace) -> int:
    """The exit status of a study: scores, measures and writes it."""
    output = args.output
    file, args.set = take_network(args.set)
    with superres.standing(file):
        network = superres.current()
        plan = derived(f"superres:2@{network.digest}" if network else ENLARGED)
        runs = score(args, output / "scores", all_steps(plan))
    fakes, reals = sets(runs, all_steps(plan))
    left_out = sum(run.n_unusable for run in runs)
    if left_out:
        say(PROGRAM, f"{left_out:,} scores could not be had; their pictures are left out")
    limit = threshold_logit(runs[0].threshold)
    means = measure(fakes, reals, plan, limit, args.resamples, seed=0)
    title = f"{runs[0].info['config']['detector']}: what pictures go through"
    write_file(output / "study.md", document(means, title))
    write_table(
        output / "study.csv", COLUMNS,
        [[m.form, m.derivation, *pair, auc] for m in means for pair, auc in m.cells.items()],
    )  # fmt: skip
    write_table(
        output / "means.csv", MEANS,
        [[m.form, m.derivation, *m.auc, *m.drop, m.flipped] for m in means],
    )  # fmt: skip
    write_file(output / "study.png", plot(means))
    print(summary(means))
    return 1 if left_out else 0


def in_own_words(args: argparse.Namespace) -> int:
    """`run_study`, whose errors name what this command line has."""
    try:
        return run_study(args)
    except (ConfigError, LayoutError) as error:
        text = str(error)
        for theirs, ours in OWN_WORDS:
            text = text.replace(theirs, ours)
        raise type(error)(text) from error


def parser() -> Parser:
    """The command line; FLAGS are main.py's."""
    status = "0 done; 1 done, but some scores could not be had; 2 wrong usage, weights or data"
    p = new_parser(PROGRAM, __doc__, status, whole=True, parents=[shared(FLAGS)])
    p.add_argument("input", type=Path, nargs="+", metavar="CSV", help="sets of pictures")
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="for all results")
    p.add_argument("--resamples", type=number(int, 10, 10_000), default=200, metavar="N",
                   help="of the bootstrap (%(default)s)")  # fmt: skip
    return p


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    args = parser().parse_args(arguments)
    errors = (ConfigError, LayoutError, OptionError, WeightsError)
    return answer(PROGRAM, lambda: in_own_words(args), errors, goes_on=SAME_COMMAND)


if __name__ == "__main__":
    sys.exit(main())
