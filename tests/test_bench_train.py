"""The plain training steps that the benchmark compares with: the product's losses, written down
another way."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
import torch
from models import randomise

import detectors
from detectors._base import Detector
from scripts import _bench_steps as steps
from scripts._bench_train import Waits

TINY = {
    "ssp": ("ssp", {}),
    "artifact": ("cospy", {"mode": "branch", "branch": "artifact"}),
    "semantic": ("cospy", {"mode": "branch", "branch": "semantic"}),
    "spai": ("spai", {}),
}
CPU = torch.device("cpu")


def tiny(name: str) -> Detector:
    """The tiny variant of a recipe's detector, randomised, in evaluation mode."""
    detector, changes = TINY[name]
    kind: Any = detectors.load(detector)
    options = dataclasses.replace(kind.tiny(), **changes)
    model = kind(options)
    randomise(model)
    return model.eval()


@pytest.mark.parametrize("name", TINY)
def test_plain_step_has_the_loss_and_the_gradients_of_the_product(name: str) -> None:
    model = tiny(name)
    batch = steps.training_batch(model, 3)
    labels = torch.tensor(batch.labels)
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}

    expected = model.loss(batch.values, labels)
    gradients = torch.autograd.grad(expected, list(trained.values()))
    plainly = steps.published(name, model)
    again = dict(plainly.named_parameters())
    found = steps.plain_loss(name, plainly, batch.values, labels)
    same = torch.autograd.grad(found, [again[key] for key in trained])

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for key, ours, theirs in zip(trained, gradients, same, strict=True):
        scale = float(ours.abs().max()) + 1e-6
        assert float((ours - theirs).abs().max()) < 1e-2 * scale, key


@pytest.mark.parametrize("name", TINY)
def test_recipes_are_published_ones(name: str) -> None:
    recipe = steps.RECIPES[name]
    assert recipe.read().detector == TINY[name][0]
    assert recipe.read().train.batch_size == recipe.batch


def test_both_ways_learn() -> None:
    config, model = steps.RECIPES["spai"].read(), tiny("spai")
    batch = steps.training_batch(model, 4)
    for step in (
        steps.plain_way("spai", model, config, batch, CPU),
        steps.product_way(model, config, batch, steps.Device(CPU, "bf16")),
    ):
        losses = [step() for _ in range(8)]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(4, 6), (1, 3)], 4),
        ([(1, 5), (2, 3)], 4),
        ([(1, 3), (2, 6), (6, 7)], 6),
    ],
)
def test_time_that_kernels_share_counts_once(
    spans: list[tuple[float, float]], length: float
) -> None:
    assert steps.covered(spans) == length


def test_share_of_waiting_is_read_from_the_log() -> None:
    waits = Waits()
    log = logging.Logger("training")
    log.addHandler(waits)
    log.info("%s: %.0f s, %.0f %% of them waiting for pictures", "epoch 1/2", 8.0, 12.5)
    log.info("resumed at step %d", 3)
    assert waits.percent == [12.5]
