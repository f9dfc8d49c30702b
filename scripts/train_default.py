"""Trains the detector that ships, from a table of pictures; what is done already is kept.

    python scripts/train_default.py MANIFEST.csv --output runs/default

MANIFEST has the columns image, class (1 = synthetic), split (train; others are left alone),
generator, source, and for --licences permissive also permissive (1 or 0). The frozen encoder
computes class tokens of every training picture, distorted at random as phase train does it, once a
pass; the semantic branch's layer is a logistic regression on them. Calibration and the band of
doubt are fitted to logits of pictures whose generator or source took no part in the regression that
gave them: in turn a fifth of the generators and sources is left out whole, for pictures of one
source resemble each other, and a split at random would flatter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import Label, LayoutError, Record  # noqa: E402
from datasets._csv import found_columns, read_csv  # noqa: E402
from datasets._images import PictureDataset  # noqa: E402
from detectors._default_arrays import ENCODER  # noqa: E402
from detectors._default_options import DefaultOptions  # noqa: E402
from detectors._errors import WeightsError  # noqa: E402
from detectors._options import describe_options  # noqa: E402
from detectors.default import Default  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.evaluation.calibration import doubt_band, fit_platt  # noqa: E402
from engine.evaluation.metrics import auroc  # noqa: E402
from engine.runtime.device import open_device  # noqa: E402
from engine.runtime.distributed import World  # noqa: E402
from engine.runtime.files import replacing  # noqa: E402
from engine.runtime.threads import decoders  # noqa: E402
from engine.runtime.workers import Workers  # noqa: E402
from engine.training.encoder_cache import embed  # noqa: E402
from engine.weights import manifest  # noqa: E402
from engine.weights.cards import Card  # noqa: E402
from engine.weights.files import save_weights  # noqa: E402
from engine.weights.loading import load_backbone  # noqa: E402
from scripts._shared import SAME_COMMAND, answer  # noqa: E402

PROGRAM = "train_default.py"
COLUMNS = ("image", "class", "split", "generator", "source")
ALL, PERMISSIVE = "all", "permissive"  # licences, as data/default/README.md has them
FOLDS = 5
STRENGTH = 0.005  # of the evidence against the pull of the weights to zero (C), of 1,000 or 10,000
BATCH = 32
OPTIONS = DefaultOptions(branch="semantic")
FALSE_ALARMS, MISSED = 0.03, 0.05  # shares of the classes that the band's ends aim at
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """The training pictures in the manifest's order, the fold (N,) that leaves each out, and
    whether its licence is permissive (N,), False where nothing says so."""

    records: list[Record]
    folds: NDArray[np.int64]
    permissive: NDArray[np.bool_]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), 1 = synthetic."""
        return np.array([int(record.label or 0) for record in self.records])

    def part(self, chosen: NDArray[np.bool_]) -> Table:
        """The chosen pictures (N,)."""
        records = [record for record, keep in zip(self.records, chosen, strict=True) if keep]
        return Table(records, self.folds[chosen], self.permissive[chosen])


def unit(record: Record) -> str:
    """What is left out as one: a generator, or a source of real pictures."""
    return record.generator if record.label else record.source


def fold_of(name: str) -> int:
    """The fold of a generator or source: by its name alone, so that it stays when others join."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()) % FOLDS


def read_manifest(path: Path) -> Table:
    """The training pictures of a manifest. Raises LayoutError where a column lacks."""
    columns, rows = read_csv(path, "a manifest")
    if missing := [name for name in COLUMNS if name not in columns]:
        found = found_columns(columns)
        raise LayoutError(f"{path}: expected {', '.join(missing)}; found {found}")
    records, permissive = [], []
    for row in rows:
        if row["split"] == "train":
            fake = row["class"] == "1"
            generator, source = (row["generator"], "") if fake else ("", row["source"])
            image = path.parent / row["image"]
            records.append(Record(row["image"], image, Label(fake), source, generator))
            permissive.append(row.get(PERMISSIVE) == "1")
    folds = np.array([fold_of(unit(record)) for record in records], dtype=np.int64)
    return Table(records, folds, np.array(permissive, dtype=bool))


def check(table: Table, source: Path) -> None:
    """Raises LayoutError unless every fold leaves both classes to learn from."""
    for fold in range(FOLDS):
        if len(set(table.labels[table.folds != fold].tolist())) < 2:
            raise LayoutError(f"{source}: expected both classes, of several generators and sources")


def semantic_model() -> Default:
    """The semantic branch with its encoder, which ships. Raises WeightsError without it."""
    encoder = manifest.find(ENCODER)
    if encoder is None:
        raise WeightsError(f"{ENCODER} is not there: python scripts/import_backbone.py {ENCODER}")
    model = Default(OPTIONS)
    load_backbone(model, encoder)
    return model.eval()


def recipe(table: Table) -> str:
    """A digest of what features depend on beside the pass, the pictures' bytes in their order and
    the options, so that features of others are computed anew."""
    digest = hashlib.sha256(json.dumps(describe_options(OPTIONS), sort_keys=True).encode())
    for record in table.records:
        digest.update(hashlib.sha256(record.path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def features(table: Table, folder: Path, number: int, device: str | None) -> Floats:
    """Class tokens (N, blocks * width) of one pass, kept in a file of the folder.

    Raises:
        LayoutError: a picture cannot be read.
    """
    path = folder / f"pass_{number}.npy"
    if not path.exists():
        model = semantic_model()
        opened = open_device(device, "fp32")
        model.to(opened.device)
        assert model.semantic is not None
        # Several times as fast on most processors and GPUs of today; the layer learns from numbers
        # that are off by less than distortions change them.
        model.semantic.encoder.to(torch.bfloat16)
        pictures = PictureDataset(table.records, model.transform(train=True), seed=number)
        found = embed(model, pictures, opened, BATCH, Workers(decoders()), True, World())
        assert found is not None
        for index, error in found.errors.items():
            raise LayoutError(f"{table.records[index].path}: {error}")
        order = [found.rows_of[index] for index in range(len(table.records))]
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, found.values[order].half().numpy())
    return np.load(path).astype(np.float32)


def weights_of(table: Table, chosen: NDArray[np.bool_]) -> Floats:
    """(n,): pictures of a generator or source weigh by 1 / sqrt(their number), so that the large
    ones do not decide alone, and both classes the same."""
    units = [unit(record) for record, keep in zip(table.records, chosen, strict=True) if keep]
    labels, counts = table.labels[chosen], Counter(units)
    weights = np.array([counts[name] ** -0.5 for name in units], dtype=np.float32)
    for label in (0, 1):
        weights[labels == label] *= len(units) / 2 / weights[labels == label].sum()
    return weights


def logistic(x: Floats, labels: NDArray[np.int64], weights: Floats) -> tuple[Floats, float]:
    """Weight (F,) and bias of the logistic regression on standardised features (n, F), for
    features as they are. Deterministic: full batches, by L-BFGS."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    model = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-5)
    model.fit((x - mean) / deviation, labels, sample_weight=weights)
    weight = (model.coef_[0] / deviation).astype(np.float32)
    return weight, float(model.intercept_[0] - (mean * weight).sum())


def out_of_fold(table: Table, passes: Sequence[Floats]) -> Floats:
    """Logits (passes * N,) of every picture by a regression without its generator or source."""
    logits = np.empty((len(passes), len(table.records)), dtype=np.float32)
    for fold in range(FOLDS):
        kept = table.folds != fold
        weight, bias = fit(table, passes, kept)
        for row, values in zip(logits, passes, strict=True):
            row[~kept] = values[~kept] @ weight + bias
    return logits.ravel()


def fit(table: Table, passes: Sequence[Floats], chosen: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Weight (F,) and bias of the layer, by all passes over the chosen pictures."""
    x = np.concatenate([values[chosen] for values in passes])
    labels = np.tile(table.labels[chosen], len(passes))
    return logistic(x, labels, np.tile(weights_of(table, chosen), len(passes)))


def run(args: argparse.Namespace) -> int:
    """Trains, calibrates and writes the weights. Prints what it found on the way."""
    table = read_manifest(args.manifest)
    chosen = table.permissive if args.licences == PERMISSIVE else np.ones(len(table.records), bool)
    check(table.part(chosen), args.manifest)
    # Of all pictures, so that one folder of features serves every choice of them.
    folder = args.output / "features" / recipe(table)
    passes = [features(table, folder, number, args.device)[chosen] for number in range(args.passes)]
    table = table.part(chosen)
    labels = np.tile(table.labels, len(passes))
    logits = out_of_fold(table, passes).astype(np.float64)
    platt = fit_platt(labels, logits)
    band = doubt_band(labels, platt(logits), FALSE_ALARMS, MISSED)
    weight, bias = fit(table, passes, np.ones(len(table.records), dtype=bool))
    state = {
        "semantic.fc.weight": torch.from_numpy(weight * np.float32(platt.slope))[None],
        "semantic.fc.bias": torch.tensor([bias * platt.slope + platt.offset]),
    }
    name = "default" if args.licences == ALL else f"default-{args.licences}"
    path = args.output / f"{name}.safetensors"
    save_weights(path, state, Card("default", describe_options(OPTIONS), 0.5, band))
    print(f"pictures: {len(table.records)}, passes: {len(passes)}")
    print(f"AUROC of left-out generators and sources: {100 * auroc(labels, logits):.1f}")
    print(f"slope {platt.slope:.3f}, offset {platt.offset:.3f}")
    print(f"uncertain: {band[0]:.2f} to {band[1]:.2f}")
    print(path)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = Parser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    p.add_argument("manifest", type=Path, help=f"a CSV with {', '.join(COLUMNS)}")
    p.add_argument("--output", type=Path, required=True, help="a folder; the same one goes on")
    p.add_argument(
        "--passes", type=int, default=4, help="of the encoder over all pictures (%(default)s)"
    )
    p.add_argument(
        "--licences", choices=(ALL, PERMISSIVE), default=ALL,
        help="which pictures to learn from: all, or those of the manifest's column permissive, "
        "into default-permissive.safetensors (%(default)s)",
    )  # fmt: skip
    p.add_argument("--device", help="cpu, cuda, cuda:N (a GPU where there is one)")
    args = p.parse_args(arguments)
    errors = (LayoutError, ConfigError, WeightsError)
    return answer(PROGRAM, lambda: run(args), errors, goes_on=SAME_COMMAND)


if __name__ == "__main__":
    sys.exit(main())
