"""What is measured: pictures cut from the examples, detectors, and the product's scoring of both.

The measures of `python scripts/bench` and `scripts/_gpu_check.py` take their subjects here. The
published detectors get random weights, for time depends on shapes alone; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import detectors
from datasets import Record
from detectors._base import Detector
from engine.config import USUAL, resolve
from engine.runtime.device import open_device
from engine.runtime.workers import IN_PROCESS, Workers
from engine.scoring.backend import Backend
from engine.scoring.backends import by_graph
from engine.scoring.graph_backend import GraphBackend
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.torch_backend import TorchBackend
from engine.weights.choice import Choice
from engine.weights.loaded import locate
from engine.weights.loading import build, open_weights

from . import plain
from .timing import ROOT

EXAMPLES = ROOT / "data" / "examples"
BATCH = 16  # pictures, as phases test and eval have it


def _photographs() -> list[Image.Image]:
    """The real examples."""
    return [plain.decode(path) for path in sorted((EXAMPLES / "real").iterdir())]


def _crops(
    pictures: Sequence[Image.Image], folder: Path, count: int, size: tuple[int, int]
) -> list[Path]:
    """JPEGs of quality 90 (4:2:0), crops of larger pictures, no two of them alike."""
    rng, (width, height) = np.random.default_rng(1), size
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        picture = pictures[number % len(pictures)]
        left = int(rng.integers(picture.width - width))
        top = int(rng.integers(picture.height - height))
        crop = picture.crop((left, top, left + width, top + height))
        crop.save(path, quality=90, subsampling="4:2:0")
    return paths


def jpegs(folder: Path, count: int, size: tuple[int, int] = (640, 480)) -> list[Path]:
    """JPEGs, crops of the example photographs, enlarged to hold them, no two of them alike."""
    width, height = size
    larger = [
        p.resize((max(2 * width, p.width), max(2 * height, p.height))) for p in _photographs()
    ]
    return _crops(larger, folder, count, size)


def detailed_jpegs(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEGs, crops of the example photographs laid side by side as they are: an enlarged one has
    less detail in each pixel than a camera's picture, and is decoded faster."""
    tiled = []
    for picture in _photographs():
        across, down = size[0] // picture.width + 2, size[1] // picture.height + 2
        tiled.append(Image.fromarray(np.tile(np.asarray(picture), (down, across, 1))))
    return _crops(tiled, folder, count, size)


def labelled_names(folder: Path, files: Sequence[Path], count: int) -> Path:
    """A folder of `count` names of a few files, half of them in real/, half in fake/."""
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True)
    for number in range(count):
        label = ("real", "fake")[number % 2]
        # An even number of files, so that none gets names in both classes.
        (folder / label / f"{number:06}.jpg").hardlink_to(files[number % len(files)])
    return folder


@cache
def single() -> list[str]:
    """Names of the detectors that are none of others, whose cost is that of these."""
    kinds = {name: detectors.load(name) for name in detectors.available()}
    return [name for name, kind in kinds.items() if not kind.made_of(kind.Options())]


def detector(name: str) -> Detector:
    """A detector that scores: the shipped one with its weights, others of published size with
    random ones."""
    if name == "default":
        file = open_weights(locate(None, name), name)
        assert file.card is not None
        return build(name, resolve(name, [("card", {name: file.card.options})]).options, file).model
    torch.manual_seed(0)
    kind: Any = detectors.load(name)
    model: Detector = kind(kind.Options()).eval()
    model.optimise()
    return model


def shipped_graph() -> GraphBackend:
    """The shipped detector as main.py scores with it without PyTorch."""
    opened = by_graph(Choice(USUAL), "cpu")
    assert opened is not None
    return opened[0]


class Null(Detector):
    """A detector whose network costs nothing: what is left is the loop around it."""

    def transform(self, train: bool) -> Any:  # noqa: ARG002
        """Picture -> its upper left pixel."""
        return upper_left

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 3) -> logits (B,)."""
        return batch.sum(dim=1)


def upper_left(picture: Image.Image, _: np.random.Generator) -> Tensor:
    """The upper left pixel of a picture, (3,) in [0, 1]."""
    return torch.tensor(picture.getpixel((0, 0))) / 255.0


def scored(
    model: Detector, paths: Sequence[Path], workers: Workers = IN_PROCESS
) -> list[float | None]:
    """Logits of pictures by the product's loop."""
    return scored_by(TorchBackend(model, open_device("cpu", "fp32")), paths, workers)


def scored_by(
    backend: Backend, paths: Sequence[Path], workers: Workers = IN_PROCESS
) -> list[float | None]:
    """Logits of pictures by the product's loop and a backend."""
    records = [Record(path.name, path) for path in paths]
    rows = score(backend, records, ScoringOptions(BATCH, workers))
    return [row.logit for batch in rows for row in batch]
