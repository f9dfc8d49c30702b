"""What training keeps of a run, and what it computes once."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from models import FrozenToy, Toy, ToyOptions
from PIL import Image
from torch import Tensor
from training import Killed, Parts, at_step, config_of, kill, request_of, result, run

from datasets import Label, Record, folder
from datasets._images import Draw, PictureDataset, Sample
from detectors._base import Detector
from engine.config import ConfigError
from engine.evaluation import metrics
from engine.phases import train
from engine.runtime.device import Device
from engine.runtime.distributed import ALONE
from engine.runtime.workers import IN_PROCESS
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.table import read_table
from engine.scoring.torch_backend import TorchBackend
from engine.training import outputs
from engine.training.checkpoint import restore_own
from engine.training.encoder_cache import _Own, embed
from engine.training.loop import Trainer
from engine.training.outputs import CURVES, FINAL, HISTORY, LOG, REPORT, VALIDATED
from engine.training.start import Start
from engine.training.step import Batch, StepResult
from engine.training.validation import Validation
from engine.weights import original as unpickle
from engine.weights.files import read_weights
from engine.weights.loaded import WeightFile
from engine.weights.manifest import BEST

CPU = Device(torch.device("cpu"))
KEPT = {"anchor": 0.0, "ema": 0.0, "balance": None, "label_smoothing": 0.0}


class Afresh(FrozenToy):
    """The same network, whose frozen part runs every time."""

    @property
    def embeds(self) -> bool:
        return False

    def forward(self, batch: Tensor) -> Tensor:
        return self.classify(self.embed(batch))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pictures went through the frozen part, by mode of the model."""
    counts: Counter[str] = Counter()
    original = FrozenToy.feature

    def feature(self: FrozenToy, batch: Tensor) -> Tensor:
        counts["training" if self.training else "evaluation"] += len(batch)
        return original(self, batch)

    monkeypatch.setattr(FrozenToy, "feature", feature)
    return counts


# --- what is computed once


def test_validation_pictures_are_encoded_once(
    parts: Parts, tmp_path: Path, seen: Counter[str]
) -> None:
    run(tmp_path, parts, kind=FrozenToy, epochs=3, batch_size=4, **KEPT)
    assert seen["evaluation"] == len(parts[1])
    assert seen["training"] == 3 * 4 * 4


def test_pictures_that_do_not_vary_are_encoded_once(
    parts: Parts, tmp_path: Path, seen: Counter[str]
) -> None:
    kept = run(tmp_path / "kept", parts, kind=FrozenToy, epochs=3, augment=False, **KEPT)
    assert seen == {"evaluation": len(parts[0]) + len(parts[1])}
    fresh = run(tmp_path / "fresh", parts, kind=Afresh, epochs=3, augment=False, **KEPT)
    for one, two in zip(kept, fresh, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    varied = run(tmp_path / "varied", parts, kind=FrozenToy, epochs=3, **KEPT)
    assert [row["loss"] for row in varied] != pytest.approx([row["loss"] for row in kept], abs=1e-4)


def test_a_resumed_run_encodes_anew_to_the_same_end(
    own_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_parts[0][2].path.write_bytes(b"")
    settings = KEPT | {"augment": False, "max_bad": 0.1}
    run(tmp_path / "whole", own_parts, kind=FrozenToy, **settings)
    at_step(monkeypatch, 6, kill)
    with pytest.raises(Killed):
        run(tmp_path / "killed", own_parts, kind=FrozenToy, **settings)
    run(tmp_path / "killed", own_parts, kind=FrozenToy, resume=True, **settings)
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    assert (tmp_path / "whole" / "bad_files.csv").read_text().count(own_parts[0][2].key) == 1


def test_unreadable_pictures_have_no_embedding(own_parts: Parts) -> None:
    own_parts[1][1].path.write_bytes(b"")
    model = FrozenToy(ToyOptions()).eval()
    pictures = PictureDataset(own_parts[1], model.val_transform())
    found = embed(model, pictures, CPU, 3, IN_PROCESS, True, ALONE)
    assert found is not None
    assert sorted(found.rows_of) == [0, *range(2, len(own_parts[1]))]
    assert found.errors == {1: "the file is empty"}
    assert found[Draw(1, 0)] == Sample(1, None, "the file is empty")
    rows = found.rows(model, own_parts[1], CPU, "none")
    expected = [
        row
        for batch in score(
            TorchBackend(model, CPU), own_parts[1], ScoringOptions(4, validation=True)
        )
        for row in batch
    ]
    assert [row.key for row in rows] == [row.key for row in expected]
    for one, two in zip(rows, expected, strict=True):
        assert one.error == two.error
        assert one.logit == pytest.approx(two.logit, abs=1e-5)


def test_validation_differs_from_picture_to_picture_but_not_from_time_to_time(
    tree: Path,
) -> None:
    records = folder.records(tree)
    twice = [Record(f"{i}", records[0].path, records[0].label) for i in range(6)]
    model = FrozenToy(ToyOptions()).eval()
    first, second = (
        [
            row.logit
            for batch in score(TorchBackend(model, CPU), twice, ScoringOptions(4, validation=True))
            for row in batch
        ]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 1
    [logits] = [
        {
            row.logit
            for batch in score(TorchBackend(model, CPU), twice, ScoringOptions(6))
            for row in batch
        }
    ]
    assert len(logits) == 1


# --- what is kept


def test_weights_of_epochs_and_in_the_published_layout(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts, epochs=5, save_epochs=2, publish=True)
    stems = [f"epoch_{number}" for number in (0, 2, 4)]
    names = {f"{stem}{end}" for stem in stems for end in (".safetensors", ".pth")}
    names |= {BEST, FINAL, "best_model.pth", "final_model.pth"}
    assert {p.name for p in tmp_path.iterdir() if p.suffix in (".pth", ".safetensors")} == names
    for one, two in ((BEST, "best_model.pth"), (FINAL, "final_model.pth")):
        state, card = read_weights(tmp_path / one)
        published = unpickle.load(tmp_path / two)
        assert published.keys() == state.keys()
        assert all(torch.equal(published[key], value) for key, value in state.items())
        assert card is not None
    _, card = read_weights(tmp_path / "epoch_2.safetensors")
    assert card is not None
    assert card.extra is not None
    assert card.extra["epoch"] == 3
    with pytest.raises(ConfigError, match="holds an earlier run"):
        run(tmp_path, parts)
    run(tmp_path, parts, overwrite=True, epochs=1)
    assert not list(tmp_path.glob("*.pth"))
    assert not list(tmp_path.glob("epoch_*"))


def test_the_end_is_a_report_on_the_validation_pictures(parts: Parts, tmp_path: Path) -> None:
    history = run(tmp_path, parts, report=True, epochs=2)
    rows = read_table(tmp_path / REPORT / "scores.csv")
    assert [row.key for row in rows] == [record.key for record in parts[1]]
    report = json.loads((tmp_path / REPORT / "run.json").read_text())
    model = Toy(ToyOptions())
    restore_own(model, read_weights(tmp_path / BEST)[0])
    [scored] = score(TorchBackend(model.eval(), CPU), parts[1], ScoringOptions(len(rows)))
    assert [r.logit for r in rows] == pytest.approx([r.logit for r in scored], abs=1e-5)
    assert report["weights"]["file"] == BEST
    assert (tmp_path / REPORT / "report.html").stat().st_size > 10000
    found = metrics.evaluate_rows(rows, 0.5, 1).estimates["AUROC"].value
    assert found == pytest.approx(max(row["AUROC"] for row in history))


def test_curves_are_a_picture(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts, curves=True, epochs=1)
    picture = Image.open(io.BytesIO((tmp_path / CURVES).read_bytes()))
    assert picture.format == "PNG"
    assert picture.width > 600


def test_tested_sets_are_measured_and_decide_nothing(parts: Parts, tmp_path: Path) -> None:
    turned = [Record(r.key, r.path, type(r.label)(1 - int(r.label or 0))) for r in parts[1]]
    alone = run(tmp_path / "alone", parts)
    model, settings = Toy(ToyOptions()), config_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "draw_curves", lambda history, best, title: b"")
        train.seed_everything(settings.train.seed)
        model = Toy(settings.options)
        tests = {"same": parts[1], "turned": turned}
        tested = train.train(request_of(settings, parts, tmp_path / "tested", tests=tests), model)
    for one, two in zip(alone, tested, strict=True):
        assert {k: two[k] for k in one} == one
        assert two["same AUROC"] == pytest.approx(1 - two["turned AUROC"])
        assert two["same val_loss"] == pytest.approx(two["val_loss"], abs=1e-5)
    header = (tmp_path / "tested" / HISTORY).read_text().splitlines()[0]
    assert header.endswith("turned balanced_accuracy")


def test_the_lowest_loss_is_kept(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.5, 0.3, 0.4, 0.3])
    values = dict.fromkeys(VALIDATED, 0.6)
    monkeypatch.setattr(Validation, "__call__", lambda *_: values | {"val_loss": next(losses)})
    run(tmp_path, parts, epochs=4, select="loss")
    _, card = read_weights(tmp_path / BEST)
    assert card is not None
    assert card.extra is not None
    assert (card.extra["epoch"], card.extra["validation"]["val_loss"]) == (4, 0.3)


def test_what_changes_no_weight_may_change_in_a_resumed_run(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 6, kill)
    with pytest.raises(Killed):
        run(tmp_path, parts)
    run(tmp_path, parts, resume=True, save_every=1, save_epochs=1, max_bad=0.5)
    assert (tmp_path / "epoch_1.safetensors").exists()


def test_pictures_of_a_loss_that_is_no_number_are_named(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[str]] = []
    original = Trainer._step

    def step(self: Trainer, batches: list[Batch], number: int) -> StepResult:
        taken.append([key for batch in batches for key in batch.keys])
        return original(self, batches, number)

    def loss(self: Toy, batch: Tensor, labels: Tensor) -> Tensor:
        good = Detector.loss(self, batch, labels)
        return good * float("nan") if len(taken) == 3 else good

    monkeypatch.setattr(Trainer, "_step", step)
    monkeypatch.setattr(Toy, "loss", loss)
    with pytest.raises(ConfigError, match=r"training\.log names its pictures"):
        run(tmp_path, parts, balance=None)
    [line] = [
        line
        for line in (tmp_path / LOG).read_text().splitlines()
        if "loss became nan" in line and "pictures of" in line
    ]
    assert all(key in line for key in taken[-1])
    others = {key for keys in taken[:-1] for key in keys} - set(taken[-1])
    assert not any(key in line for key in others)


def test_an_embedded_set_knows_its_size_and_no_more() -> None:
    model = FrozenToy(ToyOptions()).eval()
    records = [Record(f"{i}", Path("nowhere"), Label.REAL) for i in range(5)]
    found = embed(
        model, PictureDataset(records, model.val_transform()), CPU, 2, IN_PROCESS, True, ALONE
    )
    assert found is not None
    assert (len(found), len(found.values)) == (5, 0)
    own = _Own(100)
    own.add([3, 4], torch.ones(2, 7))
    assert len(pickle.dumps(own.part())) < 1000, "a view would bring the whole tensor"


def test_a_gradient_that_is_no_number_stops_before_the_weights_are_spoilt(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of that step is still a number."""
    calls: list[int] = []

    def loss(self: Toy, batch: Tensor, labels: Tensor) -> Tensor:
        calls.append(1)
        good = Detector.loss(self, batch, labels)
        # The derivative of a root at 0 is infinite.
        return good + (self.fc.bias.sum() * 0).sqrt() if len(calls) == 6 else good

    monkeypatch.setattr(Toy, "loss", loss)
    with pytest.raises(ConfigError, match=r"the gradient became nan at epoch 2, step 2"):
        run(tmp_path, parts, clip_norm=None)
    monkeypatch.undo()
    monkeypatch.setattr(outputs, "draw_curves", lambda history, best, title: b"")
    run(tmp_path, parts, clip_norm=None, resume=True)
    state, _ = read_weights(tmp_path / BEST)
    assert all(bool(value.isfinite().all()) for value in state.values())


def weights_at(name: str) -> Start:
    return Start(WeightFile(Path(name), {}, None, "b"), [])


def test_run_json_says_what_training_started_from_and_keeps_it(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 6, kill)
    with pytest.raises(Killed):
        run(tmp_path, parts, start=weights_at("a"))
    monkeypatch.undo()
    first = json.loads((tmp_path / "run.json").read_text())
    monkeypatch.setattr(sys, "argv", ["another command"])
    with pytest.raises(ConfigError, match="other weights to start from"):
        run(tmp_path, parts, resume=True)
    run(tmp_path, parts, resume=True, start=weights_at("moved"))
    second = json.loads((tmp_path / "run.json").read_text())
    [again] = second.pop("resumed")
    assert again["command"] == ["another command"]
    assert second == first
    assert first["started_from"] == [{"file": "a", "sha256": "b"}]


def test_a_test_set_that_lacks_a_class_ends_nothing(
    own_parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for record in own_parts[1][:2]:
        record.path.write_bytes(b"")
    reals = [record for record in own_parts[1] if not record.label]
    tests = {"mine": reals, "validation": own_parts[1]}
    with pytest.raises(ConfigError, match=r"2 of 7 validation pictures, such as .* could not be"):
        run(tmp_path, own_parts, tests=tests, max_bad=0)
    caplog.clear()
    history = run(tmp_path, own_parts, tests=tests, max_bad=0.5, overwrite=True)
    assert len(history) == 2
    assert all(math.isnan(row["mine AUROC"]) for row in history)
    assert all(math.isfinite(row["AUROC"]) for row in history)
    assert "mine needs readable pictures of both classes; found one class" in caplog.messages
    said = "validation: 2 of 7 pictures could not be read"
    assert caplog.messages.count(said) == 2, "once, and once of the test of that name"
    assert all(row["validation AUROC"] == pytest.approx(row["AUROC"]) for row in history)


def test_validation_does_not_go_by_the_logits_that_are_numbers(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Toy.forward

    def forward(self: Toy, batch: Tensor) -> Tensor:
        logits = original(self, batch)
        return logits if self.training else torch.where(logits > logits.median(), torch.nan, logits)

    monkeypatch.setattr(Toy, "forward", forward)
    with pytest.raises(ConfigError, match=r"validation: the logits of . of 7 pictures, such as"):
        run(tmp_path, parts)


def test_files_of_other_names_are_not_the_runs(parts: Parts, tmp_path: Path) -> None:
    tmp_path.joinpath("epoch_notes.pth").write_text("mine")
    run(tmp_path, parts, epochs=1)
    run(tmp_path, parts, epochs=1, overwrite=True)
    assert tmp_path.joinpath("epoch_notes.pth").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ends", "fails"])
def test_no_process_that_decodes_outlives_a_run(parts: Parts, tmp_path: Path, case: str) -> None:
    """They ignore SIGTERM, and live from epoch to epoch: the program must not wait for them."""
    script = (
        "import pathlib, pickle, sys, training\n"
        "kept = []\n"
        "class Failing(training.Toy):\n"
        "    def loss(self, batch, labels):\n"
        "        if sys.argv[2] == 'fails':\n"
        "            raise RuntimeError('as asked for')\n"
        "        return super().loss(batch, labels)\n"
        "try:\n"
        "    output, parts = pathlib.Path(sys.argv[1]), pickle.load(sys.stdin.buffer)\n"
        "    training.run(output, parts, kind=Failing, workers=2)\n"
        "except RuntimeError as error:\n"
        "    kept.append(error)  # and all of its frames\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), case],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        input=pickle.dumps(parts), capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.decode()) == (0, "done\n"), done.stderr.decode()


def test_missing_validation_pictures_end_a_run_before_its_first_step(
    own_parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> StepResult:
        raise AssertionError("no step is taken")

    monkeypatch.setattr(Trainer, "_step", step)
    for record in own_parts[1][:4]:
        record.path.unlink()
    with pytest.raises(ConfigError, match=r"4 of 7 validation pictures, such as .*, are not there"):
        run(tmp_path, own_parts)


def test_results_without_a_checkpoint_are_not_begun_again(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts)
    before = (tmp_path / BEST).read_bytes()
    for path in tmp_path.glob("last.pt*"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"has results but no last\.pt to go on from"):
        run(tmp_path, parts, resume=True)
    assert (tmp_path / BEST).read_bytes() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_that_are_no_runs_are_left_alone(
    parts: Parts, tmp_path: Path, overwrite: bool
) -> None:
    """The results of a training have the name of a folder that pictures often lie in."""
    mine = tmp_path / "validation" / "real" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="expected no validation/ there but a run's"):
        run(tmp_path, parts, overwrite=overwrite)
    assert mine.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["validation"]
