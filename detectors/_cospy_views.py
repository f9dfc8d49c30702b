"""What CO-SPY's branches see of a picture in training, in validation during it, and in scoring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import _transforms as T
from ._augment import UNDISTORTED, Distortion


@dataclass(frozen=True)
class View:
    """How a picture becomes a square: the shorter side to `resize` px, a `crop` px crop, random in
    training and validation, central in scoring. `train`, `val`: distortions before the crop; that
    of training before the resize if `early`. Training mirrors at random, the crop or, if
    `mirror_first`, what is distorted."""

    resize: int
    crop: int
    train: Distortion = UNDISTORTED
    val: Distortion = UNDISTORTED
    early: bool = False
    mirror_first: bool = False


def augmented(image: Image.Image, view: View, rng: np.random.Generator) -> Image.Image:
    """A published training view of a picture."""
    if view.mirror_first:
        image = T.random_flip(image, rng)
    if view.early:
        image = T.resize_shorter(view.train(image, rng), view.resize)
    else:
        image = view.train(T.resize_shorter(image, view.resize), rng)
    image = T.random_crop(image, view.crop, rng)
    return image if view.mirror_first else T.random_flip(image, rng)


def validated(image: Image.Image, view: View, rng: np.random.Generator) -> Image.Image:
    """A published view of a picture for validation during training."""
    image = view.val(T.resize_shorter(image, view.resize), rng)
    return T.random_crop(image, view.crop, rng)


def centred(image: Image.Image, view: View) -> Image.Image:
    """The published test view of a picture."""
    return T.centre_crop(T.resize_shorter(image, view.resize), view.crop)


@dataclass(frozen=True)
class ViewTransform:
    """Picture -> (3, H, W) uint8: a view per entry of `views`, side by side, of which `split_views`
    takes them back. `stage`: train, val or test, of which the last one is not random."""

    views: tuple[View, ...]
    stage: str

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        return side_by_side([T.as_bytes(self._seen(image, view, rng)) for view in self.views])

    def _seen(self, image: Image.Image, view: View, rng: np.random.Generator) -> Image.Image:
        if self.stage == "test":
            return centred(image, view)
        return (augmented if self.stage == "train" else validated)(image, view, rng)


def side_by_side(views: list[Tensor]) -> Tensor:
    """Squares (3, S_i, S_i) -> (3, max S, sum of S_i), black below the smaller ones."""
    height = max(view.shape[1] for view in views)
    return torch.cat([F.pad(view, (0, 0, 0, height - view.shape[1])) for view in views], dim=2)


def split_views(batch: Tensor, sides: list[int]) -> list[Tensor]:
    """(B, 3, H, W) of `side_by_side` squares -> (B, 3, S_i, S_i) each."""
    strips = batch.split(sides, dim=3)
    return [strip[:, :, :side] for strip, side in zip(strips, sides, strict=True)]
