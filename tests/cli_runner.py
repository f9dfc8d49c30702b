"""Runs the command line inside the tests' process, with small detectors of random weights."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_picture
from torch import nn

import detectors
import main
from detectors._base import Detector
from detectors._default_options import DefaultOptions
from detectors._options import describe_options
from engine.reporting import plots
from engine.training import outputs
from engine.weights.cards import Card
from engine.weights.files import save_weights

# A process that decodes takes longer to fork than a test's pictures take to decode.
QUICK = ("--set", "score.resamples=2", "--workers", 0)
# The branch that ships, which is also the faster one to build.
SMALL = DefaultOptions(branch="semantic", blocks=2, crop=48, views=1, size="tiny")


@dataclass(frozen=True)
class Done:
    """How a command ended. `log`: the lines that go to standard error as log lines; `program`: its
    name, with which its complaints begin."""

    status: int
    out: str
    err: str
    log: list[str]
    program: str = "main.py: "

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The objects of --json, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The one line of an error of use, which comes without results."""
        assert (self.status, self.out) == (2, ""), self
        line, *more = self.err.splitlines()
        assert not more and line.startswith(self.program), self.err
        return line


Cli = Callable[..., Done]


def script(
    capsys: pytest.CaptureFixture[str], program: str, run: Callable[[list[str]], int]
) -> Cli:
    """A function that runs a script of scripts/, of that name, with its arguments."""

    def run_it(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            status = run([str(word) for word in arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err, [], program)

    return run_it


def in_process(run: Cli) -> Cli:
    """A script that decodes pictures in the tests' process, unless its arguments say otherwise: to
    start processes takes longer than a few pictures do."""

    def run_it(*words: object) -> Done:
        return run(*words, *(() if "--workers" in words else ("--workers", 0)))

    return run_it


def runner(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *first: object,
    drawn: bool = False,
) -> Cli:
    """A function that runs main.py with QUICK, `first` and its own arguments; without plots, which
    take most of a small run's time, unless they are to be `drawn`."""
    if not drawn:
        monkeypatch.setattr(plots, "draw", lambda *_: {})
        monkeypatch.setattr(outputs, "draw_curves", lambda *_: b"")

    def run(*arguments: object, stdin: bytes = b"") -> Done:
        caplog.clear()
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        words = [str(word) for word in (*QUICK, *first, *arguments)]
        try:
            status = main.main(words)
        except SystemExit as error:
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err, list(caplog.messages))

    return run


@cache
def _random(name: str, seed: int, options: Any) -> Detector:
    """A detector of seeded random weights whose logits spread around 0 over generated pictures."""
    kind = detectors.load(name)
    pictures = [make_picture(number, fake=bool(number % 2)) for number in range(8)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = kind(options or (SMALL if name == "default" else kind.tiny()))
        items = [model.transform(train=False)(picture, None) for picture in pictures]
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of exactly the next pass
            if isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.1)  # zeros would hide all that is before them
        model.train()(model.collate(items))
        model.eval()
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.normal_(last.weight)
        logits = model(model.collate(items))
        last.weight /= logits.std() / 2
        last.bias.copy_((last.bias - logits.mean()) / (logits.std() / 2))
    return model


def write_weights(
    path: Path,
    name: str = "default",
    band: tuple[float, float] | None = None,
    seed: int = 0,
    options: Any = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """A weight file of a detector of seeded random weights, its tiny variant unless `options`."""
    model = _random(name, seed, options)
    card = Card(name, describe_options(model.options), 0.5, band, extra)
    save_weights(path, model.state_dict(), card)
    return path


# --- fixtures: a module that imports one has it


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small detector's weights; a module may have others by a fixture of this name."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def plain_cli(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    """main.py on the CPU."""
    return runner(capsys, caplog, monkeypatch, "--device", "cpu")


@pytest.fixture
def cli(
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    """main.py on the CPU with the module's `weights`."""
    return runner(capsys, caplog, monkeypatch, "--device", "cpu", "--weights", weights)
