"""Learning rates of the published recipes, and the order in which an epoch takes its pictures."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from datasets import Label, Record
from detectors._spai_options import SpaiOptions
from detectors.spai import Spai
from engine.config import CONFIGS, ConfigError, TrainOptions, read_yaml, resolve
from engine.training.schedule import check_learns, epoch_order, lr_at, steps_per_epoch
from engine.training.step import decays, make_optimizer

STEPS = 7


def rates(options: TrainOptions) -> list[float]:
    return [lr_at(options, step, STEPS) for step in range(options.epochs * STEPS)]


def per_epoch(options: TrainOptions) -> list[float]:
    """The rate of each epoch, which must not change within it."""
    found = rates(options)
    epochs = [found[i : i + STEPS] for i in range(0, len(found), STEPS)]
    assert all(len(set(epoch)) == 1 for epoch in epochs)
    return [epoch[0] for epoch in epochs]


def test_step_schedule_is_cospys() -> None:
    """Times 0.9 after each epoch whose 0-based index is a non-zero multiple of 10."""
    found = per_epoch(TrainOptions(schedule="step", epochs=33, lr=1e-4))
    expected = [1e-4] * 11 + [0.9e-4] * 10 + [0.81e-4] * 10 + [0.729e-4] * 2
    assert found == pytest.approx(expected, rel=1e-12)


def test_polynomial_schedule_is_ssps() -> None:
    """lr * (1 - epoch / epochs) ** 0.9 with epochs counted from 1."""
    found = per_epoch(TrainOptions(schedule="polynomial", epochs=30, lr=1e-4))
    assert found == pytest.approx([1e-4 * (1 - e / 30) ** 0.9 for e in range(1, 31)], rel=1e-12)
    assert found[0] == pytest.approx(9.6995e-5, rel=1e-4)
    assert found[-1] == 0


def test_cosine_schedule_is_cospys() -> None:
    """Per step, from lr to lr / epochs over all steps."""
    options = TrainOptions(schedule="cosine", epochs=20, lr=1e-4, final_lr=1 / 20)
    found, total = rates(options), 20 * STEPS
    low = 1e-4 / 20
    expected = [low + (1e-4 - low) * (1 + math.cos(math.pi * s / total)) / 2 for s in range(total)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[0] == 1e-4
    assert found[total // 2] == pytest.approx((1e-4 + low) / 2)
    assert low < found[-1] < 1.01 * low


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_warmup_rises_to_the_full_rate(schedule: str) -> None:
    found = rates(TrainOptions(schedule=schedule, epochs=4, lr=1.0, warmup=1.0))
    rising = found[: STEPS + 1]
    assert rising == pytest.approx([(step + 1) / (STEPS + 1) for step in range(STEPS)] + [1.0])
    assert found[STEPS:] == sorted(found[STEPS:], reverse=True)
    assert (found[-1] < 0.05) == (schedule == "cosine")


def recorded(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "tests" / "golden" / name).read_text())


def test_spais_optimizer_is_the_published_one() -> None:
    """Its groups, without the frozen ViT that the published one holds too, and their rates."""
    path = CONFIGS / "spai.yaml"
    options = resolve("spai", [(str(path), read_yaml(path))]).train
    golden = recorded("spai_optimizer.json")
    with torch.device("meta"):
        model = Spai(SpaiOptions())
    optimizer = make_optimizer(model, options)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["eps"] == 1e-8
    shapes = recorded("state_dict_keys.json")['spai spai.pth["model"]']
    learned = [k for k in shapes if not k.startswith("mfvit.vit.") and "frequencies" not in k]
    vectors = [k for k in learned if len(shapes[k]) == 1 or k.endswith("bias")]
    groups = {group["weight_decay"]: group for group in optimizer.param_groups}
    counts = {decay: len(group["params"]) for decay, group in groups.items()}
    expected = {group["weight_decay"]: group["lr_scale"] for group in golden["groups"]}
    for group in golden["groups"]:
        decayed = group["weight_decay"] > 0
        names = [
            key
            for key, shape in shapes.items()
            if decays(key, torch.empty(shape, device="meta")) == decayed
            and not key.endswith("frequencies_mask")
        ]
        ends = (group["params"], group["first"], group["last"])
        assert (len(names), names[0], names[-1]) == ends
    assert counts == {0.05: len(learned) - len(vectors), 0.0: len(vectors)}
    assert {decay: group["scale"] for decay, group in groups.items()} == expected
    assert options.betas == (0.9, 0.999)
    for step, [rate, _] in golden["lr_after_step_update"].items():
        found = lr_at(options, int(step), golden["steps_per_epoch"])
        assert found == pytest.approx(rate, rel=1e-6)
    assert (options.epochs, options.batch_size, options.seed, options.select) == (35, 72, 0, "loss")


def test_ssps_recipe_is_the_published_one() -> None:
    path = CONFIGS / "ssp.yaml"
    options = resolve("ssp", [(str(path), read_yaml(path))]).train
    assert (options.optimizer, options.lr, options.weight_decay) == ("adam", 1e-4, 0)
    assert (options.epochs, options.batch_size, options.seed) == (30, 64, 42)
    assert (options.schedule, options.select, options.drop_last) == (
        "polynomial",
        "accuracy",
        False,
    )


def test_a_recipe_that_would_not_learn_is_refused() -> None:
    ssp = resolve("ssp", [("", read_yaml(CONFIGS / "ssp.yaml"))]).train
    with pytest.raises(ConfigError, match="--epochs 1: give --epochs 2"):
        check_learns(replace(ssp, epochs=1), RECORDS)
    check_learns(replace(ssp, epochs=2), RECORDS)
    # All of it warm-up that starts from 0, in one step.
    warming = TrainOptions(epochs=1, schedule="warm_cosine", warmup=5.0, batch_size=len(RECORDS))
    with pytest.raises(ConfigError, match="--epochs 2 or more"):
        check_learns(warming, RECORDS)
    check_learns(replace(warming, batch_size=10), RECORDS)
    with pytest.raises(ConfigError, match="all of them frozen"):
        make_optimizer(torch.nn.Linear(2, 1).requires_grad_(False), TrainOptions())


def test_constant_schedule() -> None:
    assert set(rates(TrainOptions(schedule="constant", epochs=3, lr=0.5))) == {0.5}


# --- the order of an epoch


def pictures_of(generator: str, count: int) -> list[Record]:
    label = Label.FAKE if generator else Label.REAL
    keys = [f"{generator or 'real'}/{i}.png" for i in range(count)]
    return [Record(key, Path(key), label, "", generator) for key in keys]


RECORDS = pictures_of("", 60) + pictures_of("often", 27) + pictures_of("seldom", 3)


def drawn(balance: float, epochs: int) -> Counter[str]:
    """How often an epoch takes each generator, on average."""
    options = TrainOptions(balance=balance, seed=1)
    found: Counter[str] = Counter()
    for epoch in range(epochs):
        order = epoch_order(RECORDS, options, epoch)
        assert len(order) == len(RECORDS)
        labels = Counter(int(RECORDS[i].label or 0) for i in order)
        assert labels == {0: 45, 1: 45}, "half of each class, exactly"
        found.update(RECORDS[i].generator or "real" for i in order)
    return Counter({name: round(count / epochs) for name, count in found.items()})


def test_without_balance_each_picture_is_taken_once() -> None:
    order = epoch_order(RECORDS, TrainOptions(), 0)
    assert sorted(order) == list(range(len(RECORDS)))
    assert order != sorted(order)


@pytest.mark.parametrize("balance", [None, 0.5])
def test_order_depends_on_seed_and_epoch(balance: float | None) -> None:
    first = epoch_order(RECORDS, TrainOptions(seed=1, balance=balance), 0)
    assert epoch_order(RECORDS, TrainOptions(seed=1, balance=balance), 0) == first
    assert epoch_order(RECORDS, TrainOptions(seed=1, balance=balance), 1) != first
    assert epoch_order(RECORDS, TrainOptions(seed=2, balance=balance), 0) != first


def test_balance_0_takes_all_generators_alike() -> None:
    found = drawn(0.0, epochs=200)
    assert found["often"] == pytest.approx(22.5, abs=1)
    assert found["seldom"] == pytest.approx(22.5, abs=1)


def test_balance_1_takes_generators_by_size() -> None:
    found = drawn(1.0, epochs=200)
    assert found["often"] == pytest.approx(45 * 27 / 30, abs=1)
    assert found["seldom"] == pytest.approx(45 * 3 / 30, abs=1)


def test_balance_between_is_between() -> None:
    found = drawn(0.5, epochs=200)
    share = math.sqrt(3) / (math.sqrt(3) + math.sqrt(27))
    assert found["seldom"] == pytest.approx(45 * share, abs=1)


@pytest.mark.parametrize(
    ("batch_size", "balance", "steps"),
    [(1, None, 90), (32, None, 2), (90, None, 1), (91, None, 1), (1000, 0.5, 1), (45, 0.5, 2)],
)
def test_steps_are_whole_batches(batch_size: int, balance: float | None, steps: int) -> None:
    options = TrainOptions(batch_size=batch_size, balance=balance)
    assert steps_per_epoch(RECORDS, options) == steps
    assert len(epoch_order(RECORDS, options, 0)) >= min(steps * batch_size, len(RECORDS))
