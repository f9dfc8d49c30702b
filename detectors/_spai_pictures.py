"""SPAI's pictures: what training and scoring see of them, and where its patches lie.

Pure functions and picklable transforms of 8-bit RGB pictures; the arithmetic is that of
`_opencv.py`, as published. Called by `spai.py` and by the offline augmentation of a CSV.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as TF

from . import _augment, _opencv
from . import _transforms as T
from ._spai_options import SpaiOptions
from ._spectral import PATCH

BAND = 256  # rows that are copied at a time
MAP = 800  # px that a side of an attention map has at most
Corner = tuple[int, int]


# --- scoring


def as_pixels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8. Band by band: in one go Pillow would hold the pixels twice more."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, BAND):
        bottom = min(top + BAND, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _noisy(pixels: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of a deviation in grey levels on each value."""
    noisy = np.empty_like(pixels)
    for top in range(0, len(pixels), BAND):
        band = Image.fromarray(pixels[top : top + BAND])
        noisy[top : top + BAND] = np.asarray(_augment.noise(band, deviation**2, rng))
    return noisy


def perturbed(pixels: np.ndarray, options: SpaiOptions) -> np.ndarray:
    """The published perturbations of scoring, in their order; noise is seeded by the picture."""
    if options.test_jpeg is not None:
        pixels = _opencv.encoded(pixels, "JPEG", options.test_jpeg)
    if options.test_webp is not None:
        pixels = _opencv.encoded(pixels, "WEBP", options.test_webp)
    if options.test_blur is not None:
        pixels = _opencv.blur(pixels, options.test_blur, None)
    if options.test_noise:
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(pixels).data))
        pixels = _noisy(pixels, options.test_noise, rng)
    return pixels


def seen_sizes(width: int, height: int, options: SpaiOptions) -> list[tuple[int, int]]:
    """Widths and heights that scoring gives a picture one after the other: as it is, then scaled,
    then by its shorter side."""
    sizes = [(width, height)]
    if options.test_scale != 1:
        sizes.append(_opencv.scaled(*sizes[-1], options.test_scale))
    if options.resize_to is not None:
        sizes.append(_opencv.shorter_side(*sizes[-1], options.resize_to))
    return sizes


def kept(width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns of a picture that are padded: all, or the middle of a strip too narrow for
    a patch, which padded whole could fill the memory."""
    longest = T.LONGEST * PATCH if min(width, height) < PATCH else max(width, height)
    starts = [round((length - min(length, longest)) / 2) for length in (height, width)]
    rows, columns = (slice(start, start + longest) for start in starts)
    return rows, columns


def seen_part(image: Image.Image, options: SpaiOptions) -> np.ndarray:
    """Pixels of the picture as the grid of patches lies on it, without margins.

    Raises:
        OSError: it would be enlarged to more than 179 megapixels, or an encoder cannot hold it.
    """
    pixels = perturbed(as_pixels(image), options)
    sizes = seen_sizes(image.width, image.height, options)
    for size in sizes[1:]:
        pixels = _opencv.resize(pixels, *size)
    return pixels[kept(*sizes[-1])]


def margins(length: int) -> tuple[int, int]:
    """Pixels to add before and after so that a side is at least a patch."""
    missing = max(0, PATCH - length)
    return missing // 2, missing - missing // 2


def _with_margins(length: int) -> np.ndarray:
    """Indices along a side, with those of its mirrored margins."""
    before, after = margins(length)
    return _opencv.reflected(np.arange(-before, length + after), length)


def padded(pixels: np.ndarray) -> np.ndarray:
    """Pixels, mirrored at the borders where a side is below 224 px."""
    if len(pixels) < PATCH:
        pixels = pixels[_with_margins(len(pixels))]
    if pixels.shape[1] < PATCH:
        pixels = pixels[:, _with_margins(pixels.shape[1])]
    return pixels


def as_item(pixels: np.ndarray) -> Tensor:
    """(3, H, W), without a copy."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


@dataclass(frozen=True)
class PictureTransform:
    """Picture -> (3, H, W) uint8, both sides at least 224 px; with `ten_crop` (10, 3, 224, 224):
    four corners, the centre, and their mirror images."""

    options: SpaiOptions

    def __call__(self, image: Image.Image, _: np.random.Generator) -> Tensor:
        item = as_item(padded(seen_part(image, self.options)))
        return torch.stack(TF.ten_crop(item, PATCH)) if self.options.ten_crop else item


def grid(length: int, cover: bool) -> list[int]:
    """Where patches start along a side: every 224 px, and with `cover` flush with the end."""
    starts = list(range(0, length - PATCH + 1, PATCH))
    if cover and length % PATCH:
        starts.append(length - PATCH)
    return starts


def patch_corners(height: int, width: int, cover: bool, fewest: int) -> list[Corner]:
    """(top, left) of the patches of a picture, row by row; four corners and the centre, as
    torchvision places them, where the grid has fewer than `fewest`. Sides are at least 224 px."""
    corners = [(top, left) for top in grid(height, cover) for left in grid(width, cover)]
    if len(corners) >= fewest:
        return corners
    bottom, right = height - PATCH, width - PATCH
    outer = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [*outer, (round(bottom / 2), round(right / 2))]


def attention_map(size: tuple[int, int], relevance: np.ndarray, options: SpaiOptions) -> np.ndarray:
    """(h, w) map, sides at most 800, over a picture of `size` (width, height): attention times the
    number of patches, mean where patches overlap, NaN where there is none."""
    shown = seen_sizes(*size, options)[-1]
    axes = []
    for length, seen, part in zip(size, shown, reversed(kept(*shown)), strict=True):
        cells = min(length, MAP)
        # Centres of the map's cells in px of the item.
        centre = (np.arange(cells) + 0.5) * seen / cells
        axes.append(centre - part.start + margins(min(seen, part.stop) - part.start)[0])
    x, y = axes
    total, count = np.zeros((len(y), len(x))), np.zeros((len(y), len(x)))
    for top, left, attention in relevance:
        rows = np.flatnonzero((y >= top) & (y < top + PATCH))
        columns = np.flatnonzero((x >= left) & (x < left + PATCH))
        total[np.ix_(rows, columns)] += attention * len(relevance)
        count[np.ix_(rows, columns)] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


# --- training


def random_crop(pixels: np.ndarray, options: SpaiOptions, rng: np.random.Generator) -> np.ndarray:
    """A 224 x 224 crop: of a random area, scaled; where its range of areas is a single one, a plain
    one of the picture, mirrored at the borders where it is too small."""
    height, width = pixels.shape[:2]
    area = options.aug_crop_area
    if area[0] < area[1]:
        box = _augment.random_box(width, height, area, rng, options.aug_crop_ratio)
        return _opencv.crop_resize(pixels, box, PATCH)
    whole = padded(pixels)
    top, left = (int(rng.integers(side - PATCH + 1)) for side in whole.shape[:2])
    return whole[top : top + PATCH, left : left + PATCH]


def random_kernel(sizes: tuple[int, int], rng: np.random.Generator) -> int:
    """An odd size of a kernel. As published an even one that was drawn becomes the next."""
    return int(rng.integers(sizes[0], sizes[1] + 1)) | 1


def jittered(pixels: np.ndarray, options: SpaiOptions, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue by random factors, in a random order."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    steps = [
        (TF.adjust_brightness, options.aug_jitter_brightness),
        (TF.adjust_contrast, options.aug_jitter_contrast),
        (TF.adjust_saturation, options.aug_jitter_saturation),
        (TF.adjust_hue, options.aug_jitter_hue),
    ]
    for index in rng.permutation(len(steps)):
        adjust, factors = steps[index]
        image = adjust(image, rng.uniform(*factors))
    return np.asarray(image)


@dataclass(frozen=True)
class ViewsTransform:
    """Picture -> (3, 224, 896) uint8: augmented views side by side, which count as patches."""

    options: SpaiOptions

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        pixels = np.asarray(image)
        views = [self._varied(pixels, rng) for _ in range(self.options.views)]
        return as_item(np.concatenate(views, axis=1))

    def view(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """One 224 x 224 view."""
        return Image.fromarray(np.ascontiguousarray(self._varied(np.asarray(image), rng)))

    def _varied(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The published augmentation, in its order."""
        o = self.options
        pixels = random_crop(pixels, o, rng)
        if rng.random() < o.aug_flip:
            pixels = pixels[:, ::-1]
        if rng.random() < o.aug_flip_vertical:
            pixels = pixels[::-1]
        if rng.random() < o.aug_rotate:
            angle = rng.uniform(-o.aug_rotate_degrees, o.aug_rotate_degrees)
            pixels = _opencv.resize(_opencv.rotate(pixels, angle), PATCH, PATCH)
        if rng.random() < o.aug_blur:
            kernel = random_kernel(o.aug_blur_kernel, rng)
            pixels = _opencv.blur(pixels, kernel, rng.uniform(*o.aug_blur_sigma))
        if rng.random() < o.aug_noise:
            pixels = _noisy(pixels, math.sqrt(rng.uniform(*o.aug_noise_variance)), rng)
        if rng.random() < o.aug_jitter:
            pixels = jittered(pixels, o, rng)
        if rng.random() < o.aug_sharpen:
            alpha, light = rng.uniform(*o.aug_sharpen_alpha), rng.uniform(*o.aug_sharpen_lightness)
            pixels = _opencv.sharpen(pixels, alpha, light)
        for share, coder, quality in (
            (o.aug_jpeg, "JPEG", o.aug_jpeg_quality),
            (o.aug_webp, "WEBP", o.aug_webp_quality),
        ):
            if rng.random() < share:
                pixels = _opencv.encoded(
                    pixels, coder, int(rng.integers(quality[0], quality[1] + 1))
                )
        return pixels
