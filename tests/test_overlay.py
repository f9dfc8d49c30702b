"""Heat maps and boxes drawn over pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detectors import _overlay

SIZES = [(1, 1), (2, 3000), (3000, 2), (180, 120), (900, 700), (1800, 1500)]


@pytest.mark.parametrize("size", SIZES)
def test_drawings_fit_a_screen(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (90, 120, 200))
    values = np.array([[0.0, 1.0], [np.nan, 2.0]])
    for drawn in (
        _overlay.heat(picture, values, "one line of text"),
        _overlay.boxes(picture, [(0, 0, *size), (0, 0, 1, 1)], "one line of text " * 10),
    ):
        assert drawn.mode == "RGB"
        assert 480 <= drawn.width <= 1600
        assert drawn.height <= 1600
        legend = np.asarray(drawn)[-20:]
        assert (legend == 255).all(axis=2).mean() > 0.3, "there is paper below"
    assert picture.getextrema() == ((90, 90), (120, 120), (200, 200))


def test_a_heat_map_without_values_or_range_is_drawn() -> None:
    picture, part = Image.new("RGB", (600, 500), (200, 30, 30)), (0, 0, 600, 500)
    flat = _overlay.heat(picture, np.full((3, 3), 0.5), "flat").crop(part)
    assert len(flat.getcolors() or ()) == 1
    nothing = np.asarray(_overlay.heat(picture, np.full((3, 3), np.nan), "nothing").crop(part))
    assert np.ptp(nothing.reshape(-1, 3), axis=1).max() == 0


def test_captions_are_written() -> None:
    picture = Image.new("RGB", (500, 300))
    values = np.array([[0.0, 1.0]])
    first, same, other = (
        _overlay.heat(picture, values, text).tobytes() for text in ("left", "left", "right")
    )
    assert first == same
    assert first != other
    scale = _overlay.heat(picture, values, "left", low=0.0, high=2.0)
    assert scale.tobytes() != first


@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize("size", [(200, 150), (1200, 1000)])
def test_boxes_stand_out_on_light_and_dark(shade: int, size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (shade,) * 3)
    box = (40, 50, 72, 82)
    drawn = np.asarray(_overlay.boxes(picture, [box], "box")).astype(int)
    scale = max(1.0, 480 / size[0])
    left, top, right, bottom = (round(value * scale) for value in box)
    row = drawn[(top + bottom) // 2, left - 8 : left + 9, 0]
    assert row.max() - row.min() == 255
    inside = drawn[top + 9 : bottom - 9, left + 9 : right - 9]
    assert (inside == shade).all(), "what is in the box stays as it is"
    assert (drawn[: top - 9, : round(size[0] * scale)] == shade).all()
