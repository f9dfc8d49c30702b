"""What a detector looked at, drawn over the picture: heat maps and boxes, with a legend below.

Result pictures are at most 1600 px on either side and at least 480 px wide, so that the legend can
be read; small pictures are enlarged for that, with their pixels kept visible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LONGEST, NARROWEST = 1600, 480
PAPER, INK, UNSEEN = (255, 255, 255), (30, 30, 30), 150
# Viridis at even steps: its lightness rises throughout, so that it can be read without colours.
COLOURS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ],
    dtype=np.float32,
)
HEAT = 0.6  # share of the colour; the rest is the picture in grey


def colour(values: np.ndarray) -> np.ndarray:
    """(...) in [0, 1] -> (..., 3) float grey levels of the colour scale."""
    steps = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, steps, channel) for channel in COLOURS.T], axis=-1)


def text_size(width: int) -> int:
    """Height in px of the legend's letters for a result of `width` px."""
    return max(14, width // 45)


def legend_height(width: int, bar: bool) -> int:
    """Height in px of the legend."""
    return text_size(width) * (5 if bar else 2)


def fitted(size: tuple[int, int], bar: bool) -> tuple[int, int]:
    """Width and height at which a picture of `size` is drawn above its legend."""
    highest = LONGEST - legend_height(LONGEST, bar)
    scale = min(LONGEST / size[0], highest / size[1], max(1.0, NARROWEST / size[0]))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at `size`: pixels repeated when it grows, averaged when it shrinks."""
    grows = size[0] >= image.width and size[1] >= image.height
    # Shrinking by whole numbers first: with antialiasing alone, large pictures take seconds.
    gap = None if grows else 3.0
    filter = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return image.resize(size, filter, reducing_gap=gap)


def number(value: float) -> str:
    """Three significant digits, without an exponent where one can do without."""
    return f"{value:.3g}"


def sheet(picture: Image.Image, bar: bool) -> Image.Image:
    """Paper with the picture at the top, centred, and room for the legend below."""
    width = max(NARROWEST, picture.width)
    paper = Image.new("RGB", (width, picture.height + legend_height(width, bar)), PAPER)
    paper.paste(picture, ((width - picture.width) // 2, 0))
    return paper


def write_caption(paper: Image.Image, top: int, caption: str) -> None:
    """One line, centred, with letters as large as fit."""
    draw = ImageDraw.Draw(paper)
    size = float(text_size(paper.width))
    font = ImageFont.load_default(size)
    if (length := draw.textlength(caption, font)) > 0.95 * paper.width:
        font = ImageFont.load_default(size * 0.95 * paper.width / length)
    draw.text((paper.width / 2, top + size / 2), caption, INK, font, anchor="mt")


def draw_bar(paper: Image.Image, top: int, low: float, high: float) -> None:
    """The colour scale with its ends and its middle in numbers."""
    size = text_size(paper.width)
    left, right = 2 * size, paper.width - 2 * size
    bar = colour(np.linspace(0, 1, right - left))[None].repeat(size, axis=0)
    paper.paste(Image.fromarray(bar.round().astype(np.uint8)), (left, top))
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(size)
    for share, anchor in ((0.0, "lt"), (0.5, "mt"), (1.0, "rt")):
        x = left + share * (right - left)
        draw.text((x, top + 1.3 * size), number(low + share * (high - low)), INK, font, anchor)


def tinted(picture: Image.Image, values: np.ndarray, low: float, high: float) -> Image.Image:
    """The picture in grey under the colours of `values`, lighter and uncoloured where NaN."""
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    # Nearest: between two values there was none, and a map's cells show what was one measurement.
    rows = (np.arange(picture.height) + 0.5) * values.shape[0] / picture.height
    columns = (np.arange(picture.width) + 0.5) * values.shape[1] / picture.width
    stretched = values[np.ix_(rows.astype(int), columns.astype(int))]
    share = np.clip((stretched - low) / (high - low), 0, 1)
    seen = np.isfinite(stretched)[..., None]
    over = np.where(seen, colour(np.where(seen[..., 0], share, 0)), UNSEEN)
    return Image.fromarray((HEAT * over + (1 - HEAT) * gray).round().astype(np.uint8))


def heat(
    image: Image.Image,
    values: np.ndarray,
    caption: str,
    low: float | None = None,
    high: float | None = None,
) -> Image.Image:
    """A heat map over an RGB picture, with a colour scale and a caption below.

    Args:
        image: the picture; it stays as it is.
        values: (h, w) of any size, stretched over the picture; NaN = not looked at, shown in grey.
        caption: one line.
        low, high: values of the scale's ends; None = the least and the greatest of `values`.
    """
    finite = values[np.isfinite(values)]
    low = float(finite.min() if finite.size else 0) if low is None else low
    high = float(finite.max() if finite.size else 1) if high is None else high
    if high <= low:
        high = low + max(1e-6, abs(low) * 1e-3)
    picture = tinted(scaled(image, fitted(image.size, bar=True)), values, low, high)
    paper = sheet(picture, bar=True)
    size = text_size(paper.width)
    draw_bar(paper, picture.height + size // 2, low, high)
    write_caption(paper, picture.height + math.ceil(2.7 * size), caption)
    return paper


def boxes(
    image: Image.Image, corners: Sequence[tuple[int, int, int, int]], caption: str
) -> Image.Image:
    """Outlines on an RGB picture, with a caption below.

    Args:
        image: the picture; it stays as it is.
        corners: (left, top, right, bottom) of each box in px of the picture, right and bottom
            excluded.
        caption: one line.
    """
    size = fitted(image.size, bar=False)
    picture = scaled(image, size)
    draw = ImageDraw.Draw(picture)
    width = max(2, max(size) // 400)
    across, down = size[0] / image.width, size[1] / image.height
    for left, top, right, bottom in corners:
        box = [left * across, top * down, right * across - 1, bottom * down - 1]
        # White between black lines: one of them stands out, whatever the picture.
        for grow, ink in ((width, "black"), (0, "white"), (-width, "black")):
            x0, y0, x1, y1 = box[0] - grow, box[1] - grow, box[2] + grow, box[3] + grow
            draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=ink, width=width)
    paper = sheet(picture, bar=False)
    write_caption(paper, picture.height, caption)
    return paper
