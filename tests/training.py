"""Short training runs, ways to interrupt them, and their results in a form to compare exactly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Toy, ToyOptions
from torch import Tensor

from datasets import Record
from detectors._base import Detector
from engine.config import Config, ScoreOptions, TrainOptions
from engine.phases import train
from engine.reporting import plots
from engine.runtime.distributed import ALONE, World
from engine.runtime.workers import Workers
from engine.training import loop, outputs
from engine.training.checkpoint import read_checkpoint
from engine.training.loop import Trainer
from engine.training.outputs import CHECKPOINT, HISTORY
from engine.training.start import Pictures, Start, TrainRequest
from engine.weights.files import read_weights
from engine.weights.manifest import BEST

Parts = tuple[list[Record], list[Record]]
# Two epochs of four steps; all that a resumed run has to restore is in use.
RECIPE = {
    "epochs": 2, "batch_size": 4, "lr": 0.02, "head_lr": 2.0, "schedule": "cosine", "warmup": 0.5,
    "weight_decay": 0.01, "clip_norm": 1.0, "label_smoothing": 0.1, "ema": 0.9, "anchor": 0.2,
    "balance": 0.5, "save_every": 3, "seed": 5, "report": False,
}  # fmt: skip
STEPS = 8


AFRESH = Start(None, [])


class Killed(BaseException):
    """The process ends here: nothing of the program may catch it."""


def config_of(**changes: Any) -> Config:
    """The recipe with changes."""
    return Config("toy", ToyOptions(), TrainOptions(**(RECIPE | changes)), score=ScoreOptions(8))


def request_of(
    config: Config,
    parts: Parts,
    output: Path,
    workers: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    tests: dict[str, list[Record]] | None = None,
    start: Start = AFRESH,
) -> TrainRequest:
    """A training on the CPU as the command line asks for it."""
    pictures = Pictures(*parts, "as given", [], tests or {})
    return TrainRequest(
        config, start, pictures, torch.device("cpu"), output, Workers(workers),
        resume=resume, overwrite=overwrite,
    )  # fmt: skip


def run(
    output: Path,
    parts: Parts,
    resume: bool = False,
    overwrite: bool = False,
    kind: type[Detector] = Toy,
    workers: int = 0,
    board: bool = False,
    curves: bool = False,
    world: World = ALONE,
    tests: dict[str, list[Record]] | None = None,
    start: Start = AFRESH,
    **changes: Any,
) -> list[dict[str, float]]:
    """Trains as the command line does, from the seed on; without TensorBoard unless `board`, and
    without plots unless `curves`."""
    settings = config_of(**changes)
    request = request_of(settings, parts, output, workers, resume, overwrite, tests, start)
    train.seed_everything(settings.train.seed)
    model = kind(settings.options)
    with pytest.MonkeyPatch.context() as patch:
        if not board:
            patch.setattr(loop, "_tensorboard", lambda output, epoch: None)
        if not curves:
            patch.setattr(outputs, "draw_curves", lambda history, best, title: b"")
            patch.setattr(plots, "draw", lambda analysis: {})
        return train.train(request, model, world)


def plain(value: Any) -> Any:
    """Tensors as (dtype, shape, bytes), so that == is bitwise."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def result(output: Path) -> dict[str, Any]:
    """All that a finished run leaves, in values that can be compared exactly."""
    saved, note = read_checkpoint(output / CHECKPOINT)
    assert saved is not None
    assert note == ""
    best, card = read_weights(output / BEST)
    return {
        "checkpoint": plain(saved),
        "best": plain(best),
        "card": card,
        "history": (output / HISTORY).read_bytes(),
        "files": sorted(path.name for path in output.iterdir()),
    }


def kill() -> None:
    """Ends the process as far as the program can tell."""
    raise Killed


def terminate() -> None:
    """Asks this process to stop, as `kill` or a batch system does."""
    os.kill(os.getpid(), signal.SIGTERM)


def at_call(
    patch: pytest.MonkeyPatch, place: Any, name: str, number: int, action: Callable[[], None]
) -> None:
    """Does `action` when the n-th call (1-based, from now on) of `place.name` begins."""
    original, calls = getattr(place, name), 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return original(*arguments)

    patch.setattr(place, name, counted)


def at_step(patch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Does `action` when the n-th optimizer step from now on begins."""
    at_call(patch, Trainer, "_step", number, action)
