"""Every recipe of configs/ on a tiny variant of its detector: it learns, and it resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from training import Killed, Parts, at_step, kill, plain, request_of

import detectors
from datasets import Label
from detectors._base import Detector
from engine import config
from engine.config import CONFIGS, Config
from engine.phases import train
from engine.training import loop, outputs
from engine.training.outputs import HISTORY
from engine.weights.files import read_weights
from engine.weights.manifest import BEST

QUICK = ("spai", "cospy_progan_semantic", "cospy_progan_artifact", "cospy_progan_fusion")
# Of those that learn by steps; RINE's dropout is part of its network, and hides a few of them.
ALL = (
    *("classifier", "default", "spai", "ssp", "ssp_baseline"),
    *("cnndetect", "commfor", "dda", "ladeda", "npr", "univfd"),
    *(path.stem for path in sorted(CONFIGS.glob("cospy_*.yaml"))),
)
RECIPES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ALL]
# A rate at which a few steps show; everything else is as the recipe has it.
SHORT: dict[str, Any] = {
    "epochs": 4, "batch_size": 4, "lr": 2e-3, "warmup": 0.0, "report": False, "precision": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "draw_curves", lambda history, best, title: b"")
    monkeypatch.setattr(loop, "_tensorboard", lambda output, epoch: None)


@pytest.fixture(scope="module")
def few(parts: Parts) -> Parts:
    """Two steps of pictures to train on and one to validate by, of both classes alike."""
    train, val = parts
    return (
        [r for label in Label for r in [r for r in train if r.label == label][:4]],
        [r for label in Label for r in [r for r in val if r.label == label][:2]],
    )


def recipe(stem: str, **changes: Any) -> tuple[Config, Detector]:
    """The recipe of a file in configs/ with changes, and the tiny detector that it trains."""
    name = stem if stem in detectors.available() else stem.split("_")[0]
    kind = detectors.load(name)
    own = config.read_yaml(CONFIGS / f"{stem}.yaml")
    tiny: Any = {"size": "tiny"} if name == "cospy" else dataclasses.asdict(kind.tiny())
    if name == "spai":  # one of its four views, which are alike: a step takes a quarter
        tiny |= {"views": 1, "minimum_patches": 1}
        tiny |= {} if changes.get("augment", True) else {"dropout": 0.0}
    layers = [(stem, own), ("tiny", {name: tiny}), ("short", {"train": SHORT | changes})]
    settings = config.resolve(name, layers)
    train.seed_everything(settings.train.seed)
    return settings, kind(settings.options)


def trained(
    stem: str, parts: Parts, output: Path, resume: bool = False, **changes: Any
) -> list[dict[str, float]]:
    settings, model = recipe(stem, **changes)
    return train.train(request_of(settings, parts, output, resume=resume), model)


@pytest.mark.parametrize("stem", RECIPES)
def test_it_learns(stem: str, few: Parts, tmp_path: Path) -> None:
    """Without augmentation and dropout, which a few steps could be lost in."""
    history = trained(stem, few, tmp_path, augment=False, save_every=0)
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("stem", RECIPES)
def test_a_killed_run_resumes_to_the_same_weights(stem: str, few: Parts, tmp_path: Path) -> None:
    short = {"epochs": 2, "save_every": 1, "save_epochs": 0, "publish": False}
    trained(stem, few, tmp_path / "whole", **short)
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 4, kill)
        with pytest.raises(Killed):
            trained(stem, few, tmp_path / "killed", **short)
    trained(stem, few, tmp_path / "killed", resume=True, **short)
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    assert (killed / HISTORY).read_bytes() == (whole / HISTORY).read_bytes()
    assert plain(read_weights(killed / BEST)[0]) == plain(read_weights(whole / BEST)[0])
