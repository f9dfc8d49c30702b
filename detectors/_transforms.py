"""Pure picture -> picture functions, and picture -> array or tensor. Pictures are 8-bit RGB.

Nothing but what gives a tensor imports torch: the shipped detector is scored without it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGEST = 100


def as_array(image: Image.Image) -> np.ndarray:
    """(3, H, W) uint8."""
    return np.array(image).transpose(2, 0, 1)


def as_bytes(image: Image.Image) -> Tensor:
    """(3, H, W) uint8: a quarter of the float's size on its way from a worker process."""
    import torch

    return torch.from_numpy(as_array(image))


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [0, 1]."""
    return as_bytes(image).float().div_(255)


def normalise(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(x - mean) / std per channel of (..., 3, H, W), float32."""
    centre, scale = (x.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (x - centre) / scale


def _central(image: Image.Image, width: int, height: int) -> Image.Image:
    """The central `width` x `height`, black where the picture ends. As torchvision places it: a
    half pixel is rounded to even inside of the picture, and outside of it counts left and above."""
    left, top = (
        round((side - wanted) / 2) if side >= wanted else -((wanted - side) // 2)
        for side, wanted in ((image.width, width), (image.height, height))
    )
    return image.crop((left, top, left + width, top + height))


def cut_strip(image: Image.Image, longest: int) -> Image.Image:
    """The middle of a picture longer than `longest` px: enlarged or padded whole, a strip in a
    file of a few kilobytes could fill the memory."""
    if max(image.size) <= longest:
        return image
    return _central(image, min(image.width, longest), min(image.height, longest))


def resize_shorter(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` px, bilinear with antialiasing, aspect kept as torchvision does. Of a
    strip longer than `LONGEST` times its width only the middle is taken."""
    image = cut_strip(image, LONGEST * min(image.size))
    shorter = min(image.size)
    # Rounded down, as torchvision does.
    width, height = (size if side == shorter else int(size * side / shorter) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The central `size` x `size`, as torchvision places it (black where the picture ends)."""
    return _central(image, size, size)


def random_crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A `size` x `size` crop at a uniform position. Expects both sides >= `size`."""
    left = int(rng.integers(image.width - size + 1))
    top = int(rng.integers(image.height - size + 1))
    return image.crop((left, top, left + size, top + size))


def random_flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrored left to right with probability 0.5."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def jpeg(image: Image.Image, quality: int, subsampling: int = -1) -> Image.Image:
    """Encoded as JPEG and decoded. `quality` 1-100; `subsampling` 0 4:4:4, 1 4:2:2, 2 4:2:0,
    -1 Pillow's default."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def webp(image: Image.Image, quality: int) -> Image.Image:
    """Encoded as lossy WebP and decoded. `quality` 1-100."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


def pad_to(image: Image.Image, size: int) -> Image.Image:
    """Mirrored at the borders, evenly on both sides, until each side is at least `size` px; of a
    strip that is too narrow only the middle is taken."""
    if min(image.size) < size:
        image = cut_strip(image, LONGEST * size)
    high, wide = max(0, size - image.height), max(0, size - image.width)
    if not high and not wide:
        return image
    widths = ((high // 2, high - high // 2), (wide // 2, wide - wide // 2), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), widths, mode="symmetric"))
