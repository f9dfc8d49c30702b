"""Calibrates a trained detector, and puts it into pretrained/ with its card and checksum.

    python scripts/ship_default.py runs/default --val runs/val90 runs/val75 \\
        --extra runs/val90_256 --heldout runs/heldout90 runs/heldout75 \\
        --note scripts/default_card.md

RUN is a training output; the others are outputs of phase eval with its weights: on the generators
that training never saw, and on held-out pictures of those it saw. Threshold, slope and band are
fitted on --val; their quality is measured by cross-fitting. --extra are the same pictures cut to
one size, only shown.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from detectors._base import WeightsError  # noqa: E402
from engine import manifest, metrics  # noqa: E402
from engine.calibrate import Platt, choose_band, cross_fitted, fit_platt, outside  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.files import write_file  # noqa: E402
from engine.report import percent  # noqa: E402
from engine.table import ScoreRow, read_table  # noqa: E402
from engine.weight_files import read_weights, save_weights, sha256  # noqa: E402
from scripts._answer import answer  # noqa: E402

PROGRAM, PLOT = "ship_default.py", "generators.png"
WANTED_ACCURACY = 0.85
RECONSTRUCTION = "tae-flux2-reconstruction"
KINDS = ("val", "extra", "heldout")
SHOWN = (metrics.AUROC, metrics.AP, metrics.TPR_AT_1, metrics.TPR_AT_5)


@dataclass(frozen=True)
class Run:
    """One evaluation: its degradation, its score table, and the sha256 of its weights."""

    degradation: str
    rows: Sequence[ScoreRow]
    weights: str


def read_run(folder: Path) -> Run:
    """A phase eval output. Raises ConfigError when it is none, or one of several degradations."""
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        (degradation,) = info["degradations"]
        return Run(degradation, read_table(folder / "scores.csv"), info["weights"]["sha256"])
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder}: expected what phase eval wrote under one degradation; found "
            f"{type(error).__name__}: {error}"
        ) from error


def results_table(name: str, runs: Sequence[Run]) -> list[str]:
    """Markdown rows: every run's ranking metrics with intervals."""
    lines = []
    for run in runs:
        found = metrics.evaluate_rows(run.rows, threshold=0.5)
        values = " | ".join(percent(found.estimates.get(metric)) for metric in SHOWN)
        counts = f"{found.n_real} / {found.n_synthetic}"
        lines.append(f"| {name} | {run.degradation} | {counts} | {values} |")
    return lines


def generators_table(rows: Sequence[ScoreRow], least: int = 10) -> list[str]:
    """Markdown rows: AUROC per generator with at least so many pictures."""
    lines = []
    for (_, generator), members in metrics.cells(rows).items():
        found = metrics.evaluate_rows(members, threshold=0.5)
        if found.n_synthetic >= least:
            auroc = percent(found.estimates.get(metrics.AUROC))
            lines.append(f"| {generator} | {found.n_synthetic} | {auroc} |")
    return lines


def calibrate(rows: Sequence[ScoreRow]) -> tuple[Platt, tuple[float, float], dict[str, str]]:
    """The scaling and the band fitted on scores, and what the card says about them."""
    labels, logits = metrics.labels_logits(rows)
    # A picture under several degradations is never on both sides of a fold.
    groups = np.unique([row.key for row in rows if not row.error], return_inverse=True)[1]
    platt = fit_platt(labels, logits)
    probabilities = platt(logits)
    band = choose_band(labels, probabilities, WANTED_ACCURACY)
    honest = cross_fitted(labels, logits, groups, WANTED_ACCURACY)
    judged = outside(probabilities, band)
    if not judged.any():
        raise ValueError("expected pictures outside the band of doubt; found none")
    return platt, band, {
        "band": f"{band[0]:.2f} to {band[1]:.2f}",
        "wanted": percent(WANTED_ACCURACY),
        "slope": f"{platt.slope:.3f}",
        "offset": f"{platt.offset:.3f}",
        "accuracy": percent(honest.accuracy),
        "coverage": percent(honest.coverage),
        "accuracy_all": percent(honest.accuracy_without_band),
        "reached": percent(float(((probabilities > 0.5) == (labels == 1))[judged].mean())),
    }  # fmt: skip


def results(runs: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """The card's tables."""
    seen = "held out, seen generators"
    without = [
        replace(run, rows=[row for row in run.rows if row.generator != RECONSTRUCTION])
        for run in runs["heldout"]
    ]
    lines = [
        *results_table("unseen generators", [*runs["val"], *runs["extra"]]),
        *results_table(seen, runs["heldout"]),
        *results_table("the same without reconstructions", without),
    ]
    first = runs["val"][0]
    return {
        "results": "\n".join(lines),
        "generators": "\n".join(generators_table(first.rows)),
        "degradation": first.degradation,
    }


def ship(args: argparse.Namespace) -> int:
    """Writes default.safetensors, default.md, the plot, and the manifest's checksum."""
    source = args.run / "best.safetensors"
    state, card = read_weights(source)
    plot = (args.val[0] / PLOT).read_bytes()
    template = string.Template(args.note.read_text(encoding="utf-8"))
    runs = {kind: [read_run(folder) for folder in getattr(args, kind)] for kind in KINDS}
    used = {run.weights for group in runs.values() for run in group}
    if card is None or used != {sha256(source)}:
        raise ConfigError(f"{source}: expected the weights that all of the evaluations used")
    try:
        platt, band, fields = calibrate([row for run in runs["val"] for row in run.rows])
    except ValueError as error:
        raise ConfigError(f"--val: {error}") from error
    fields |= results(runs)
    # The logit is linear in the last layer, and so is the mean over views: fold the scaling in.
    state["fc.weight"] = state["fc.weight"] * platt.slope
    state["fc.bias"] = state["fc.bias"] * platt.slope + platt.offset
    before = str(manifest.entry_named("default").sha256)
    target = manifest.PRETRAINED / "default.safetensors"
    save_weights(target, state, replace(card, threshold=0.5, band=band))
    fields |= {
        "crop": str(card.options["crop"]),
        "epoch": str((card.extra or {})["epoch"]),
        "megabytes": f"{target.stat().st_size / 1e6:.1f}",
        "sha256": sha256(target),
    }
    listing = manifest.MANIFEST.read_text(encoding="utf-8")
    write_file(manifest.MANIFEST, listing.replace(before, fields["sha256"]))
    write_file(manifest.PRETRAINED / f"default_{PLOT}", plot)
    write_file(manifest.PRETRAINED / "default.md", template.substitute(fields))
    print("\n".join(f"{name}: {value}" for name, value in fields.items()))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    p = argparse.ArgumentParser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0])
    p.add_argument("run", type=Path)
    p.add_argument("--val", type=Path, nargs="+", required=True)
    p.add_argument("--heldout", type=Path, nargs="+", required=True)
    p.add_argument("--extra", type=Path, nargs="*", default=[], help="--val at other sizes")
    p.add_argument("--note", type=Path, required=True, help="the card's text, with $fields")
    args = p.parse_args(arguments)
    return answer(PROGRAM, lambda: ship(args), (ConfigError, WeightsError))


if __name__ == "__main__":
    sys.exit(main())
