"""Degradations: pure picture -> picture functions, applied before the detector's own transform
and named in every row. Written `name:value`, several joined by `+`: `crop:256+jpeg:90`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from detectors import _transforms as T

from .config import ConfigError

NONE = "none"


def _crop(image: Image.Image, value: int, _: np.random.Generator) -> Image.Image:
    if min(image.size) < value:
        image = T.resize_shorter(image, value)
    return T.centre_crop(image, value)


def _jpeg(image: Image.Image, value: int, _: np.random.Generator) -> Image.Image:
    return T.jpeg(image, value)


# name -> (function, least and largest value)
STEPS: dict[str, tuple[Callable[..., Image.Image], int, int]] = {
    "crop": (_crop, 1, 8192),  # side in px of the central square; smaller pictures are enlarged
    "jpeg": (_jpeg, 1, 100),  # quality, 4:2:0
}


@dataclass(frozen=True)
class Degradation:
    """A chain of steps; `name` is its canonical spelling."""

    name: str
    steps: tuple[tuple[str, int], ...]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for step, value in self.steps:
            image = STEPS[step][0](image, value, rng)
        return image


def parse(text: str) -> Degradation | None:
    """`none` -> None; else the chain that `text` spells. Raises ConfigError listing the steps."""
    if text == NONE:
        return None
    steps = []
    for part in text.split("+"):
        name, _, value = part.partition(":")
        known = ", ".join(f"{k}:{low}-{high}" for k, (_, low, high) in STEPS.items())
        try:
            number = int(value)
            _, low, high = STEPS[name]
        except (KeyError, ValueError) as error:
            raise ConfigError(f"--degrade: expected {known}; found {part!r}") from error
        if not low <= number <= high:
            raise ConfigError(f"--degrade: expected {name}:{low}-{high}; found {part!r}")
        steps.append((name, number))
    return Degradation("+".join(f"{n}:{v}" for n, v in steps), tuple(steps))
