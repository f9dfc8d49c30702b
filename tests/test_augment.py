"""Steps that vary training pictures."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_picture
from PIL import Image

from detectors import _augment


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_augmentation_steps() -> None:
    picture = make_picture(0, fake=True, size=(120, 90))
    pixels = np.asarray(picture).astype(float)
    blurred = np.asarray(_augment.blur(picture, 2.0)).astype(float)
    assert blurred.std() < pixels.std()
    assert blurred.mean() == pytest.approx(pixels.mean(), abs=0.5), "it does not darken"
    assert _augment.blur(picture, 0.0).tobytes() == picture.tobytes()
    gray = Image.new("RGB", (100, 100), (128, 128, 128))
    noisy = np.asarray(_augment.noise(gray, 30.0, rng())).astype(float)
    assert noisy.var() == pytest.approx(30, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.2)


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (3, 5000), (5000, 3)])
def test_random_crops_lie_within(size: tuple[int, int]) -> None:
    for seed in range(20):
        left, top, right, bottom = _augment.random_box(*size, (0.2, 1.0), rng(seed))
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        if min(size) > 100:
            assert 0.19 < (right - left) * (bottom - top) / (size[0] * size[1]) <= 1
        assert 0.7 < (right - left) / (bottom - top) < 1.4 or min(size) < 10
