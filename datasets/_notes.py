"""Notes on a decoded picture that is unlike those the detectors were tested on: small ones,
screenshots and documents, line drawings.

Pure functions of the pixels, numpy only, computed where a picture is decoded; a note says what the
pixels are like and never changes a score. The thresholds were chosen on drawn pages, windows, plots
and sketches, as PNG, JPEG 90 and 70, and shrunk; docs/usage/score.md says how often they err.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NOTES = SMALL, DOCUMENT, DRAWING = "small", "document", "drawing"
SMALLEST = 224  # px of the shorter side
TILE, TILES = 64, 8  # px a side; at most so many a row and a column: a quarter megapixel, quickly
LEAST = 3  # px a side, of which there is something to tell
SHARP = 64  # grey levels between neighbours, of a letter's or a window's edge
SOFT = 2  # grey levels that compression leaves of an even area
GREY = 24  # between the largest and the smallest channel
COMMON = 4  # colours of a page or a window: paper, ink, a bar, a button


@dataclass(frozen=True)
class Statistics:
    """Shares of the pixels, 0 to 1. `flat`: equal to their right and lower neighbours; `even`: up
    to SOFT; `sharp`: more than SHARP from one; `edges`: `sharp` of those that are not `even`.
    `common`: of the COMMON commonest colours at 5 bits a channel. `paper`: near the commonest grey
    level; `between`: 24 to 96 levels from it; `ink`: 64 or more. `grey`: without colour."""

    flat: float
    even: float
    sharp: float
    edges: float
    common: float
    paper: float
    between: float
    ink: float
    grey: float


def _starts(side: int) -> NDArray[np.int64]:
    """Where tiles begin along a side: evenly from end to end."""
    tile = min(TILE, side)
    return np.linspace(0, side - tile, min(TILES, -(-side // tile))).astype(np.int64)


def _tiles(image: Image.Image) -> NDArray[np.int16]:
    """(3, N, height, width): native-scale tiles, since shrinking would blur what is told by."""
    width, height = image.size
    wide, high = min(TILE, width), min(TILE, height)
    boxes = [(x, y, x + wide, y + high) for y in _starts(height) for x in _starts(width)]
    tiles = np.stack([np.asarray(image.crop(box)) for box in boxes])
    return np.ascontiguousarray(np.moveaxis(tiles, -1, 0), dtype=np.int16)


def statistics(image: Image.Image) -> Statistics:
    """Statistics of an 8-bit RGB picture of LEAST px a side or more."""
    tiles = _tiles(image)
    across = np.abs(tiles[..., :-1, 1:] - tiles[..., :-1, :-1]).max(0)
    down = np.abs(tiles[..., 1:, :-1] - tiles[..., :-1, :-1]).max(0)
    steps = np.maximum(across, down)
    even, sharp = steps <= SOFT, steps > SHARP
    red, green, blue = tiles >> 3
    colours = np.bincount(((red << 10) | (green << 5) | blue).ravel(), minlength=COMMON)
    light = tiles.sum(0, dtype=np.int16) // 3
    levels = np.bincount((light >> 3).ravel(), minlength=32)
    most = int(levels.argmax())
    off = np.abs(light - (8 * most + 4))
    return Statistics(
        flat=float((steps == 0).mean()),
        even=float(even.mean()),
        sharp=float(sharp.mean()),
        edges=float(sharp.sum() / max(1, (~even).sum())),
        common=float(np.sort(colours)[-COMMON:].sum() / colours.sum()),
        paper=float(levels[max(0, most - 1) : most + 2].sum() / levels.sum()),
        between=float(((off > 24) & (off < 96)).mean()),
        ink=float((off >= 64).mean()),
        grey=float((tiles.max(0) - tiles.min(0) <= GREY).mean()),
    )


def is_document(s: Statistics) -> bool:
    """Whether a few even colours with hard edges make the picture: a window, a page, a plot. A
    scanned or photographed page is even up to its grain, but most of it is paper."""
    drawn = s.flat >= 0.3 and s.common >= 0.5 and s.sharp >= 0.02 and s.edges >= 0.1
    page = s.even >= 0.25 and s.common >= 0.6 and s.paper >= 0.7 and s.sharp >= 0.04
    return drawn or (page and s.between <= 0.1)


def is_drawing(s: Statistics) -> bool:
    """Whether colourless strokes on paper make the picture; plain print looks the same."""
    paper = s.grey >= 0.97 and s.paper >= 0.7 and s.even >= 0.15
    return paper and s.between <= 0.1 and s.sharp >= 0.01 and 0.005 <= s.ink <= 0.25


def notes(image: Image.Image) -> tuple[str, ...]:
    """Those of NOTES that hold of an 8-bit RGB picture, in their order."""
    shorter = min(image.size)
    if shorter < LEAST:
        return (SMALL,)
    s = statistics(image)
    holds = (shorter < SMALLEST, is_document(s), is_drawing(s))
    return tuple(note for note, held in zip(NOTES, holds, strict=True) if held)
