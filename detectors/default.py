"""The detector that ships: an EfficientNet-Lite0 that looks at native-resolution crops.

A picture is never shrunk, because the traces of a generator's decoder live in single pixels;
instead several crops are judged and their logits averaged. Trained by `configs/default.yaml`;
what it is good for, and what not, stands in `pretrained/default.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor, nn

from . import _overlay
from . import _transforms as T
from ._base import Detector, OptionError, Transform
from ._efficientnet import EfficientNetLite0, convert_imagenet
from ._faster import fold_norms

RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
LARGEST_CROP = 4096  # px


@dataclass(frozen=True)
class DefaultOptions:
    """`crop`: side in px of a view. `views`: crops per picture when scoring, 1 (centre) or 5
    (corners too). `stem_stride`: of the first convolution. `dropout`: before the classifier.
    The rest is augmentation in training, the same for both classes: probabilities, and ranges of
    the resize factor and of the JPEG quality."""

    crop: int = 160
    views: int = 5
    stem_stride: int = 2
    dropout: float = 0.2
    resize_prob: float = 0.6
    resize: tuple[float, float] = (0.5, 1.4)
    blur_prob: float = 0.1
    colour_prob: float = 0.3
    jpeg_prob: float = 0.9
    jpeg: tuple[int, int] = (60, 96)

    def __post_init__(self) -> None:
        if self.views not in (1, 5):
            raise OptionError(f"default.views: expected 1 or 5; found {self.views}")
        if self.stem_stride not in (1, 2):
            raise OptionError(f"default.stem_stride: expected 1 or 2; found {self.stem_stride}")
        for name in ("dropout", "resize_prob", "blur_prob", "colour_prob", "jpeg_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"default.{name}: expected 0 to 1; found {getattr(self, name)}")
        if not 32 <= self.crop <= LARGEST_CROP:
            raise OptionError(f"default.crop: expected 32 to {LARGEST_CROP}; found {self.crop}")
        if not 0 < self.resize[0] <= self.resize[1] <= 16:
            raise OptionError(
                f"default.resize: expected 0 < low <= high <= 16; found {self.resize}"
            )
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise OptionError(f"default.jpeg: expected 1 <= low <= high <= 100; found {self.jpeg}")


def random_resize(
    image: Image.Image, factors: tuple[float, float], rng: np.random.Generator
) -> Image.Image:
    """Scaled by a log-uniform factor, with a random one of three resampling filters."""
    factor = math.exp(rng.uniform(math.log(factors[0]), math.log(factors[1])))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, RESAMPLING[rng.integers(len(RESAMPLING))])


def random_colour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Saturation, brightness and contrast by random factors; gray one time in five."""
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.4, 1.5))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.3))
    return image.convert("L").convert("RGB") if rng.random() < 0.2 else image


def view_corners(width: int, height: int, crop: int, views: int) -> list[tuple[int, int]]:
    """Top left corners (x, y) of the centre crop and, for five views, of the four corner crops."""
    right, bottom = width - crop, height - crop
    centre = [(right // 2, bottom // 2)]
    corners = [(x, y) for y in (0, bottom) for x in (0, right)]
    return centre + corners if views == 5 else centre


@dataclass(frozen=True)
class CropTransform:
    """Picture -> (V, 3, crop, crop) uint8 views. Pictures that are too small are mirrored."""

    options: DefaultOptions
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        crop = self.options.crop
        if self.train:
            return T.as_bytes(self._augment(image, rng))[None]
        image = T.pad_to(image, crop)
        corners = view_corners(image.width, image.height, crop, self.options.views)
        return torch.stack([T.as_bytes(image.crop((x, y, x + crop, y + crop))) for x, y in corners])

    def _augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        o = self.options
        if rng.random() < o.resize_prob:
            image = random_resize(image, o.resize, rng)
        image = T.random_flip(T.random_crop(T.pad_to(image, o.crop), o.crop, rng), rng)
        if rng.random() < o.blur_prob:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
        if rng.random() < o.colour_prob:
            image = random_colour(image, rng)
        if rng.random() < o.jpeg_prob:
            quality = int(rng.integers(o.jpeg[0], o.jpeg[1] + 1))
            image = T.jpeg(image, quality, subsampling=int(rng.integers(3)))
        return image


class Default(Detector):
    """Input (B, V, 3, crop, crop) uint8; 3.4 M parameters."""

    title = "Default"
    Options = DefaultOptions

    def __init__(self, options: DefaultOptions) -> None:
        super().__init__(options)
        self.trunk = EfficientNetLite0(options.stem_stride)
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(self.trunk.FEATURES, 1)
        # From zero: pooled features are large, and random weights would start at a loss of 2.
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:
        return CropTransform(self.options, train)

    def optimise(self) -> None:
        fold_norms(self.trunk)

    def forward(self, batch: Tensor) -> Tensor:
        return self._view_logits(batch).mean(dim=1)

    def _view_logits(self, batch: Tensor) -> Tensor:
        """(B, V)."""
        x = batch.flatten(0, 1).to(memory_format=torch.channels_last)
        feature = self.dropout(self.trunk(x.float() / 127.5 - 1))
        return self.fc(feature).view(batch.shape[:2])

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the scores (V,) of its views, whose logits are averaged."""
        logits = self._view_logits(batch)
        return logits.mean(dim=1), list(torch.sigmoid(logits.float()).cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The score of each view where it lies; grey: not looked at."""
        crop = self.options.crop
        image = T.pad_to(image, crop)
        values = np.full((image.height, image.width), np.nan, np.float32)
        corners = view_corners(image.width, image.height, crop, self.options.views)
        # The centre comes first, and is drawn last: in small pictures the views overlap.
        for (x, y), score in list(zip(corners, relevance.tolist(), strict=True))[::-1]:
            values[y : y + crop, x : x + crop] = score
        return _overlay.heat(image, values, "score of each view; grey = not looked at", 0.0, 1.0)

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """EfficientNet-Lite0 of ImageNet, in timm's names or those of its PyPI package."""
        return {f"trunk.{k}": v for k, v in convert_imagenet(published).items()}

    @classmethod
    def tiny(cls) -> DefaultOptions:
        return DefaultOptions(crop=48)
