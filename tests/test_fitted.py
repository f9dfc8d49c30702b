"""Detectors that are fitted at once to features: what `fit` finds, and phase train with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cli_runner import Cli
from cli_runner import plain_cli as cli
from conftest import make_tree
from models import backbone_files, tiny

import detectors
from detectors._errors import OptionError
from detectors._fewshot_options import FewShotOptions
from detectors.fewshot import FewShot, left_out
from engine.weights.files import read_weights

__all__ = ["cli"]  # a fixture
TINY = FewShotOptions(blocks=2, size="tiny")
WIDTH = 2 * 64
KEYS = ("size", "blocks", "method")  # options that a training is told; fitting finds the others
FITTED = [name for name in detectors.available() if detectors.load(name).FITTED]


def clusters(count: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Features of two sources and three generators, `count` of each, around a centre each: the
    first feature tells the classes apart, the others the groups."""
    rng = np.random.default_rng(0)
    rows, labels, groups = [], [], []
    for number, name in enumerate(("camera", "web", "gan", "diffusion", "flow")):
        label = int(number > 1)
        middle = np.r_[3.0 * label, np.eye(5)[number] * 4]
        rows.append(middle + rng.normal(0, 1, (count, 6)))
        labels += [label] * count
        groups += [name] * count
    features = torch.tensor(np.concatenate(rows)).float()
    # As wide as what the tiny encoder gives; the rest says nothing.
    return F.pad(features, (0, WIDTH - 6)), torch.tensor(labels), groups


def fitted(features: torch.Tensor, labels: torch.Tensor, groups: list[str]) -> FewShot:
    options, state = FewShot.fit(features, labels, groups, TINY)
    model = FewShot(options).eval()
    own = {k: v for k, v in model.state_dict().items() if k.startswith("encoder.")}
    model.load_state_dict(own | state)
    return model


def test_prototypes_of_five_examples_tell_the_classes_apart() -> None:
    features, labels, groups = clusters(5)
    model = fitted(features, labels, groups)
    assert (model.options.real, model.options.fake) == (2, 3)
    seen, wanted, _ = clusters(200)
    with torch.inference_mode():
        right = (model.classify(seen) > 0) == (wanted == 1)
    assert right.float().mean() > 0.9


def test_the_order_of_examples_does_not_matter() -> None:
    features, labels, groups = clusters(4)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    _, first = FewShot.fit(features, labels, groups, TINY)
    names = [groups[i] for i in order.tolist()]
    _, second = FewShot.fit(features[order], labels[order], names, TINY)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-5, atol=1e-6)


def test_an_example_is_left_out_of_its_own_prototype() -> None:
    unit = torch.eye(4)[:3]
    sums = torch.stack([unit[0] + unit[1], unit[2]])
    cosines = left_out(unit, sums, torch.tensor([0, 0, 1]))
    assert cosines[0, 0] == cosines[1, 0] == 0, "orthogonal to what is left"
    assert torch.isneginf(cosines[2, 1]), "nothing is left"
    assert cosines[0, 1] == 0


def test_examples_that_say_nothing_are_refused() -> None:
    features, labels, groups = clusters(5)
    with pytest.raises(OptionError, match="one class"):
        FewShot.fit(features[labels == 1], labels[labels == 1], groups[10:], FewShotOptions())
    with pytest.raises(OptionError, match="learns by gradient"):
        detectors.load("ssp").fit(features, labels, groups, None)


@pytest.mark.parametrize("name", FITTED)
def test_phase_train_fits_and_the_weights_score(name: str, tmp_path: Path, cli: Cli) -> None:
    """By the card alone; the same again with --resume; refused with a flag of training by steps."""
    tree, output = make_tree(tmp_path / "tree", count=5, size=(48, 48)), tmp_path / "out"
    model = tiny(name)
    encoder = ("--backbone_weights", *backbone_files(model, tmp_path))
    sets = [f"{name}.{key}={value}" for key, value in vars(model.options).items() if key in KEYS]
    train = (
        *("--phase", "train", "--detector", name, "--data", tree, "--output", output, *encoder),
        *(word for text in sets for word in ("--set", text)),
        *("--set", "score.resamples=20"),
    )
    done = cli(*train)
    assert done.status == 0, done.err
    best = output / "best.safetensors"
    assert "AUROC" in done.out and str(best) in done.out
    state, card = read_weights(best)
    assert card is not None and card.detector == name
    assert not any(key.startswith("encoder.") for key in state)
    assert card.extra is not None and card.extra["trained_on"] == ["diffusion", "gan"]
    assert json.loads((output / "run.json").read_text())["split"]
    assert (output / "validation" / "report.html").is_file()
    scored = cli("--weights", best, *encoder, "--input", tree, "--json")
    assert scored.status == 0, scored.err
    assert len({row["score"] for row in scored.rows}) > len(scored.rows) // 2
    before = best.read_bytes()
    assert cli(*train, "--resume").status == 0
    assert best.read_bytes() == before
    assert "--epochs" in cli(*train, "--overwrite", "--epochs", 2).complaint
    for slip in ("train.degrade=flip", "train.lr=0.1", "train.balance=0"):
        complaint = cli(*train, "--overwrite", "--set", slip).complaint
        assert slip.split("=")[0] in complaint and "train.seed" in complaint
    assert best.read_bytes() == before
