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
import shutil
import string
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine import metrics  # noqa: E402
from engine.calibrate import choose_band, cross_fitted, fit_platt, outside  # noqa: E402
from engine.files import write_file  # noqa: E402
from engine.manifest import MANIFEST, PRETRAINED, entry_named  # noqa: E402
from engine.report import percent  # noqa: E402
from engine.table import ScoreRow, read_table  # noqa: E402
from engine.weight_files import read_weights, save_weights, sha256  # noqa: E402

WANTED_ACCURACY = 0.85
RECONSTRUCTION = "tae-flux2-reconstruction"
KINDS = ("val", "extra", "heldout")
SHOWN = (metrics.AUROC, metrics.AP, metrics.TPR_AT_1, metrics.TPR_AT_5)


def read_run(folder: Path) -> tuple[str, list[ScoreRow], str]:
    """Degradation, rows and weights' sha256 of a phase eval output."""
    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return info["degradation"], read_table(folder / "scores.csv"), info["weights"]["sha256"]


def results_table(name: str, runs: Sequence[tuple[str, list[ScoreRow]]]) -> list[str]:
    """Markdown rows: every run's ranking metrics with intervals."""
    lines = []
    for degradation, rows in runs:
        found = metrics.evaluate_rows(rows, threshold=0.5)
        values = " | ".join(percent(found.estimates[metric]) for metric in SHOWN)
        counts = f"{found.n_real} / {found.n_synthetic}"
        lines.append(f"| {name} | {degradation} | {counts} | {values} |")
    return lines


def generators_table(rows: Sequence[ScoreRow], least: int = 10) -> list[str]:
    """Markdown rows: AUROC per generator with at least so many pictures."""
    lines = []
    for (_, generator), members in metrics.cells(rows).items():
        found = metrics.evaluate_rows(members, threshold=0.5)
        if found.n_synthetic >= least:
            auroc = percent(found.estimates[metrics.AUROC])
            lines.append(f"| {generator} | {found.n_synthetic} | {auroc} |")
    return lines


def main() -> int:
    """Writes default.safetensors, default.md and the manifest's checksum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--val", type=Path, nargs="+", required=True)
    parser.add_argument("--heldout", type=Path, nargs="+", required=True)
    parser.add_argument("--extra", type=Path, nargs="*", default=[], help="--val at other sizes")
    parser.add_argument("--note", type=Path, required=True, help="the card's text, with $fields")
    args = parser.parse_args()
    source = args.run / "best.safetensors"
    state, card = read_weights(source)
    runs = {name: [read_run(f) for f in getattr(args, name)] for name in KINDS}
    if card is None or any(sha != sha256(source) for group in runs.values() for *_, sha in group):
        print(f"{source}: expected the weights that the evaluations used", file=sys.stderr)
        return 2

    rows = [row for _, table, _ in runs["val"] for row in table]
    labels, logits = metrics.labels_logits(rows)
    groups = np.unique([row.key for row in rows if not row.error], return_inverse=True)[1]
    platt = fit_platt(labels, logits)
    probabilities = platt(logits)
    band = choose_band(labels, probabilities, WANTED_ACCURACY)
    honest = cross_fitted(labels, logits, groups, WANTED_ACCURACY)
    judged = outside(probabilities, band)

    # The logit is linear in the last layer, and so is the mean over views: fold the scaling in.
    state["fc.weight"] = state["fc.weight"] * platt.slope
    state["fc.bias"] = state["fc.bias"] * platt.slope + platt.offset
    target = PRETRAINED / "default.safetensors"
    save_weights(target, state, replace(card, threshold=0.5, band=band))
    digest = sha256(target)
    before = entry_named("default").sha256
    text = MANIFEST.read_text(encoding="utf-8").replace(str(before), digest)
    write_file(MANIFEST, text)
    shutil.copy(args.val[0] / "generators.png", PRETRAINED / "default_generators.png")

    pairs = {name: [(d, table) for d, table, _ in group] for name, group in runs.items()}
    results = results_table("unseen generators", pairs["val"])
    results += results_table("unseen generators", pairs["extra"])
    results += results_table("held out, seen generators", pairs["heldout"])
    others = [(d, [r for r in t if r.generator != RECONSTRUCTION]) for d, t in pairs["heldout"]]
    results += results_table("the same without reconstructions", others)
    fields = {
        "band": f"{band[0]:.2f} to {band[1]:.2f}",
        "wanted": percent(WANTED_ACCURACY),
        "slope": f"{platt.slope:.3f}",
        "offset": f"{platt.offset:.3f}",
        "accuracy": percent(honest.accuracy),
        "coverage": percent(honest.coverage),
        "accuracy_all": percent(honest.accuracy_without_band),
        "reached": percent(float(((probabilities > 0.5) == (labels == 1))[judged].mean())),
        "results": "\n".join(results),
        "generators": "\n".join(generators_table(pairs["val"][0][1])),
        "degradation": pairs["val"][0][0],
        "crop": str(card.options["crop"]),
        "epoch": str((card.extra or {})["epoch"]),
        "megabytes": f"{target.stat().st_size / 1e6:.1f}",
        "sha256": digest,
    }
    template = string.Template(args.note.read_text(encoding="utf-8"))
    (PRETRAINED / "default.md").write_text(template.substitute(fields), encoding="utf-8")
    print("\n".join(f"{name}: {value}" for name, value in fields.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
