"""Every step of SPAI's training and test transforms against the published program's pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden_rule import GOLDEN, golden

from datasets._images import open_picture
from detectors import _opencv
from detectors._spai_pictures import as_pixels, padded

CASES = golden("spai_transform.json")["cases"]


def name(case: dict[str, Any]) -> str:
    values = "-".join(str(value).replace(" ", "_") for value in case["parameters"].values())
    return f"{case['picture'].split('_')[0]}-{case['step']}-{values}"


def applied(step: str, pixels: np.ndarray, p: dict[str, Any]) -> np.ndarray:
    height, width = pixels.shape[:2]
    match step:
        case "RandomResizedCrop":
            return _opencv.crop_resize(pixels, (p["x0"], p["y0"], p["x1"], p["y1"]), p["size"])
        case "Rotate":
            return _opencv.rotate(pixels, p["angle"])
        case "GaussianBlur":
            sigma = p["sigma"] if isinstance(p["sigma"], float) else None
            return _opencv.blur(pixels, p["kernel"], sigma)
        case "ImageCompression":
            ((coder, quality),) = p.items()
            return _opencv.encoded(pixels, coder.upper(), quality)
        case "Sharpen":
            return _opencv.sharpen(pixels, p["alpha"], p["lightness"])
        case "SmallestMaxSize":
            size = _opencv.shorter_side(width, height, p["max_size"])
            return _opencv.resize(pixels, *size)
        case "RandomScale":
            return _opencv.resize(pixels, *_opencv.scaled(width, height, p["scale"]))
        case "PadIfNeeded":
            return padded(pixels)
    raise AssertionError(step)


def test_all_published_steps_are_here() -> None:
    assert len(CASES) == 58
    assert len({case["step"] for case in CASES}) == 8


@pytest.mark.parametrize("case", CASES, ids=name)
def test_pixels_are_those_of_the_published_program(case: dict[str, Any]) -> None:
    """To the grey level; the mean over all pixels as well. Encoders differ in version."""
    pixels = as_pixels(open_picture(GOLDEN / "inputs" / case["picture"]))
    found = applied(case["step"], pixels, case["parameters"])
    assert (list(found.shape), found.dtype) == (case["shape"], np.uint8)
    values = found.astype(float).ravel()
    near = 0.5 if case["step"] == "ImageCompression" else 0.05
    assert values.mean() == pytest.approx(case["mean"], abs=near)
    assert values.std() == pytest.approx(case["std"], abs=near)
    if case["step"] != "ImageCompression":
        np.testing.assert_allclose(values[case["index"]], case["value"], rtol=0, atol=1)


def test_shrinking_has_no_antialiasing() -> None:
    """Of a checkerboard at a quarter of its size one colour is left."""
    board = np.zeros((64, 64, 3), np.uint8)
    board[1::4, 1::4] = board[1::4, 2::4] = board[2::4, 1::4] = board[2::4, 2::4] = 200
    assert (_opencv.resize(board, 16, 16) == 200).all()


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    steps = (lambda: _opencv.resize(pixels, 90, 33), lambda: _opencv.blur(pixels, 7, None))
    whole = [step() for step in steps]
    monkeypatch.setattr(_opencv, "BAND", 500)
    assert all(np.array_equal(step(), one) for step, one in zip(steps, whole, strict=True))


@pytest.mark.parametrize("size", [(224, 224), (100, 300), (400, 90), (1, 1), (3, 200)])
@pytest.mark.parametrize("degrees", [0, 7, 45, -60, 90])
def test_rotation_leaves_no_empty_corner(size: tuple[int, int], degrees: float) -> None:
    height, width = size
    left, top, right, bottom = _opencv.inner_box(width, height, degrees)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    white = np.full((height, width, 3), 255, np.uint8)
    turned = _opencv.rotate(white, degrees)
    assert turned.shape == (bottom - top, right - left, 3) and (turned == 255).all()
