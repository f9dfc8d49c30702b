"""What published detectors see of a picture: cropped, resized or whole, normalised; and how
training varies it.

One transform for all of them; each states the numbers that its published code has. It holds no
weights, and draws from the generator that it is given alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from . import _transforms as T
from ._augment import UNDISTORTED, Distortion

LONGEST_WHOLE = 4096  # px: a network on a whole picture of 100 megapixels fills the memory
BLUR_AND_JPEG = Distortion(blur_prob=0.5, jpeg_prob=0.5)  # CNNDetection's, which many took over


@dataclass(frozen=True)
class Square:
    """Picture -> (3, H, W) float32, normalised by `mean` and `std`.

    Resized to `resize` px, None = as it is: its shorter side, or with `stretch` both. Then `crop`
    px of it, None = all: the centre, black where the picture ends, or in training a random place of
    the picture, mirrored at its borders where it is smaller, flipped half the time. Training
    distorts before the crop; what is not cropped in scoring is cropped to `train_crop` there.
    """

    resize: int | None
    crop: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stretch: bool = False
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    train: bool = False
    distortion: Distortion = UNDISTORTED
    train_crop: int = 224

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        image = self.resized(image)
        if self.train:
            side = self.crop or self.train_crop
            image = self.distortion(image, rng)
            image = T.random_flip(T.random_crop(T.pad_to(image, side), side, rng), rng)
        elif self.crop:
            image = T.centre_crop(image, self.crop)
        return T.normalise(T.to_tensor(image), self.mean, self.std)

    def resized(self, image: Image.Image) -> Image.Image:
        """The picture before the crop; of a strip only the middle, as of one that is too large to
        be seen whole."""
        if self.resize is None:
            return image if self.crop else T.cut_strip(image, LONGEST_WHOLE)
        filter = InterpolationMode(self.filter)
        if self.stretch:
            return TF.resize(image, [self.resize, self.resize], filter)
        return TF.resize(T.cut_strip(image, T.LONGEST * min(image.size)), self.resize, filter)

    def seen(self, image: Image.Image) -> Image.Image:
        """The picture as scoring sees it, for drawing on."""
        image = self.resized(image)
        return T.centre_crop(image, self.crop) if self.crop else image
