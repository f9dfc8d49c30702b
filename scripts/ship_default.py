"""Puts a trained detector into pretrained/ with its card, its checksum and its plot.

    python scripts/ship_default.py runs/default/default.safetensors --val runs/val \\
        --manifest pictures/manifest.csv --rival "the detector before" runs/val_before \\
        --note scripts/default_card.md

WEIGHTS is what `scripts/train_default.py` wrote, calibrated and with its band of doubt; --val is an
output of phase eval with these weights, on pictures whose generators and sources no step of the
training saw. Nothing is fitted here: the card says what was measured. --rival are outputs of other
detectors on the same pictures. The manifest's column `kind` says what the real pictures show.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from datasets import LayoutError  # noqa: E402
from datasets._csv import read_csv  # noqa: E402
from detectors._base import WeightsError  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.evaluation import (  # noqa: E402
    clusters,
    estimates,
    metrics,
)
from engine.reporting.tables import percent  # noqa: E402
from engine.runtime.files import write_file  # noqa: E402
from engine.scoring.table import ScoreRow, read_table  # noqa: E402
from engine.weights import manifest  # noqa: E402
from engine.weights.files import read_weights, sha256  # noqa: E402
from scripts._shared import answer  # noqa: E402

PROGRAM, PLOT = "ship_default.py", "generators.png"
SHOWN = (estimates.AUROC, estimates.AP, estimates.TPR_AT_1, estimates.TPR_AT_5)
RESAMPLES, SEED = 1000, 0
FEWEST_FAKE, FEWEST_REAL = 30, 40  # pictures of a generator and of a source that get a row
Rows = Sequence[ScoreRow]


@dataclass(frozen=True)
class Verdicts:
    """Shares of pictures by verdict."""

    pictures: int
    synthetic: float
    uncertain: float
    real: float

    @classmethod
    def of(cls, rows: Rows, band: tuple[float, float]) -> Verdicts:
        """What the band says of rows that have a score."""
        scores = [row.score for row in rows if row.score is not None]
        above = sum(score > band[1] for score in scores) / len(scores)
        below = sum(score < band[0] for score in scores) / len(scores)
        return cls(len(scores), above, 1 - above - below, below)

    def cells(self) -> str:
        """Columns of a Markdown table."""
        shares = (self.synthetic, self.uncertain, self.real)
        return " | ".join([str(self.pictures), *(percent(share) for share in shares)])


def read_run(folder: Path) -> tuple[dict[str, list[ScoreRow]], str]:
    """Rows of a phase eval output by degradation, and the sha256 of its weights.

    Raises:
        ConfigError: the folder is none.
    """
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        rows: defaultdict[str, list[ScoreRow]] = defaultdict(list)
        for row in read_table(folder / "scores.csv"):
            rows[row.degradation].append(row)
        return dict(rows), info["weights"]["sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder}: expected what phase eval wrote; found {type(error).__name__}: {error}"
        ) from error


def kinds(path: Path) -> dict[str, str]:
    """Name of a picture's file -> what it shows. Raises LayoutError without such columns."""
    columns, rows = read_csv(path, "a manifest")
    if missing := {"image", "kind"} - set(columns):
        raise LayoutError(f"{path}: expected columns {', '.join(sorted(missing))}")
    return {Path(row["image"]).name: row["kind"] for row in rows}


def results_table(name: str, runs: Mapping[str, Rows]) -> list[str]:
    """A row for each degradation: ranking of all pictures, with intervals over generators and
    sources, drawn whole."""
    lines = []
    for degradation, rows in runs.items():
        found = metrics.evaluate_rows(rows, 0.5, RESAMPLES, SEED)
        intervals = clusters.intervals(rows, found, 0.5, RESAMPLES, SEED) or found.estimates
        shown = " | ".join(percent(intervals.get(metric)) for metric in SHOWN)
        lines.append(f"| {name} | {degradation} | {found.n_real} / {found.n_synthetic} | {shown} |")
    return lines


def by(
    rows: Iterable[ScoreRow], label: int, key: Mapping[str, str] | None = None
) -> dict[str, list[ScoreRow]]:
    """Rows of a class by generator or source, or by what `key` says of their file's name."""
    groups: defaultdict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        if row.label == label and row.score is not None:
            name = row.generator if label else row.source
            groups[name if key is None else key.get(Path(row.key).name, "")].append(row)
    return dict(sorted(groups.items()))


def group_table(rows: Rows, label: int, least: int, band: tuple[float, float]) -> list[str]:
    """AUROC of each generator against all real pictures, or of each source against all synthetic
    ones, and its verdicts, the worst first."""
    others = [row for row in rows if row.label == 1 - label]
    lines = []
    for name, members in by(rows, label).items():
        if len(members) >= least:
            found = metrics.evaluate_rows([*members, *others], 0.5, RESAMPLES, SEED)
            auroc = found.estimates[estimates.AUROC]
            shares = Verdicts.of(members, band).cells()
            lines.append((auroc.value, f"| {name} | {shares} | {percent(auroc)} |"))
    return [line for _, line in sorted(lines)]


def verdict_table(rows: Rows, band: tuple[float, float], kind: Mapping[str, str]) -> list[str]:
    """Verdicts on all generated pictures, all real ones, and the real ones by kind."""
    groups = {"generated": [row for row in rows if row.label == 1 and row.score is not None]}
    groups["real"] = [row for row in rows if row.label == 0 and row.score is not None]
    groups |= {f"real: {name or 'not sorted'}": some for name, some in by(rows, 0, kind).items()}
    return [f"| {name} | {Verdicts.of(some, band).cells()} |" for name, some in groups.items()]


def ship(args: argparse.Namespace) -> int:
    """Writes default.safetensors, default.md, the plot, and the manifest's checksum."""
    card = read_weights(args.weights)[1]
    runs, used = read_run(args.val)
    if card is None or card.band is None or used != sha256(args.weights):
        raise ConfigError(f"{args.weights}: expected the weights that {args.val} used, with a band")
    band = card.band
    shows = kinds(args.manifest)
    first = next(iter(runs))
    results = results_table("this detector", runs)
    for name, folder in args.rival:
        results += results_table(name, read_run(Path(folder))[0])
    template = string.Template(args.note.read_text(encoding="utf-8"))
    target = manifest.PRETRAINED / "default.safetensors"
    fields = {
        "results": "\n".join(results),
        "generators": "\n".join(group_table(runs[first], 1, FEWEST_FAKE, band)),
        "sources": "\n".join(group_table(runs[first], 0, FEWEST_REAL, band)),
        "verdicts": "\n".join(verdict_table(runs[first], band, shows)),
        "degradation": first,
        "band": f"{band[0]:.2f} to {band[1]:.2f}",
        "kilobytes": f"{args.weights.stat().st_size / 1e3:.0f}",
        "sha256": sha256(args.weights),
    }
    text = template.substitute(fields)
    before = str(manifest.entry_named("default").sha256)
    listing = manifest.MANIFEST.read_text(encoding="utf-8")
    write_file(target, args.weights.read_bytes())
    write_file(manifest.MANIFEST, listing.replace(before, fields["sha256"]))
    write_file(manifest.PRETRAINED / f"default_{PLOT}", (args.val / PLOT).read_bytes())
    write_file(manifest.PRETRAINED / "default.md", text)
    print("\n".join(f"{name}: {value}" for name, value in fields.items()))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    p = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0])
    p.add_argument("weights", type=Path, help="what train_default.py wrote")
    p.add_argument("--val", type=Path, required=True, help="an output of phase eval with them")
    p.add_argument("--manifest", type=Path, required=True, help="a CSV with image, kind")
    p.add_argument(
        "--rival", nargs=2, action="append", default=[], metavar=("NAME", "RUN"),
        help="another detector's output on the same pictures; may be repeated",
    )  # fmt: skip
    p.add_argument("--note", type=Path, required=True, help="the card's text, with $fields")
    args = p.parse_args(arguments)
    return answer(PROGRAM, lambda: ship(args), (ConfigError, LayoutError, WeightsError))


if __name__ == "__main__":
    sys.exit(main())
