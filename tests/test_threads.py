"""How many threads compute, and what that does to scores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
import torch
from cli_runner import Cli, write_weights
from cli_runner import plain_cli as cli
from conftest import make_tree
from models import tiny
from training import at_step, terminate

import detectors
from datasets import folder
from engine.cli import machine
from engine.cli.parser import parser
from engine.runtime import threads
from engine.runtime.device import open_device
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.torch_backend import TorchBackend
from engine.training.loop import Trainer

__all__ = ["cli"]  # a fixture

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Other tests compute with the threads that they began with."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree", count=4)


# One of each kind of network; the others are made of the same layers.
KINDS = ("cospy", "default", "spai", "ssp")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in KINDS)) for n in detectors.available()],
)
def test_a_logit_hardly_depends_on_threads_and_batches(name: str, tree: Path) -> None:
    records, model = folder.records(tree)[::6], tiny(name)
    logits = []
    for count, batch in ((1, 1), (1, 64), (2, 2)):
        torch.set_num_threads(count)
        batches = score(
            TorchBackend(model, open_device("cpu", "fp32")), records, ScoringOptions(batch)
        )
        logits.append([row.logit for rows in batches for row in rows])
    for found in logits[1:]:
        # A logit of 35, as random weights give, has only seven digits.
        assert found == pytest.approx(logits[0], rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("phase", ["test", "eval"])
def test_a_resumed_scoring_takes_the_threads_that_it_began_with(
    cli: Cli, tree: Path, tmp_path: Path, phase: str
) -> None:
    weights, output = write_weights(tmp_path / "w.safetensors"), tmp_path / "out"
    data = "--input" if phase == "test" else "--data"
    use = ("--phase", phase, "--weights", weights, data, tree, "--output", output)

    def recorded() -> int:
        return json.loads((output / "run.json").read_text())["threads"]

    assert cli(*use, "--threads", 2).status == 0
    assert recorded() == torch.get_num_threads() == 2
    assert "--threads 2; found --threads 1" in cli(*use, "--threads", 1, "--resume").complaint
    torch.set_num_threads(1)
    assert cli(*use, "--resume").status == 0
    assert recorded() == torch.get_num_threads() == 2


def test_a_resumed_training_takes_the_threads_that_it_began_with(
    cli: Cli, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = Trainer._step

    def watched(*arguments: object) -> object:
        seen.append(torch.get_num_threads())
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", watched)
    use = (
        "--phase", "train", "--detector", "default", "--data", tree, "--epochs", 1, "--limit", 3,
        "--batch_size", 4, "--set", "default.branch=artifact", "default.crop=32",
        "train.report=false",
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli(*use, "--output", whole, "--threads", 2).status == 0
    with monkeypatch.context() as patch:
        at_step(patch, 2, terminate)
        assert cli(*use, "--output", cut, "--threads", 2).status == 143
    torch.set_num_threads(1)
    assert cli(*use, "--output", cut, "--resume").status == 0
    assert set(seen) == {2}
    assert (cut / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()


def test_the_default_is_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads.default_threads(on_cpu=True) == 7
    monkeypatch.delenv("OMP_NUM_THREADS")
    if hasattr(os, "sched_getaffinity"):
        assert 1 <= threads.cores() <= threads.usable() <= len(os.sched_getaffinity(0))
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)  # as by a container's quota
    assert threads.default_threads(on_cpu=True) == threads.cores() == 1
    # torchrun says 1 where nobody says how many; each process computes as one alone would.
    monkeypatch.setattr(threads, "cores", lambda: 8)
    for key, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert threads.default_threads(on_cpu=True) == 8
    assert threads.default_threads(on_cpu=False) == 2


def test_workers_are_those_that_the_processors_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    args = parser().parse_args([])
    monkeypatch.setattr(threads, "usable", lambda: 6)
    assert [machine.workers(args, pictures).count for pictures in (1000, 1)] == [6, 1]
