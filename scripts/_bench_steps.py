"""Training steps to time: the product's, and the published way in fp32.

    python scripts/_bench_steps.py RECIPE WAY DEVICE BATCH STEPS RESULT

is what a measure starts as a process of its own, to see its time and memory alone: WAY is plain or
a precision; RESULT is the JSON file that it writes a `Timing` to.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets._images import open_picture  # noqa: E402
from detectors._base import Detector  # noqa: E402
from detectors.cospy import interpolate  # noqa: E402
from engine.config import CONFIGS, Config, read_yaml, resolve  # noqa: E402
from engine.runtime.device import Device, reuse_memory  # noqa: E402
from engine.runtime.distributed import ALONE  # noqa: E402
from engine.scoring.loop import move  # noqa: E402
from engine.training.step import Batch, Stepper, make_optimizer  # noqa: E402
from scripts import _bench_plain as plain  # noqa: E402
from scripts._bench_base import EXAMPLES, return_memory  # noqa: E402
from scripts._bench_weights import Case, load, text_tower  # noqa: E402

PLAIN = "plain"
COMPARED = 2  # pictures whose loss is compared between the ways
Step = Callable[[], float]


@dataclass(frozen=True)
class Recipe:
    """A published training: `config` is the name of its file; `batch` the published size."""

    title: str
    config: str
    batch: int

    def read(self) -> Config:
        """Its configuration."""
        layer = read_yaml(CONFIGS / f"{self.config}.yaml")
        return resolve(self.config.split("_")[0], [(self.config, layer)])

    def model(self) -> Detector:
        """The detector as training starts it, with weights by the rule of the golden runs."""
        config = self.read()
        options = dataclasses.asdict(config.options)
        return load(Case(self.title, config.detector, self.config, options), fast=False).model


RECIPES = {
    "ssp": Recipe("SSP", "ssp", 64),
    "artifact": Recipe("CO-SPY sd-v1_4 artifact", "cospy_sd-v1_4_artifact", 32),
    "semantic": Recipe("CO-SPY sd-v1_4 semantic", "cospy_sd-v1_4_semantic", 32),
    "spai": Recipe("SPAI", "spai", 72),
}


@dataclass(frozen=True)
class Timing:
    """What a process found: `seconds` of its fastest step, and the least `processor` time of one,
    summed over cores; `loss` of `COMPARED` pictures, without
    dropout, before any step; on CUDA `peak` bytes of the device's memory, and the share of the time
    that it was `busy`."""

    seconds: float
    processor: float
    loss: float
    peak: int = 0
    busy: float = 0.0


def training_batch(model: Detector, size: int) -> Batch:
    """Augmented example pictures, real and synthetic in turn."""
    paths = sorted((EXAMPLES / "real").iterdir())
    transform = model.transform(train=True)
    pictures = [open_picture(paths[i % len(paths)]) for i in range(size)]
    items = [transform(picture, np.random.default_rng(i)) for i, picture in enumerate(pictures)]
    keys = [str(i) for i in range(size)]
    return Batch(model.collate(items), [float(i % 2) for i in range(size)], keys)


# --- the published way


def published(name: str, model: Detector) -> Any:
    """The model as the published code has it: planar, with the public attention and dropout."""
    if name == "artifact":
        return plain.with_public_attention(model)
    if name == "spai":
        return plain.with_public_dropout(model)
    return model.to(memory_format=torch.contiguous_format)


def plain_loss(name: str, model: Any, values: Any, labels: Tensor) -> Tensor:
    """The published training loss, a scalar, in fp32; `model` as `published` gives it."""
    if name == "spai":
        logits = plain.spai_views(model, torch.stack(values))
    elif name == "ssp":
        logits = plain.ssp_patches(model, values[:, 0])
    elif name == "artifact":
        logits = plain.artifact(model, values)
    else:
        features, options = plain.semantic_features(model, values), model.options
        if model.training and options.feat_interp:
            alpha, ratio = options.feat_interp_alpha, options.feat_interp_ratio
            features, labels = interpolate(features, labels, alpha, ratio)
        logits = model.semantic.fc(features).squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, labels)


def plain_way(name: str, model: Any, config: Config, batch: Batch, device: torch.device) -> Step:
    """A step in fp32 as the published code makes it; gives the loss."""
    optimizer = make_optimizer(model, config.train)

    def step() -> float:
        values = move(batch.values, device)
        labels = torch.tensor(batch.labels, device=device)
        optimizer.zero_grad()
        loss = plain_loss(name, model, values, labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def product_way(model: Detector, config: Config, batch: Batch, device: Device) -> Step:
    """The product's step; gives the loss."""
    stepper = Stepper(model, config.train, device, ALONE)
    return lambda: stepper.step([batch], config.train.lr).loss


# --- a process of its own


def compared_loss(name: str, model: Any, batch: Batch, way: str, device: torch.device) -> float:
    """Loss of the first pictures with dropout and stochastic depth off, computed as in training."""
    values = move(batch.values[:COMPARED], device)
    labels = torch.tensor(batch.labels[:COMPARED], device=device)
    model.eval()
    if way == PLAIN:
        return float(plain_loss(name, model, values, labels).detach())
    with Device(device, way).autocast():
        return float(model.loss(values, labels).detach())


def fastest(step: Step, steps: int, device: torch.device) -> tuple[float, float]:
    """Least wall time and least processor time of some steps, after one that warms up."""
    wall, processor = [], []
    for _ in range(steps + 1):
        start, used = time.monotonic(), time.process_time()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        wall.append(time.monotonic() - start)
        processor.append(time.process_time() - used)
    return min(wall[1:]), min(processor[1:])


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end), in their unit."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _on_device(event: FunctionEvent) -> bool:
    return event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation


def busy_seconds(step: Step, steps: int, device: torch.device) -> float:
    """Seconds of a step, mean of some, in which the CUDA device computes or copies."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize(device)
    events = [event for event in profile.events() or [] if _on_device(event)]
    return covered((e.time_range.start, e.time_range.end) for e in events) / steps / 1e6


def timing(name: str, way: str, device: torch.device, size: int, steps: int) -> Timing:
    """Times a recipe's step by a way on batches of `size` pictures."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    config, model = recipe.read(), recipe.model()
    batch = training_batch(model, size)
    if way == PLAIN:
        return_memory()
        # The published code keeps the encoder's text tower beside it.
        beside = text_tower() if name == "semantic" and device.type == "cpu" else {}
        model = published(name, model).to(device)
        step = plain_way(name, model, config, batch, device)
    else:
        beside = {}
        if device.type == "cpu":
            reuse_memory()
        model = model.to(device)
        step = product_way(model, config, batch, Device(device, way))
    loss = compared_loss(name, model, batch, way, device)
    model.train()
    seconds, processor = fastest(step, steps, device)
    del beside
    if device.type != "cuda":
        return Timing(seconds, processor, loss)
    busy = busy_seconds(step, steps, device) / seconds
    return Timing(seconds, processor, loss, torch.cuda.max_memory_allocated(device), min(1.0, busy))


def main(arguments: list[str]) -> None:
    """Command line: see above."""
    name, way, device, size, steps, result = arguments
    found = timing(name, way, torch.device(device), int(size), int(steps))
    Path(result).write_text(json.dumps(dataclasses.asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
