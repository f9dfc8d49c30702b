"""Pure picture -> picture steps that vary training pictures. Pictures are 8-bit RGB; the random
ones draw from the generator they are given alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import _transforms as T

ATTEMPTS = 10
Box = tuple[int, int, int, int]


def as_picture(pixels: np.ndarray) -> Image.Image:
    """(H, W, 3) float grey levels, rounded and clipped to 0-255."""
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur of each channel, deviation `sigma` px (0 = none), mirrored at the borders."""
    from scipy.ndimage import gaussian_filter

    pixels = np.asarray(image, dtype=np.float32)
    return as_picture(gaussian_filter(pixels, sigma=(sigma, sigma, 0)))


def noise(image: Image.Image, variance: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise on each value; `variance` in squared grey levels."""
    drawn = rng.standard_normal((image.height, image.width, 3), dtype=np.float32)
    return as_picture(np.asarray(image) + math.sqrt(variance) * drawn)


def random_box(
    width: int,
    height: int,
    area: tuple[float, float],
    rng: np.random.Generator,
    ratios: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A crop (left, top, right, bottom) of a random share `area` of the picture and a log-uniform
    ratio of width to height; a central one where ten draws do not fit."""
    low, high = (math.log(ratio) for ratio in ratios)
    for _ in range(ATTEMPTS):
        pixels = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ratios[1])))
    h = min(height, max(1, round(width / ratios[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclass(frozen=True)
class Distortion:
    """Blur with a deviation out of `sigma` px, uniform, then JPEG with a quality out of `quality`,
    each with its probability."""

    blur_prob: float = 0.0
    sigma: tuple[float, float] = (0.0, 3.0)
    jpeg_prob: float = 0.0
    quality: tuple[int, int] = (30, 100)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Pillow alone encodes: the published code takes OpenCV at random in training, whose
        encoder is the same libjpeg."""
        if rng.random() < self.blur_prob:
            image = blur(image, rng.uniform(*self.sigma))
        if rng.random() < self.jpeg_prob:
            image = T.jpeg(image, int(rng.integers(self.quality[0], self.quality[1] + 1)))
        return image


UNDISTORTED = Distortion()
