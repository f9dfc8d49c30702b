"""Measures of phase train: how fast pictures come, and steps against the published way in fp32."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets import Label, Record
from datasets._images import Draw, PictureDataset
from detectors._base import Detector
from engine.config import Config
from engine.runtime.device import training_device
from engine.runtime.workers import Pool, Workers
from engine.training import loop
from engine.training.loop import Trainer

from ._bench_base import EXAMPLES, GB, REPEATS, Cost, Figure, run_once
from ._bench_steps import COMPARED, PLAIN, RECIPES, Recipe, Timing

STEPS = Path(__file__).with_name("_bench_steps.py")
SIZES = ((640, 480), (1024, 768))
LOADED, LOADED_BATCH = 192, 32  # pictures
WAITED_STEPS = 4
# Pictures of a step, few enough for a CPU.
WAITED = {"ssp": 16, "artifact": 2, "semantic": 2, "spai": 2}
SPAI_BATCH, COSPY_BATCH = 8, 8
GPU_STEPS = 10
SAME_LOSS = 0.02
OUT_OF_MEMORY = "OutOfMemoryError"


# --- pictures


def mixed_jpegs(folder: Path, count: int) -> list[Record]:
    """JPEGs of `SIZES` in turn, crops of the example photographs; real and synthetic in turn."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in sorted((EXAMPLES / "real").iterdir())]
    sources = [source.resize((1200, 900)) for source in sources]
    records = []
    for index in range(count):
        width, height = SIZES[index // 2 % len(SIZES)]
        source = sources[index % len(sources)]
        left = int(rng.integers(source.width - width + 1))
        top = int(rng.integers(source.height - height + 1))
        path = folder / f"{index:03}.jpg"
        source.crop((left, top, left + width, top + height)).save(path, quality=90)
        records.append(Record(path.name, path, Label(index % 2)))
    return records


def loading_rate(model: Detector, records: list[Record], epoch: int) -> float:
    """Augmented pictures a second that one worker gives to a training loop that does nothing, from
    its first batch on."""
    draws = [Draw(index, epoch) for index in range(len(records))]
    pool = Pool(PictureDataset(records, model.transform(train=True)), Workers(1))
    batches = pool.batches(
        draws[first : first + LOADED_BATCH] for first in range(0, len(draws), LOADED_BATCH)
    )
    next(batches)
    start = time.monotonic()
    taken = sum(len(items) for items in batches)
    return taken / (time.monotonic() - start)


class Waits(logging.Handler):
    """Takes the share of waiting, in percent, from what each epoch of a training logs."""

    def __init__(self) -> None:
        super().__init__()
        self.percent: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting for pictures" in record.msg and isinstance(record.args, tuple):
            self.percent.append(float(str(record.args[-1])))


def waiting(recipe: Recipe, records: list[Record], size: int, output: Path) -> float:
    """Percent of the second epoch of a training in bf16 on the CPU, with a worker, that went by
    without pictures to train on; the first one starts the worker."""
    found = recipe.read()
    options = replace(
        found.train, epochs=2, batch_size=size, precision="bf16", report=False, save_every=0
    )
    config = Config(found.detector, found.options, options)
    taken, device = records[: size * WAITED_STEPS], torch.device("cpu")
    output.mkdir()
    trainer = Trainer(recipe.model(), config, taken, records[:2], device, output, Workers(1))
    handler, logger, level = Waits(), loop.log, loop.log.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        trainer.run()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return handler.percent[-1]


def measure_train_loading(folder: Path) -> Iterator[Figure]:
    """Decoding and augmentation in one worker, and how long training waits for it."""
    records = mixed_jpegs(folder / "pictures", LOADED)
    sizes = " and ".join(f"{width} x {height}" for width, height in SIZES)
    for name, recipe in RECIPES.items():
        model = recipe.model()
        rate = max(loading_rate(model, records, epoch) for epoch in range(REPEATS))
        what = f"{recipe.title}: JPEGs of {sizes}, decoded and augmented by one worker"
        yield Figure(what, f"{rate:.0f} pictures/s")
        percent = waiting(recipe, records, WAITED[name], folder / name)
        what = f"{recipe.title}: time without pictures, published size, batch {WAITED[name]}, bf16"
        yield Figure(f"{what}, CPU", f"{percent:.0f} %")


# --- steps


@dataclass(frozen=True)
class Timed:
    """What a process found, and what it cost."""

    timing: Timing
    cost: Cost


def timed(name: str, way: str, device: str, size: int, steps: int, result: Path) -> Timed:
    """Steps of a recipe by a way in a process of its own. Raises RuntimeError when it fails."""
    numbers = [str(size), str(steps), str(result)]
    cost = run_once([sys.executable, str(STEPS), name, way, device, *numbers])
    return Timed(Timing(**json.loads(result.read_text(encoding="utf-8"))), cost)


def _against_plain(
    name: str, size: int, limit: float, folder: Path, rounds: int, steps: int
) -> Iterator[Figure]:
    """Rows of the product's step in bf16 against the published way, on the CPU. The ways take
    turns, so that what else the machine does falls on both."""
    ways = (PLAIN, "bf16")
    found: dict[str, list[Timed]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(timed(name, way, "cpu", size, steps, folder / "result.json"))
    runs = [found[way] for way in ways]
    seconds = [min(each.timing.seconds for each in some) for some in runs]
    processor = [min(each.timing.processor for each in some) for some in runs]
    memory = [max(each.cost.megabytes for each in some) * 2**20 / GB for some in runs]
    losses = [some[0].timing.loss for some in runs]
    what = f"{RECIPES[name].title}: step of {size} on the CPU, published fp32 against our bf16"
    ratio = seconds[0] / seconds[1]
    value = f"{ratio:.2f} x ({seconds[0]:.1f} s against {seconds[1]:.1f} s)"
    yield Figure(what, value, f">= {limit} x", ratio >= limit)
    yield Figure("processor time of the same", f"{processor[0] / processor[1]:.2f} x")
    yield Figure("peak memory of the same", f"{memory[0]:.2f} GB against {memory[1]:.2f} GB")
    apart = abs(losses[0] - losses[1])
    what = f"losses of {COMPARED} pictures, without dropout, by both ways"
    value = f"{losses[0]:.5f}, {losses[1]:.5f}: {apart:.1e} apart"
    yield Figure(what, value, f"<= {SAME_LOSS}", apart <= SAME_LOSS)


def measure_train_spai(folder: Path) -> Iterator[Figure]:
    """Four views in turn, three ViT passes in turn, in fp32, against ours in bf16; one round, for a
    step takes minutes."""
    return _against_plain("spai", SPAI_BATCH, 2.5, folder, rounds=1, steps=2)


def measure_train_cospy(folder: Path) -> Iterator[Figure]:
    """The semantic branch: all in fp32 beside its text tower, against ours in bf16."""
    return _against_plain("semantic", COSPY_BATCH, 1.8, folder, rounds=3, steps=2)


def _gpu_row(name: str, folder: Path) -> Figure:
    """A recipe's step at the published batch on the first GPU."""
    recipe = RECIPES[name]
    precision = training_device(torch.device("cuda"), None).precision
    result = folder / "result.json"
    ours = timed(name, precision, "cuda", recipe.batch, GPU_STEPS, result).timing
    rate = recipe.batch / ours.seconds
    try:
        plainly = timed(name, PLAIN, "cuda", recipe.batch, GPU_STEPS, result).timing
        against = f"{plainly.seconds / ours.seconds:.2f} x as fast as plain fp32"
        against += f" ({plainly.peak / GB:.1f} GB)"
    except RuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        against = "plain fp32 does not fit"
    value = f"{rate:.0f} pictures/s, {ours.peak / GB:.1f} GB, busy {100 * ours.busy:.0f} %"
    return Figure(f"{recipe.title}: step of {recipe.batch} in {precision}", f"{value}; {against}")


def measure_train_gpu(folder: Path) -> Iterator[Figure]:
    """Each recipe's step in mixed precision where there is a GPU."""
    if not torch.cuda.is_available():
        yield Figure("training steps on a GPU", "not measured: this machine has none")
        return
    yield Figure("GPU of the training steps", torch.cuda.get_device_name())
    for name in RECIPES:
        yield _gpu_row(name, folder)
