"""A training run that is killed at any moment and resumed ends exactly as an uninterrupted one:
the same weights, averages, optimizer state, history and files, bit for bit."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from models import FrozenToy, Toy, ToyOptions, tiny
from training import STEPS, Killed, Parts, at_call, at_step, kill, result, run, terminate

from detectors._errors import WeightsError
from engine.config import ConfigError
from engine.runtime import signals
from engine.runtime.signals import Interrupted
from engine.training import checkpoint, loop
from engine.training.loop import Trainer
from engine.training.outputs import CHECKPOINT, HISTORY, REPORT
from engine.training.validation import Validation

PREVIOUS = f"{CHECKPOINT}.previous"
Result = dict[str, Any]


def read_history(output: Path) -> list[str]:
    """The rows of the history that is there."""
    file = output / HISTORY
    return file.read_text().splitlines()[1:] if file.exists() else []


@pytest.fixture(scope="module")
def uninterrupted(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Result:
    output = tmp_path_factory.mktemp("run")
    run(output, parts)
    return result(output)


def test_the_same_run_twice_is_the_same(
    parts: Parts, tmp_path: Path, uninterrupted: Result
) -> None:
    run(tmp_path, parts)
    assert result(tmp_path) == uninterrupted
    other = tmp_path / "other"
    run(other, parts, seed=6)
    assert result(other)["best"] != uninterrupted["best"]


def test_workers_do_not_matter(parts: Parts, tmp_path: Path, uninterrupted: Result) -> None:
    run(tmp_path, parts, workers=2)
    assert result(tmp_path) == uninterrupted


# --- killed, then resumed


# Before the first checkpoint, behind one, at the start of an epoch, and at the last.
@pytest.mark.parametrize("step", [1, 4, 5, STEPS])
def test_killed_at_any_step(
    parts: Parts, tmp_path: Path, uninterrupted: Result, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    at_step(monkeypatch, step, kill)
    with pytest.raises(Killed):
        run(tmp_path, parts)
    run(tmp_path, parts, resume=True)
    assert result(tmp_path) == uninterrupted


@pytest.mark.parametrize(
    ("name", "number"),
    [("_finish_epoch", 1), ("_finish_epoch", 2), ("_write_tables", 1), ("_write_tables", 2),
     ("save", 1), ("save", 2), ("save", 3), ("save", 4)],
)  # fmt: skip
def test_killed_outside_of_steps(
    parts: Parts, tmp_path: Path, uninterrupted: Result, name: str, number: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, Trainer, name, number, kill)
        with pytest.raises(Killed):
            run(tmp_path, parts)
    run(tmp_path, parts, resume=True)
    assert result(tmp_path) == uninterrupted


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_between_the_two_renames(
    parts: Parts, tmp_path: Path, uninterrupted: Result, number: int
) -> None:
    """The checkpoint before has its other name, the new one not yet its own."""
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, checkpoint, "replace_file", number, kill)
        with pytest.raises(Killed):
            run(tmp_path, parts)
    assert not (tmp_path / CHECKPOINT).exists()
    assert (tmp_path / PREVIOUS).exists() == (number > 1)
    run(tmp_path, parts, resume=True)
    assert result(tmp_path) == uninterrupted


def test_stopped_by_a_signal_at_every_step(
    parts: Parts, tmp_path: Path, uninterrupted: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run in eight pieces; each saves what it did, so that none repeats a step."""
    for _ in range(STEPS):
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, 1, terminate)
            with pytest.raises(Interrupted, match="stopped by signal 15 after saving"):
                run(tmp_path, parts, resume=True)
    at_step(monkeypatch, 1, kill)  # no step must be left
    run(tmp_path, parts, resume=True)
    assert result(tmp_path) == uninterrupted


@pytest.mark.slow
def test_killed_for_good_in_another_process(
    parts: Parts, tmp_path: Path, uninterrupted: Result
) -> None:
    """SIGKILL; then the rest in this process."""
    script = (
        "import os, pathlib, pickle, signal, sys, pytest, training\n"
        "kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "training.at_step(pytest.MonkeyPatch(), 6, kill)\n"
        "training.run(pathlib.Path(sys.argv[1]), pickle.load(sys.stdin.buffer))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        input=pickle.dumps(parts), capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (tmp_path / CHECKPOINT).exists()
    run(tmp_path, parts, resume=True)
    assert result(tmp_path) == uninterrupted


def test_each_picture_once(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without balance an epoch is a permutation, with a rest that no batch takes."""
    changes = {"balance": None, "save_every": 4, "ema": 0.0, "optimizer": "adam"}
    run(tmp_path / "a", parts, **changes)
    at_step(monkeypatch, 5, kill)
    with pytest.raises(Killed):
        run(tmp_path / "b", parts, **changes)
    run(tmp_path / "b", parts, resume=True, **changes)
    assert result(tmp_path / "b") == result(tmp_path / "a")


def test_a_finished_run_resumes_to_itself(
    parts: Parts, tmp_path: Path, uninterrupted: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = run(tmp_path, parts)
    at_step(monkeypatch, 1, kill)
    assert run(tmp_path, parts, resume=True) == history
    assert result(tmp_path) == uninterrupted


def test_resume_of_nothing_starts(parts: Parts, tmp_path: Path, uninterrupted: Result) -> None:
    run(tmp_path / "new", parts, resume=True)
    assert result(tmp_path / "new") == uninterrupted


# --- damaged checkpoints


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    parts: Parts,
    tmp_path: Path,
    uninterrupted: Result,
    caplog: pytest.LogCaptureFixture,
    share: float,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 7, terminate)
        with pytest.raises(Interrupted):
            run(tmp_path, parts)
    last = tmp_path / CHECKPOINT
    os.truncate(last, int(share * last.stat().st_size))
    with caplog.at_level(logging.INFO, "engine"):
        run(tmp_path, parts, resume=True)
    assert "going on from the one before" in caplog.text
    assert result(tmp_path) == uninterrupted


def test_no_whole_checkpoint_is_an_error(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts, epochs=1)
    for name in (CHECKPOINT, PREVIOUS):
        os.truncate(tmp_path / name, 100)
    with pytest.raises(WeightsError, match=r"no whole checkpoint is left: .* --overwrite"):
        run(tmp_path, parts, resume=True, epochs=1)


# --- what is not resumed


def test_other_settings_are_named(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts, epochs=1)
    with pytest.raises(ConfigError, match=r"had other train\.epochs, train\.lr$"):
        run(tmp_path, parts, resume=True, lr=0.5, epochs=9)


def test_other_pictures_are_refused(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts, epochs=1)
    fewer = (parts[0][1:], parts[1])
    swapped = dataclasses.replace(parts[0][0], label=parts[0][-1].label)
    relabelled = ([swapped, *parts[0][1:]], parts[1])
    assert swapped != parts[0][0]
    for other in (fewer, relabelled):
        with pytest.raises(ConfigError, match="had other pictures: give the same"):
            run(tmp_path, other, resume=True, epochs=1)


def test_an_earlier_run_is_neither_mixed_nor_replaced_unasked(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path, parts)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ConfigError, match=r"add --resume .*, --overwrite"):
        run(tmp_path, parts)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert len(run(tmp_path, parts, overwrite=True, epochs=1)) == 1
    assert len((tmp_path / HISTORY).read_text(encoding="utf-8").splitlines()) == 2


# --- signals


def test_the_second_signal_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with signals.stop_requests() as received:
            assert received == []
            terminate()
            terminate()
            assert (received, came) == ([signal.SIGTERM] * 2, []), "one request, told twice"
            monkeypatch.setattr(signals, "SAME_REQUEST_SECONDS", 0.0)
            terminate()
            assert came == [signal.SIGTERM]
        with signals.stop_requests():
            terminate()
            assert came == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [1, 2])
def test_stopped_in_a_validation(
    parts: Parts, tmp_path: Path, uninterrupted: Result, number: int
) -> None:
    """That of the last epoch too; it is done again."""
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, Validation, "__call__", number, terminate)
        with pytest.raises(Interrupted, match="stopped by signal 15 after saving"):
            run(tmp_path, parts)
    assert len(read_history(tmp_path)) == number - 1
    run(tmp_path, parts, resume=True)
    assert result(tmp_path) == uninterrupted


def test_stopped_between_the_last_epoch_and_the_report(parts: Parts, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, Trainer, "_write_tables", 2, terminate)
        with pytest.raises(Interrupted):
            run(tmp_path, parts, report=True)
    assert not (tmp_path / REPORT).exists()
    run(tmp_path, parts, resume=True, report=True)
    assert (tmp_path / REPORT / "report.html").exists()


KEEPING = {"save_epochs": 1, "publish": True}


@pytest.fixture(scope="module")
def keeping(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run that keeps the weights of each epoch. Do not change its files."""
    output = tmp_path_factory.mktemp("keeping")
    run(output, parts, **KEEPING)
    return output


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_while_the_weights_are_kept(
    parts: Parts, tmp_path: Path, keeping: Path, number: int
) -> None:
    """Between those of the best epoch, of this one, and the last."""
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, loop, "keep_weights", number, kill)
        with pytest.raises(Killed):
            run(tmp_path, parts, **KEEPING)
    run(tmp_path, parts, resume=True, **KEEPING)
    assert result(tmp_path) == result(keeping)
    for path in keeping.glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize("change", ["frozen", "compiled", "device", "precision", "tests"])
def test_what_decides_weights_must_be_the_same(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    at_step(monkeypatch, 6, kill)
    with pytest.raises(Killed):
        run(tmp_path, parts, kind=FrozenToy)
    monkeypatch.undo()
    named = {
        "frozen": "frozen parts", "compiled": "--compile", "device": "kind of device",
        "precision": "precision", "tests": "--test_csv",
    }[change]  # fmt: skip
    original = Trainer.identity.func  # type: ignore[attr-defined]
    monkeypatch.setattr(Trainer, "identity", property(lambda t: original(t) | {named: "another"}))
    with pytest.raises(ConfigError, match=f"had other {named}: give the same"):
        run(tmp_path, parts, kind=FrozenToy, resume=True)


def test_frozen_parts_are_told_apart_by_their_weights() -> None:
    models = [copy.deepcopy(tiny("cospy")) for _ in range(3)]
    with torch.no_grad():
        frozen = [p for n, p in models[2].named_parameters() if n.startswith("semantic.encoder.")]
        frozen[3].view(-1)[0] += 1
    first, second, third = (checkpoint.frozen_digest(model) for model in models)
    assert first == second != third
    assert checkpoint.frozen_digest(Toy(ToyOptions())) == ""
