"""Puts a trained detector into pretrained/ with its card, its checksum and its plot.

    python scripts/ship_default.py runs/default/default.safetensors --val runs/val \\
        --manifest data/default/manifest.csv --rival "the detector before=before.csv" \\
        --derived runs/derived \\
        --permissive runs/permissive/default.safetensors runs/val_permissive \\
        --note scripts/default_card.md

WEIGHTS is what `scripts/train_default.py` wrote, calibrated and with its band of doubt; --val is an
output of phase eval with these weights, on pictures whose generators and sources no step of the
training saw, as they are and under degradations. Nothing is fitted here: the card says what was
measured. --derived is another such output, of a part of the pictures under what pictures go
through. --rival are scores of other detectors on the same pictures. --permissive is a training on
permissively licensed pictures alone; it ships too, if its AUROC is less than 0.02 lower.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from datasets import LayoutError  # noqa: E402
from datasets._csv import read_csv  # noqa: E402
from detectors._errors import WeightsError  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.evaluation import estimates  # noqa: E402
from engine.reporting.tables import percent  # noqa: E402
from engine.runtime.files import write_file  # noqa: E402
from engine.scoring.degradations import NONE  # noqa: E402
from engine.scoring.table import ScoreRow, read_table  # noqa: E402
from engine.scoring.verdict_rule import VerdictRule  # noqa: E402
from engine.weights import manifest  # noqa: E402
from engine.weights.cards import sha256  # noqa: E402
from engine.weights.files import read_weights  # noqa: E402
from scripts import _card  # noqa: E402
from scripts._shared import answer, new_parser  # noqa: E402

PROGRAM, PLOT = "ship_default.py", "generators.png"
FEWEST_FAKE, FEWEST_REAL = 30, 40  # pictures of a generator and of a source that get a row
PERMISSIVE, MOST_LOST = "default-permissive", 0.02  # AUROC that its weights may lose
ENTRY = """{name}:
  title: the detector that ships, trained on permissively licensed pictures alone
  file: {name}.safetensors
  ships: true
  licence: Apache-2.0, see pretrained/default.md
  format: safetensors
  sha256: {sha256}
"""


def evaluated(name: str, weights: Path, folder: Path) -> tuple[_card.Results, VerdictRule]:
    """A phase eval output with its verdicts, and the rule of the weights that it is of.

    Raises:
        ConfigError: the folder is none, is of other weights, or has too few degradations.
    """
    card = read_weights(weights)[1]
    try:
        used = json.loads((folder / "run.json").read_text(encoding="utf-8"))["weights"]["sha256"]
        rows = read_table(folder / "scores.csv")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{folder}: expected what phase eval wrote; found {type(error).__name__}: {error}"
        ) from error
    if card is None or card.band is None or used != sha256(weights):
        raise ConfigError(f"{weights}: expected the weights that {folder} used, with a band")
    rule = VerdictRule(card.threshold, card.band)
    detector = _card.judged(name, rows, lambda score: str(rule.label(score)))
    if detector.clean != NONE or len(detector.runs) < 2:
        raise ConfigError(f"{folder}: expected --degrade {NONE} and others; found {detector.clean}")
    return detector, rule


def kinds(path: Path) -> dict[str, str]:
    """Name of a picture's file -> what it shows. Raises LayoutError without such columns."""
    columns, rows = read_csv(path, "a manifest")
    if missing := {"image", "kind"} - set(columns):
        raise LayoutError(f"{path}: expected columns {', '.join(sorted(missing))}")
    return {Path(row["image"]).name: row["kind"] for row in rows}


def tables(
    detector: _card.Results, others: list[_card.Results], shows: dict[str, str], tier: str
) -> dict[str, str]:
    """The tables of the card, by its fields."""

    def kind(row: ScoreRow) -> str:
        return shows.get(Path(row.key).name) or "not sorted"

    lines = {
        "results": _card.results_table([detector, *others]),
        "verdicts": _card.verdict_table(detector),
        "generators": _card.group_table(
            detector, tier, 1, FEWEST_FAKE, lambda row: row.generator
        ),
        "sources": _card.group_table(detector, tier, 0, FEWEST_REAL, lambda row: row.source),
        "kinds": _card.group_table(detector, tier, 0, _card.FEWEST, kind),
        "alarms": _card.alarm_table([detector, *others], kind),
        "flips": _card.flip_table([detector, *others]),
    }  # fmt: skip
    return {name: "\n".join(table) for name, table in lines.items()}


def derived_table(derived: _card.Results) -> list[str]:
    """Ranking, verdicts and their flips under each degradation, the worst AUROC first."""
    rows = []
    flips = {cells[0]: cells[1:] for cells in _card.flipped(derived, derived.clean)}
    for tier, pictures in derived.runs.items():
        ranks = _card.ranking(pictures)
        shares = [
            _card.called(_card.of_class(pictures, label), _card.SYNTHETIC) for label in (0, 1)
        ]
        shown = [ranks[estimates.AUROC], ranks[estimates.TPR_AT_5], *shares]
        cells = [tier, *map(percent, shown), *flips.get(tier, ("", ""))]
        rows.append((ranks[estimates.AUROC].value, _card.line(cells)))
    return [text for _, text in sorted(rows)]


def auroc(detector: _card.Results, tier: str) -> float:
    """The AUROC of all pictures."""
    return _card.ranking(detector.runs[tier])[estimates.AUROC].value


def put(name: str, weights: Path) -> None:
    """Copies weights into pretrained/, and their sum into its manifest."""
    listing = manifest.MANIFEST.read_text(encoding="utf-8")
    entry = manifest.read_manifest().get(name)
    if entry is None:
        listing += ENTRY.format(name=name, sha256=sha256(weights))
    else:
        listing = listing.replace(str(entry.sha256), sha256(weights))
    write_file(manifest.PRETRAINED / f"{name}.safetensors", weights.read_bytes())
    write_file(manifest.MANIFEST, listing)


def ship(args: argparse.Namespace) -> int:
    """Writes default.safetensors, default.md, the plot, and the manifest's checksum."""
    detector, rule = evaluated("this detector", args.weights, args.val)
    assert rule.band is not None
    tier = list(detector.runs)[1]
    others, weights = [], {"default": args.weights}
    permissive = "Nobody trained it on permissively licensed pictures alone."
    if args.permissive:
        trained, run = map(Path, args.permissive)
        others.append(evaluated("on permissively licensed pictures alone", trained, run)[0])
        lost = auroc(detector, tier) - auroc(others[0], tier)
        permissive = f"Trained on them alone, it loses {100 * lost:.1f} points of AUROC at {tier}"
        if lost < MOST_LOST:
            weights[PERMISSIVE] = trained
            permissive += f"; these weights ship too: `--weights {PERMISSIVE}`."
        else:
            permissive += ", too many to ship these weights."
    for name, _, path in (text.partition("=") for text in args.rival):
        others.append(_card.read_rival(name, Path(path), detector))
    derived = evaluated("this detector", args.weights, args.derived)[0]
    fields = tables(detector, others, kinds(args.manifest), tier) | {
        "derived": "\n".join(derived_table(derived)),
        "derived_pictures": str(len(derived.runs[derived.clean])),
        "degradation": tier,
        "permissive": permissive,
        "band": f"{rule.band[0]:.2f} to {rule.band[1]:.2f}",
        "kilobytes": f"{args.weights.stat().st_size / 1e3:.0f}",
        "sha256": sha256(args.weights),
    }
    text = string.Template(args.note.read_text(encoding="utf-8")).substitute(fields)
    for name, path in weights.items():
        put(name, path)
    write_file(manifest.PRETRAINED / f"default_{PLOT}", (args.val / PLOT).read_bytes())
    write_file(manifest.PRETRAINED / "default.md", text)
    print("\n".join(f"{name}: {value}" for name, value in fields.items()))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    p = new_parser(PROGRAM, __doc__)
    p.add_argument("weights", type=Path, help="what train_default.py wrote")
    p.add_argument("--val", type=Path, required=True,
                   help="an output of phase eval with them, with --degrade none and others; the "
                   "second is the one that verdicts are shown of")  # fmt: skip
    p.add_argument("--derived", type=Path, required=True,
                   help="one of a part of the pictures, with --degrade none and what pictures go "
                   "through")  # fmt: skip
    p.add_argument("--manifest", type=Path, required=True, help="a CSV with image, kind")
    p.add_argument("--rival", action="append", default=[], metavar="NAME=SCORES.csv",
                   help="another detector's scores of the same pictures, under the same "
                   "degradations or some of them: a CSV with key, degradation, score, perhaps "
                   "verdict; may be repeated")  # fmt: skip
    p.add_argument("--permissive", nargs=2, metavar=("WEIGHTS", "RUN"),
                   help="weights of train_default.py --licences permissive, and their "
                   "evaluation")  # fmt: skip
    p.add_argument("--note", type=Path, required=True, help="the card's text, with $fields")
    args = p.parse_args(arguments)
    return answer(PROGRAM, lambda: ship(args), (ConfigError, LayoutError, WeightsError))


if __name__ == "__main__":
    sys.exit(main())
