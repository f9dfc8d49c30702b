"""Measures of phase eval: what scoring each picture once saves, and what the engine costs.

    python scripts/_bench_eval.py FOLDER TABLE    scores with a detector that does nothing

is what a measure starts as a process of its own, to see its memory alone.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import datasets  # noqa: E402
from datasets import Record  # noqa: E402
from datasets._images import PictureDataset, open_picture  # noqa: E402
from detectors import _transforms as T  # noqa: E402
from detectors._base import Detector  # noqa: E402
from engine.config import resolve  # noqa: E402
from engine.evaluation import benchmark as benchmarks  # noqa: E402
from engine.evaluation import metrics  # noqa: E402
from engine.runtime.device import open_device  # noqa: E402
from engine.runtime.workers import Workers  # noqa: E402
from engine.scoring.cache import Memo  # noqa: E402
from engine.scoring.scorer import Scorer, score_table  # noqa: E402
from engine.weights.loading import build, locate, open_weights  # noqa: E402
from scripts._bench_base import REPEATS, Figure, alternate, jpeg_folder, run_once  # noqa: E402

FAKES, BATCH = 20, 32
LISTED = 1_000_000
SMALL = 5000
SETS = ("SDv15R-CC1M/SDv15R-dpmsolver-25-1M", "IFv1-CC1M/IFv1-dpmsolver++-50-1M")
LISTING = """
import sys
from pathlib import Path
import datasets
datasets.load("fake2m").records(Path(sys.argv[1]), "train")
"""
# A row of the score table as Python keeps it: its fields, and the texts that no other row has.
ROW_BYTES = 2000


# --- Co-Spy-Bench


def miniature(root: Path) -> tuple[Path, Path, Path]:
    """Co-Spy-Bench with 20 pictures per cell and class: its root, mscoco reals, flickr reals."""
    whole = benchmarks.load("cospy_bench")
    pictures = jpeg_folder(root / "pictures", FAKES)
    small = [Image.open(path).convert("RGB").resize((128, 96)) for path in pictures]
    bench, mscoco, flickr = root / "bench", root / "mscoco", root / "flickr"
    reals = {name: bench / "real_image_examples" / name.upper() for name in whole.sources}
    reals |= {"textcaps": bench / "real_image_examples" / "TextCaps"}
    reals |= {"mscoco": mscoco, "flickr": flickr}
    shade = 0
    for source in whole.sources:
        folders = [bench / "synthetic" / source / name for name in whole.generators]
        for folder in (reals[source], *folders):
            folder.mkdir(parents=True)
            shade += 1  # no two pictures are the same file
            for index, picture in enumerate(small):
                marked = np.asarray(picture).copy()
                marked[0, 0] = shade
                suffix = "jpg" if folder == reals[source] else "png"
                Image.fromarray(marked).save(folder / f"{index:05}.{suffix}")
    return bench, mscoco, flickr


def plain_cospy_bench(records: list[Record], model: Detector) -> int:
    """The published way: every cell scores its reals and its fakes. Returns the forward passes."""
    transform, rng = model.transform(train=False), np.random.default_rng(0)
    passes = 0
    for source in sorted({r.source for r in records}):
        reals = [r for r in records if r.source == source and not r.generator]
        for generator in sorted({r.generator for r in records if r.generator}):
            fakes = [r for r in records if (r.source, r.generator) == (source, generator)]
            cell = reals + fakes
            for first in range(0, len(cell), BATCH):
                pictures = [open_picture(r.path) for r in cell[first : first + BATCH]]
                items = [transform(T.jpeg(picture, 95), rng) for picture in pictures]
                with torch.inference_mode():
                    model(model.collate(items))
                passes += len(items)
    return passes


def shipped() -> Detector:
    """The detector that ships, with one view, so that the measure stays short."""
    file = open_weights(locate(None, "default"), "default")
    assert file.card is not None
    options = {**file.card.options, "views": 1}
    return build(
        "default", resolve("default", [("card", {"default": options})]).options, file
    ).model


def measure_cospy_bench(folder: Path) -> list[Figure]:
    """Forward passes and time of Co-Spy-Bench against those of the published way."""
    bench, mscoco, flickr = miniature(folder)
    parts = {"mscoco": str(mscoco), "flickr": str(flickr)}
    records = benchmarks.records(benchmarks.load("cospy_bench"), bench, None, parts, ())
    start = time.monotonic()
    passes = plain_cospy_bench(records, shipped())
    plain = time.monotonic() - start
    output = folder / "run"
    cost = run_once(
        [
            sys.executable, "main.py", "--phase", "eval", "--detector", "default",
            "--device", "cpu", "--benchmark", "cospy_bench", "--data_root", str(bench),
            "--workers", "1", "--cache", "none", "--output", str(output),
            "--set", "default.views=1", *(f"data.{name}={path}" for name, path in parts.items()),
        ]
    )  # fmt: skip
    info = json.loads((output / "run.json").read_text())
    ratio = info["counts"]["scored_now"] / passes
    scoring = info["seconds"]
    return [
        Figure(
            "Co-Spy-Bench, 110 cells of 20 + 20: forward passes against the published way",
            f"{ratio:.3f} ({info['counts']['scored_now']} of {passes})",
            "<= 0.53",
            ratio <= 0.53,
        ),
        Figure(
            "the same: time of scoring",
            f"{scoring / plain:.2f} x ({scoring:.0f} s against {plain:.0f} s)",
        ),
        Figure("the same, with start, metrics and report", f"{cost.seconds:.0f} s"),
    ]


# --- listing


def empty_tree(root: Path, count: int) -> None:
    """A tree of Fake2M with `count` empty files and their metadata."""
    per_set = count // len(SETS)
    meta = root / "MetaData" / "train"
    meta.mkdir(parents=True)
    for place in SETS:
        folder = root / "ImageData" / "train" / place
        folder.mkdir(parents=True)
        names = [f"{index:07}.jpg" for index in range(per_set)]
        for name in names:
            (folder / name).touch()
        lines = (f"{place}/{name} 0\n" for name in names)
        (meta / f"{place.split('/')[0]}.csv").write_text("".join(lines))


def measure_listing(folder: Path) -> list[Figure]:
    """Time and memory of listing a million records, by their metadata and by walking."""
    empty_tree(folder, LISTED)
    rows = []
    for how in ("by its metadata", "by walking its folders"):
        cost = run_once([sys.executable, "-c", LISTING, str(folder)])
        met = cost.seconds < 30 and cost.megabytes < 1500
        value = f"{cost.seconds:.1f} s, {cost.megabytes:.0f} MB"
        rows.append(Figure(f"listing {LISTED:,} of Fake2M {how}", value, "< 30 s, < 1.5 GB", met))
        shutil.rmtree(folder / "MetaData", ignore_errors=True)
    return rows


# --- a detector that does nothing


class Null(Detector):
    """A detector whose forward pass costs nothing: what is left is the engine."""

    def transform(self, train: bool) -> Any:  # noqa: ARG002
        """Picture -> its upper left pixel."""
        return _corner

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 3) -> logits (B,)."""
        return batch.sum(dim=1) - 1.0


def _corner(image: Image.Image, _: np.random.Generator) -> Tensor:
    return torch.tensor(image.getpixel((0, 0))) / 255.0


def null_scores(records: list[Record], path: Path) -> Tensor:
    """Logits of all records through the evaluation's own loop, in one worker process."""
    config = resolve("default", [("", {"score": {"batch_size": BATCH}})])
    memos = {"none": Memo(None)}
    scorer = Scorer(
        Null(SimpleNamespace()).eval(), open_device("cpu", "fp32"), config, Workers(1), memos
    )
    rows = score_table(path, records, scorer, ["none"])
    return torch.tensor([row.logit for row in rows])


def bare_loader(records: list[Record]) -> Tensor:
    """Decodes the same pictures in one worker process, and nothing else."""
    pictures: Any = PictureDataset(records, _corner)
    loader: DataLoader = DataLoader(pictures, BATCH, num_workers=1, collate_fn=list)
    return torch.stack([item.value for items in loader for item in items]).sum(dim=1) - 1.0


def small_pictures(folder: Path, count: int) -> list[Record]:
    """JPEGs of 160 x 120 as records of either class; many names of a few files."""
    sources = []
    for index, path in enumerate(jpeg_folder(folder / "large", 50)):
        sources.append(folder / f"{index:02}.jpg")
        Image.open(path).resize((160, 120)).save(sources[-1], quality=90)
    for name in ("real", "fake"):
        (folder / "data" / name).mkdir(parents=True)
    for index in range(count):
        place = folder / "data" / ("real", "fake")[index % 2] / f"{index:06}.jpg"
        place.hardlink_to(sources[index % len(sources)])
    return datasets.open_path(folder / "data")


def measure_overhead(folder: Path) -> list[Figure]:
    """Pictures a second through the engine against a bare loader; memory per picture."""
    records = small_pictures(folder, SMALL)
    ways = {
        "bare": lambda: bare_loader(records),
        "engine": lambda: null_scores(records, folder / "scores.csv"),
    }
    runs = alternate(ways, repeats=3)
    ratio = runs["bare"].seconds / runs["engine"].seconds
    rates = [SMALL / runs[name].seconds for name in ("engine", "bare")]
    return [
        Figure(
            f"the engine around {SMALL} small JPEGs, against a bare DataLoader",
            f"{ratio:.2f} x ({rates[0]:.0f} against {rates[1]:.0f} pictures/s)",
            ">= 0.8 x",
            ratio >= 0.8,
        )
    ]


def measure_eval_memory(folder: Path) -> list[Figure]:
    """How the memory of scoring grows with the number of pictures."""
    counts, peaks = (2000, 12000, 22000), []
    for count in counts:
        place = folder / str(count)
        place.mkdir()
        small_pictures(place, count)
        command = [sys.executable, __file__, str(place / "data"), str(place / "scores.csv")]
        peaks.append(statistics.median(run_once(command).megabytes for _ in range(3)))
    growth = (peaks[-1] - peaks[0]) * 2**20 / (counts[-1] - counts[0])
    shown = ", ".join(f"{peak:.0f}" for peak in peaks)
    return [
        Figure(
            f"memory of scoring {', '.join(map(str, counts))} pictures ({shown} MB): per picture",
            f"{growth:.0f} bytes",
            f"<= {ROW_BYTES}",
            growth <= ROW_BYTES,
        )
    ]


def measure_bootstrap(_: Path) -> list[Figure]:
    """Processor time of the intervals of a cell of 2000 + 2000 pictures, every metric."""
    labels = np.repeat([0, 1], 2000)
    logits = np.random.default_rng(0).normal(labels.astype(float))
    seconds = []
    for _repeat in range(REPEATS):
        start = time.process_time()
        metrics.evaluate(labels, logits, 0.5, resamples=1000)
        seconds.append(time.process_time() - start)
    found = statistics.median(seconds)
    what = "1000 resamples of 4000 scores, every metric: processor time"
    return [Figure(what, f"{found:.2f} s", "< 2 s", found < 2)]


# --- several processes


def measure_processes(folder: Path) -> list[Figure]:
    """Whether two processes give the scores of one, byte for byte."""
    records = small_pictures(folder, 200)
    command = [
        "main.py", "--phase", "eval", "--detector", "default", "--device", "cpu",
        "--data", str(folder / "data"), "--workers", "1", "--cache", "none",
        "--set", "default.views=1", "score.resamples=1",
    ]  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    tables = []
    for count in (1, 2):
        output = folder / f"run{count}"
        run_once([sys.executable, *launch, str(count), *command, "--output", str(output)])
        tables.append((output / "scores.csv").read_bytes())
    same = all(a == b for a, b in pairwise(tables))
    value = "the same file" if same else "other files"
    return [Figure(f"{len(records)} pictures in two processes against one", value, "same", same)]


if __name__ == "__main__":
    null_scores(datasets.open_path(Path(sys.argv[1])), Path(sys.argv[2]))
