"""Pure picture -> picture steps that vary training pictures. Pictures are 8-bit RGB; the random
ones draw from the generator they are given alone."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

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


def random_flip_vertical(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned upside down with probability 0.5."""
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if rng.random() < 0.5 else image


def random_box(width: int, height: int, area: tuple[float, float], rng: np.random.Generator) -> Box:
    """A crop (left, top, right, bottom) of a random share `area` of the picture and a log-uniform
    aspect ratio of 3:4 to 4:3; a central one where ten draws do not fit."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(ATTEMPTS):
        pixels = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def random_resized_crop(
    image: Image.Image, size: int, area: tuple[float, float], rng: np.random.Generator
) -> Image.Image:
    """`random_box` of the picture, scaled to `size` x `size`, bilinear with antialiasing."""
    box = random_box(image.width, image.height, area, rng)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def inner_size(width: int, height: int, degrees: float) -> tuple[int, int]:
    """Width and height of the largest upright rectangle that lies within a `width` x `height`
    picture rotated about its centre."""
    sine, cosine = (abs(f(math.radians(degrees))) for f in (math.sin, math.cos))
    long, short = max(width, height), min(width, height)
    if short <= 2 * sine * cosine * long or abs(sine - cosine) < 1e-10:
        # Two of its corners touch the long sides; the other two lie on the middle line.
        sides = (short / 2 / sine, short / 2 / cosine)
        w, h = sides if width >= height else sides[::-1]
    else:
        spread = cosine**2 - sine**2
        w = (width * cosine - height * sine) / spread
        h = (height * cosine - width * sine) / spread
    rounding = 1e-6  # or a whole number that came out a trifle low would lose a pixel
    return max(1, int(w + rounding)), max(1, int(h + rounding))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotated counter-clockwise about its centre, bilinear, without the empty corners."""
    width, height = inner_size(image.width, image.height, degrees)
    turned = image.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return turned.crop((left, top, left + width, top + height))
