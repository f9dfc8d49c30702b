"""The training loop: what it learns from, what it leaves behind, and the parts of a recipe."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tree, read_csv
from models import Toy, ToyOptions, backbone_files
from torch import Tensor, nn
from training import STEPS, Killed, Parts, at_step, config_of, kill, plain, request_of, result, run

import detectors
from datasets import Record, folder
from datasets._splits import hold_out
from detectors._base import Detector
from detectors._cospy_options import CoSpyOptions
from engine import config
from engine.config import Config, ConfigError, TrainOptions
from engine.phases import train
from engine.runtime.device import Device
from engine.runtime.run_folder import LOCK, RUN
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.torch_backend import TorchBackend
from engine.scoring.trained_on import TRAINED_ON
from engine.training.checkpoint import Averaged, read_checkpoint, save_checkpoint
from engine.training.loop import Trainer
from engine.training.outputs import BAD_FILES, CHECKPOINT, CURVES, FINAL, HISTORY, LOG, VALIDATED
from engine.training.schedule import lr_at
from engine.training.step import make_optimizer, parameter_groups
from engine.training.validation import Validation
from engine.weights.files import read_weights
from engine.weights.loading import build, open_weights
from engine.weights.manifest import BEST

CPU = torch.device("cpu")


# --- unreadable pictures and losses


@pytest.fixture
def broken(tmp_path: Path) -> tuple[list[Record], list[Record]]:
    """As `parts`, but two training pictures cannot be read."""
    parts = hold_out(folder.records(make_tree(tmp_path / "tree")), 0.25)
    parts[0][0].path.write_bytes(b"")
    parts[0][9].path.write_text("no picture", encoding="utf-8")
    return parts


class Counting(Toy):
    """Notes the labels of every loss."""

    seen: list[list[float]]

    def loss(self, batch: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(labels.tolist())
        assert len(batch) == len(labels)
        return super().loss(batch, labels)


def test_unreadable_pictures_are_listed_and_not_replaced(broken: Parts, tmp_path: Path) -> None:
    Counting.seen = []
    output = tmp_path / "run"
    run(
        output, broken, kind=Counting, balance=None, batch_size=17, label_smoothing=0.0, max_bad=1.0
    )
    labels = sorted(float(r.label or 0) for i, r in enumerate(broken[0]) if i not in (0, 9))
    assert [sorted(seen) for seen in Counting.seen] == [labels, labels]
    assert read_csv(output / BAD_FILES) == [
        {"key": broken[0][0].key, "error": "the file is empty"},
        {"key": broken[0][9].key, "error": "not a picture in any known format"},
    ]


def test_a_batch_of_unreadable_pictures_is_a_step_without_loss(
    broken: Parts, tmp_path: Path
) -> None:
    Counting.seen = []
    history = run(tmp_path / "run", broken, kind=Counting, balance=None, batch_size=1, max_bad=1.0)
    assert len(Counting.seen) == 2 * (17 - 2)
    assert len(history) == 2


def test_bad_files_survive_a_kill(
    broken: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(tmp_path / "a", broken, balance=None, max_bad=1.0)
    at_step(monkeypatch, 6, kill)
    with pytest.raises(Killed):
        run(tmp_path / "b", broken, balance=None, max_bad=1.0)
    run(tmp_path / "b", broken, balance=None, max_bad=1.0, resume=True)
    assert (tmp_path / "b" / BAD_FILES).read_bytes() == (tmp_path / "a" / BAD_FILES).read_bytes()
    assert result(tmp_path / "b") == result(tmp_path / "a")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    calls: list[int] = []

    def loss(self: Toy, batch: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        good = Detector.loss(self, batch, labels)
        return good * value if len(calls) == 6 else good

    monkeypatch.setattr(Toy, "loss", loss)
    with pytest.raises(ConfigError, match=r"became (nan|inf) at epoch 2, step 2: lower train\.lr"):
        run(tmp_path, parts)
    assert len(calls) == 6
    saved, _ = read_checkpoint(tmp_path / CHECKPOINT)
    assert saved is not None
    assert all(bool(v.isfinite().all()) for v in saved["model"].values())


def test_validation_needs_both_classes(parts: Parts, tmp_path: Path) -> None:
    reals = [record for record in parts[1] if not record.label]
    with pytest.raises(ConfigError, match="readable pictures of both classes"):
        run(tmp_path, (parts[0], reals))


# --- what a run leaves behind


def test_outputs(parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "engine"):
        history = run(tmp_path, parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [
            BEST,
            CHECKPOINT,
            f"{CHECKPOINT}.previous",
            CURVES,
            FINAL,
            HISTORY,
            LOCK,
            LOG,
            RUN,
            TRAINED_ON,
        ]
    ), "no temporary file, no list of bad files"
    rows = [{k: float(v) for k, v in row.items()} for row in read_csv(tmp_path / HISTORY)]
    assert rows == history
    assert list(rows[0]) == ["epoch", "loss", "lr", "val_loss", *VALIDATED]
    log = (tmp_path / LOG).read_text(encoding="utf-8")
    assert "17 pictures to train on, 7 for validation: as given" in log
    assert "epoch 2/2: loss" in log
    info = json.loads((tmp_path / RUN).read_text(encoding="utf-8"))
    assert info["config"] == config_of().as_dict()
    assert info["split"] == "as given"


@pytest.mark.parametrize(("ties", "epoch"), [("later", 3), ("earlier", 2)])
def test_the_best_epoch_is_kept_and_ties_go_as_asked(
    ties: str, epoch: int, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: Iterator[float] = iter([0.5, 0.9, 0.9, 0.7])
    states: list[Any] = []

    def validate(_: Validation, model: Detector) -> dict[str, float]:
        states.append(plain(model.state_dict()))
        return dict.fromkeys(("val_loss", *VALIDATED), 0.6) | {"AP": next(values)}

    monkeypatch.setattr(Validation, "__call__", validate)
    run(tmp_path, parts, epochs=4, select="AP", ties=ties)
    best, card = read_weights(tmp_path / BEST)
    assert card is not None
    assert card.extra is not None
    assert (card.extra["epoch"], card.extra["validation"]["AP"]) == (epoch, 0.9)
    assert plain(best) == states[epoch - 1] != states[3]


def test_the_card_holds_the_resolved_configuration(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts)
    _, card = read_weights(tmp_path / BEST)
    assert card is not None
    assert card.extra is not None
    assert (card.detector, card.options) == ("toy", {"dropout": 0.3})
    assert card.extra["config"] == config_of().as_dict()


TRAINED = ("classifier", "cospy", "default", "spai", "ssp", "ssp_baseline", "univfd")
ARTIFACT = CoSpyOptions(train_dataset="progan", mode="branch", size="tiny")


def tiny_run(name: str, own: Any = None, **options: Any) -> tuple[Config, Detector]:
    """A registered detector's tiny variant, or that with `own` options, and a configuration to
    train it."""
    kind = detectors.load(name)
    own = dataclasses.asdict(own or kind.tiny())
    layers = [("tiny", {name: own}), ("test", {"train": options})]
    settings = config.resolve(name, layers)
    train.seed_everything(0)
    return settings, kind(settings.options)


@pytest.mark.parametrize(
    "name",
    # Quickly those that a training of this project is meant for; the ensemble is of the others.
    [
        pytest.param(n, marks=[] if n in TRAINED else pytest.mark.slow)
        for n in detectors.available()
    ],
)
def test_every_detector_trains_and_its_weights_load(
    name: str,
    parts: Parts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One epoch of two steps; the shipped file scores as the model did, from its card alone."""
    monkeypatch.setattr(Trainer, "save", lambda self: None)  # large, and tested elsewhere
    settings, model = tiny_run(name, epochs=1, batch_size=4, lr=1e-3, report=False)
    parts = (parts[0][::2], parts[1][::2])
    before = plain(model.state_dict())
    train.train(request_of(settings, parts, tmp_path), model)
    assert plain(model.state_dict()) != before
    file = open_weights(tmp_path / BEST, name)
    assert file.card is not None
    assert file.card.extra is not None
    again = config.resolve(name, [("card", file.card.extra["config"])])
    assert again == settings
    loaded = build(name, again.options, file, backbone_files(model, tmp_path))
    rows = [
        [
            row
            for batch in score(TorchBackend(m, Device(CPU)), parts[1], ScoringOptions(4))
            for row in batch
        ]
        for m in (model.eval(), loaded.model)
    ]
    assert [row.key for row in rows[0]] == [row.key for row in rows[1]]
    # Weights that lie elsewhere in memory may move the last digit.
    first, second = ([row.logit for row in found] for found in rows)
    assert first == pytest.approx(second, rel=1e-5, abs=1e-5)


def separable(folder_: Path) -> Parts:
    return hold_out(folder.records(make_tree(folder_, count=12)), 0.34)


def test_a_separable_set_is_learnt(tmp_path: Path) -> None:
    recipe = {"epochs": 4, "lr": 0.05, "head_lr": 5.0, "anchor": 0.0, "ema": 0.0}
    history = run(tmp_path / "run", separable(tmp_path / "tree"), **recipe, label_smoothing=0.0)
    assert history[-1]["val_loss"] < 0.5 * history[0]["val_loss"]
    assert max(row["AUROC"] for row in history) > 0.9


@pytest.mark.slow
def test_a_detector_learns_a_separable_set(tmp_path: Path) -> None:
    settings, model = tiny_run("cospy", ARTIFACT, epochs=10, batch_size=8, lr=3e-3)
    parts = separable(tmp_path / "tree")
    history = train.train(request_of(settings, parts, tmp_path / "run"), model)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert max(row["AUROC"] for row in history) > 0.9


# --- parts of a recipe


def test_averaged_weights_follow_the_published_rule() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    averaged = Averaged(model, decay=0.9)
    expected = model.state_dict()["0.weight"].clone()
    for step in range(100):
        with torch.no_grad():
            model[0].weight += 1
        averaged.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.state_dict()["0.weight"]
    model[1].num_batches_tracked += 3
    averaged.update(model, 100)
    state = averaged.model.state_dict()
    expected = 0.9 * expected + 0.1 * model.state_dict()["0.weight"]
    torch.testing.assert_close(state["0.weight"], expected)
    assert int(state["1.num_batches_tracked"]) == 3
    assert not any(p.requires_grad for p in averaged.model.parameters())


def test_averaged_weights_are_the_ones_kept(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path / "on", parts, epochs=1, anchor=0.0)
    saved, _ = read_checkpoint(tmp_path / "on" / CHECKPOINT)
    assert saved is not None
    best, _ = read_weights(tmp_path / "on" / BEST)
    assert plain(best) == plain(saved["averaged"]) != plain(saved["model"])
    run(tmp_path / "off", parts, epochs=1, anchor=0.0, ema=0.0)
    saved, _ = read_checkpoint(tmp_path / "off" / CHECKPOINT)
    assert saved is not None
    assert saved["averaged"] is None
    assert plain(read_weights(tmp_path / "off" / BEST)[0]) == plain(saved["model"])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_kept_weights_are_anchored_to_those_at_the_start(
    parts: Parts, tmp_path: Path, ema: float
) -> None:
    """All but the classifier, which starts from nothing worth keeping."""
    train.seed_everything(config_of().train.seed)
    start = Toy(ToyOptions()).state_dict()
    run(tmp_path, parts, epochs=1, anchor=0.25, ema=ema)
    saved, _ = read_checkpoint(tmp_path / CHECKPOINT)
    assert saved is not None
    trained = saved["averaged" if ema else "model"]
    best, _ = read_weights(tmp_path / BEST)
    for name in ("conv.weight", "bn.bias", "bn.running_var"):
        torch.testing.assert_close(best[name], 0.75 * trained[name] + 0.25 * start[name])
        assert not torch.equal(best[name], trained[name])
    for name in ("fc.weight", "fc.bias"):
        assert torch.equal(best[name], trained[name])


def test_bf16_trains_on_the_cpu(parts: Parts, tmp_path: Path) -> None:
    rough = run(tmp_path / "bf16", parts, precision="bf16")
    exact = run(tmp_path / "fp32", parts, precision="fp32")
    assert rough != exact
    assert rough[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.05)
    state, _ = read_weights(tmp_path / "bf16" / BEST)
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}


def test_fp16_needs_a_gpu(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a GPU; use bf16 or fp32 on the CPU"):
        run(tmp_path, parts, precision="fp16")


def test_frozen_batch_norms_keep_their_statistics(parts: Parts, tmp_path: Path) -> None:
    for frozen in (True, False):
        output = tmp_path / str(frozen)
        run(output, parts, freeze_batchnorm=frozen)
        saved, _ = read_checkpoint(output / CHECKPOINT)
        assert saved is not None
        assert torch.equal(saved["model"]["bn.running_mean"], torch.zeros(8)) == frozen
        assert not torch.equal(saved["model"]["bn.weight"], torch.ones(8)), "but learns its scale"


def test_label_smoothing_moves_labels_towards_a_half(parts: Parts, tmp_path: Path) -> None:
    Counting.seen = []
    run(tmp_path, parts, kind=Counting, epochs=1, label_smoothing=0.2)
    values = {round(label, 6) for labels in Counting.seen for label in labels}
    assert values == {0.1, 0.9}


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizer_is_the_recipes(name: str, kind: type[torch.optim.Optimizer]) -> None:
    options = TrainOptions(optimizer=name, lr=0.1, betas=(0.8, 0.9), weight_decay=0.05, head_lr=3.0)
    model = Toy(ToyOptions())
    optimizer = make_optimizer(model, options)
    assert type(optimizer) is kind
    body, head = optimizer.param_groups
    assert {id(p) for p in head["params"]} == {id(p) for p in model.fc.parameters()}
    assert (body["scale"], head["scale"]) == (1.0, 3.0)
    assert (body["betas"], body["weight_decay"]) == ((0.8, 0.9), 0.05)
    assert len(body["params"]) + len(head["params"]) == len(list(model.parameters()))


def test_the_rate_of_every_step_is_the_schedules(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[float, float]] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: Any, **named: Any) -> Any:
        used.append((self.param_groups[0]["lr"], self.param_groups[1]["lr"]))
        return original(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run(tmp_path, parts)
    options = config_of().train
    expected = [lr_at(options, number, 4) for number in range(STEPS)]
    assert used == [(rate, 2 * rate) for rate in expected]


def test_parameters_outside_of_modules_are_trained_too() -> None:
    model = nn.Module()
    model.token = nn.Parameter(torch.zeros(1))
    model.fc = nn.Linear(1, 1)
    groups = parameter_groups(model, TrainOptions(head_lr=2.0))
    assert [len(group["params"]) for group in groups] == [1, 2]


def test_checkpoints_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    assert read_checkpoint(path) == (None, "")
    for number in range(3):
        save_checkpoint(path, {"number": number})
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, f"{CHECKPOINT}.previous"]
    state, note = read_checkpoint(path)
    assert state is not None
    assert (state["number"], note) == (2, "")
    torch.save({"number": 9}, path)
    state, note = read_checkpoint(path)
    assert state is not None
    assert state["number"] == 1
    assert "not a checkpoint of this program" in note


def test_tensorboard_gets_every_epoch(parts: Parts, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = run(tmp_path, parts, board=True)
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    for name in ("loss", "AUROC"):
        found = [(event.step, event.value) for event in board.Scalars(name)]
        assert found == [(row["epoch"], pytest.approx(row[name])) for row in history]
