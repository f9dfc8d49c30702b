"""The plain ways that the project's own are measured against: loops as one would write them first.

`measures` times them in turn with the product's. They have no limits on hostile pictures, no rows
for unreadable ones, no resume. The networks are the product's own: that these compute the published
formulae is what the golden tests hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detectors._base import Detector

Transform = Callable[[Image.Image, np.random.Generator], Tensor]


def decode(path: Path) -> Image.Image:
    """The picture of a file, RGB, as it lies there."""
    with Image.open(path) as image:
        return image.convert("RGB")


def score(model: Detector, paths: Sequence[Path], at_once: int) -> Tensor:
    """Logits (N,) of N pictures, `at_once` through the network together, all in one process."""
    transform, logits = model.transform(train=False), []
    for first in range(0, len(paths), at_once):
        pictures = [decode(path) for path in paths[first : first + at_once]]
        items = [transform(picture, np.random.default_rng(0)) for picture in pictures]
        with torch.inference_mode():
            logits.append(model(model.collate(items)))
    return torch.cat(logits)


class Pictures(Dataset[Tensor]):
    """Pictures of files, transformed: what a DataLoader takes."""

    def __init__(self, paths: Sequence[Path], transform: Transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(decode(self.paths[index]), np.random.default_rng(index))


def load(paths: Sequence[Path], transform: Transform, batch_size: int) -> Tensor:
    """The items (N, ...) of all pictures, by a DataLoader with one worker."""
    loader = DataLoader(Pictures(paths, transform), batch_size, num_workers=1)
    return torch.cat(list(loader))


def train_step(model: Detector, optimizer: torch.optim.Optimizer) -> Callable[..., float]:
    """A step in fp32 on collated values and their labels (B,); gives the loss."""

    def step(values: Tensor | list[Tensor], labels: Tensor) -> float:
        optimizer.zero_grad()
        loss = model.loss(values, labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step
