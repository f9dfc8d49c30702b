"""What the shipped detector sees of a picture, and how its weights are read, without torch.

`default.py` trains and scores by it; the engine also scores by it alone, with the network as a
graph. A picture must look the same to both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from . import _transforms as T
from ._arrays import Arrays, ArrayScoring, Transform
from ._default_options import DefaultOptions
from ._packed import unpack

RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
ENCODER = "clip-vit-b-16"  # the manifest's name of the frozen encoder
ENCODER_KEYS = "semantic.encoder."  # beginning of its keys in the state dict
VISUAL = "visual."  # and in open_clip's files, whose text tower nothing here takes


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


def random_encoding(
    image: Image.Image, options: DefaultOptions, rng: np.random.Generator
) -> Image.Image:
    """Encoded and decoded at a random quality: as WebP or as JPEG of 4:4:4, 4:2:2 or 4:2:0."""
    quality = int(rng.integers(options.quality[0], options.quality[1] + 1))
    if rng.random() < options.webp_prob:
        return T.webp(image, quality)
    return T.jpeg(image, quality, subsampling=int(rng.integers(3)))


def whole_view(image: Image.Image, size: int) -> Image.Image:
    """The central square of a picture, at `size` x `size`: CLIP judges content, so it sees all of
    it. A strip loses its ends."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def view_corners(width: int, height: int, crop: int, views: int) -> list[tuple[int, int]]:
    """Top left corners (x, y) of the centre crop and, for five views, of the four corner crops."""
    right, bottom = width - crop, height - crop
    centre = [(right // 2, bottom // 2)]
    corners = [(x, y) for y in (0, bottom) for x in (0, right)]
    return centre + corners if views == 5 else centre


@dataclass(frozen=True)
class Views:
    """Picture -> (V, 3, crop, crop) uint8: the whole of it where the encoder is part of the
    detector, then crops at native resolution, of pictures that are too small mirrored ones, where
    the trunk is. In training one crop, of a picture that is distorted at random."""

    options: DefaultOptions
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        crop, branch = self.options.crop, self.options.branch
        views = []
        if self.train:
            image = self._distorted(image, rng)
        if branch != "artifact":
            views.append(whole_view(image, crop))
        if branch != "semantic":
            views += self._crops(T.pad_to(image, crop), rng)
        return np.stack([T.as_array(view) for view in views])

    def _crops(self, image: Image.Image, rng: np.random.Generator) -> list[Image.Image]:
        crop = self.options.crop
        if self.train:
            return [T.random_crop(image, crop, rng)]
        corners = view_corners(image.width, image.height, crop, self.options.views)
        return [image.crop((x, y, x + crop, y + crop)) for x, y in corners]

    def _distorted(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        o = self.options
        if rng.random() < o.resize_prob:
            image = random_resize(image, o.resize, rng)
        image = T.random_flip(image, rng)
        if rng.random() < o.blur_prob:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
        if rng.random() < o.colour_prob:
            image = random_colour(image, rng)
        # Last, as pictures are encoded when they are passed on.
        return random_encoding(image, o, rng) if rng.random() < o.encode_prob else image


def transform(options: DefaultOptions) -> Transform:
    """The transform of scoring."""
    return Views(options, train=False)


def external(options: DefaultOptions) -> dict[str, str]:
    """The frozen encoder, where it is part of the detector."""
    return {ENCODER_KEYS: ENCODER} if options.branch != "artifact" else {}


def frozen(published: Arrays) -> dict[str, np.ndarray]:
    """The encoder's part of the state dict from a packed file of CLIP."""
    vision = {key: value for key, value in published.items() if key.startswith(VISUAL)}
    return {ENCODER_KEYS + k.removeprefix(VISUAL): v for k, v in unpack(vision).items()}


ARRAYS = ArrayScoring("Default", transform, external, frozen)
