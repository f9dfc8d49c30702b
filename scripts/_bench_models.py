"""Measures of the published detectors: times against plain ways, and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets import Record
from datasets._images import open_picture
from detectors._base import Detector
from engine.runtime.device import PRECISIONS, Device, reuse_memory
from engine.runtime.workers import Workers
from engine.scoring.loop import score

from . import _bench_plain as plain
from ._bench_base import (
    EXAMPLES,
    PHASE_TEST,
    Figure,
    Run,
    alternate,
    faster,
    jpeg_folder,
    matrix_speedup,
    memory,
    moved,
    return_memory,
    same,
    square_picture,
)
from ._bench_weights import SD_ARTIFACT, SPAI, SSP, Case, cospy_files, load, spai_file

CPU = torch.device("cpu")
SSP_PICTURES, COSPY_PICTURES = 64, 4
SCORE_BATCH, SCORE_WORKERS = 16, 1
HUGE = 10_000  # px a side


def _product(case: Case, precision: str) -> Detector:
    return load(case, PRECISIONS[precision]).model


def _forward(model: Detector, batch: object, precision: str) -> Callable[[], Tensor]:
    """What the scoring loop does with a batch."""

    def run() -> Tensor:
        reuse_memory()
        with torch.inference_mode(), Device(CPU, precision).autocast():
            return model(batch)

    return run


def _plainly(way: Callable[..., Tensor], *args: object) -> Callable[[], Tensor]:
    def run() -> Tensor:
        return_memory()
        with torch.inference_mode():
            return way(*args)

    return run


def _compared(name: str, runs: dict[str, Run], fp32: float, bf16: float) -> list[Figure]:
    """The rows of a plain way in fp32 against the product in both precisions."""
    return [
        same(f"{name}: logits, plain against product", runs["plain"], runs["fp32"]),
        faster(f"{name}: product in fp32 against plain", runs["plain"], runs["fp32"], fp32),
        faster(f"{name}: product in bf16 against plain", runs["plain"], runs["bf16"], bf16),
        moved(f"{name}: largest move of a score by bf16", runs["plain"], runs["bf16"]),
    ]


# --- one process, stage by stage


@dataclass(frozen=True)
class Stages:
    """Seconds of decode, transform, forward fp32 and forward bf16, and how far bf16 moved the
    score that moved the most."""

    seconds: dict[str, float]
    moved: float

    def shares(self) -> str:
        """Each stage's part of a run in fp32."""
        names = ("decode", "transform", "forward fp32")
        total = sum(self.seconds[name] for name in names)
        return ", ".join(f"{name} {100 * self.seconds[name] / total:.0f} %" for name in names)

    def rows(self) -> list[Figure]:
        """As lines of the result."""
        speedup = self.seconds["forward fp32"] / self.seconds["forward bf16"]
        return [
            Figure("share of the time in one process", self.shares()),
            Figure("forward in bf16 against fp32", f"{speedup:.2f} x faster"),
            Figure("largest move of a score by bf16", f"{self.moved:.4f}"),
        ]


def stages(model: Detector, paths: list[Path]) -> Stages:
    """Where the time goes in one process, `SCORE_BATCH` pictures at a time."""
    transform, rng = model.transform(train=False), np.random.default_rng(0)
    seconds = dict.fromkeys(("decode", "transform", "forward fp32", "forward bf16"), 0.0)
    scores: dict[str, list[float]] = {"fp32": [], "bf16": []}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        seconds[name] += time.monotonic() - start

    for first in range(0, len(paths), SCORE_BATCH):
        with timed("decode"):
            images = [open_picture(path) for path in paths[first : first + SCORE_BATCH]]
        with timed("transform"):
            items = [transform(image, rng) for image in images]
        batch = model.collate(items)
        for precision, found in scores.items():
            with timed(f"forward {precision}"):
                logits = _forward(model, batch, precision)()
            found += torch.sigmoid(logits.float()).tolist()
    pairs = zip(scores["fp32"], scores["bf16"], strict=True)
    return Stages(seconds, max(abs(a - b) for a, b in pairs))


# --- the measures


def measure_spai(_: Path) -> list[Figure]:
    """One picture of 1024 x 1024, 16 patches."""
    drawn = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, 1024, 1024), dtype=torch.uint8, generator=drawn)
    model = _product(SPAI, "fp32")
    ways = {
        "plain": _plainly(plain.spai, load(SPAI, fast=False).model, picture),
        "fp32": _forward(model, [picture], "fp32"),
        "bf16": _forward(_product(SPAI, "bf16"), [picture], "bf16"),
    }
    return [*_compared("SPAI", alternate(ways), 1.15, 3.5), matrix_speedup()]


def _scored(model: Detector, paths: list[Path], precision: str) -> Callable[[], Tensor]:
    """The scoring loop over pictures, with a worker."""
    records = [Record(path.name, path) for path in paths]

    def run() -> Tensor:
        device = Device(CPU, precision)
        found = score(model, records, device, SCORE_BATCH, Workers(SCORE_WORKERS))
        return torch.tensor([row.logit for rows in found for row in rows])

    return run


def measure_ssp(folder: Path) -> list[Figure]:
    """Pictures a second over a folder of JPEGs: one after the other against the scoring loop."""
    paths = jpeg_folder(folder / "pictures", SSP_PICTURES)
    model = _product(SSP, "fp32")
    ways = {
        "plain": _plainly(plain.ssp, plain.planar(load(SSP, fast=False).model), paths),
        "fp32": _scored(model, paths, "fp32"),
        "bf16": _scored(model, paths, "bf16"),
    }
    runs = alternate(ways, repeats=3)
    rates = ", ".join(f"{name} {len(paths) / run.seconds:.1f}" for name, run in runs.items())
    return [
        Figure("SSP: pictures/s, plain and product", rates),
        *_compared("SSP", runs, 2.0, 2.0),
        Figure("SSP: share of the time in one process", stages(model, paths).shares()),
    ]


def measure_cospy(_: Path) -> list[Figure]:
    """The artifact branch of sd-v1_4, a batch of pictures."""
    model, apart = _product(SD_ARTIFACT, "fp32"), load(SD_ARTIFACT, fast=False).model
    transform, rng = model.transform(train=False), np.random.default_rng(0)
    paths = sorted((EXAMPLES / "real").iterdir())[:COSPY_PICTURES]
    batch = model.collate([transform(open_picture(path), rng) for path in paths])
    ways = {
        "plain": _plainly(plain.artifact, plain.with_public_attention(apart), batch),
        "fp32": _forward(model, batch, "fp32"),
        "bf16": _forward(_product(SD_ARTIFACT, "bf16"), batch, "bf16"),
    }
    return _compared("CO-SPY sd-v1_4 artifact", alternate(ways), 1.1, 1.8)


def measure_spai_memory(folder: Path) -> list[Figure]:
    """Peak memory of scoring 100 megapixels, loading included; in bf16 to save time."""
    picture = folder / "huge.jpg"
    square_picture(picture, HUGE)
    weights = ["--detector", "spai", "--weights", str(spai_file(folder))]
    command = [*PHASE_TEST, *weights, "--precision", "bf16", "--input", str(picture)]
    return [memory("SPAI in bf16: peak memory, 100 megapixels", command, 3.0)]


def measure_cospy_memory(folder: Path) -> list[Figure]:
    """Peak memory of one verdict of CO-SPY's sd-v1_4 fusion, loading included."""
    own, frozen = cospy_files(folder)
    command = [*PHASE_TEST, "--train_dataset", "sd-v1_4", "--weights", str(own)]
    command += ["--backbone_weights", *map(str, frozen)]
    command += ["--input", str(EXAMPLES / "real" / "rocket.jpg")]
    what = "CO-SPY sd-v1_4 fusion in {}: peak memory, a verdict"
    return [
        memory(what.format("fp32"), command, 3.5),
        memory(what.format("bf16"), [*command, "--precision", "bf16"], 2.2),
    ]
