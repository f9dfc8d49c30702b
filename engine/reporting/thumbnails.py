"""Small pictures of pictures: square thumbnails, and sheets of them with captions.

Phase eval shows its worst errors through this module, the script of contact sheets a data set.
Pictures come from strangers: they are decoded by workers, as for scoring, and never here.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets import Record
from datasets._images import PictureDataset, Sample
from datasets._paths import visible

from ..runtime.text import one_line
from ..runtime.workers import Workers, in_turn

PADDING = (128, 128, 128)
PAPER, INK, SOFT = "#ffffff", "#1b1d20", "#5b6168"
ALARM, ALARM_PAPER = "#c0392b", "#f6dfdc"
GAP, FRAME, LINE, TEXT = 10, 3, 17, 12  # pixels; LINE is the height of one of text
GLYPH = 7  # pixels; most are as wide, and what is longer is cut off
AT_ONCE = 8  # pictures
MARKED = "unreadable"


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet, None where it cannot be read, above its caption and a softer note."""

    image: Image.Image | None
    caption: str
    note: str = ""


def thumbnail(image: Image.Image, size: int) -> Image.Image:
    """The whole picture, upright, in a square of `size` pixels: enlarged or reduced to fit it,
    centred on neutral grey."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    # Reduces by whole steps first, which is several times faster, and keeps a pixel of thin ones.
    upright.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return ImageOps.pad(upright, (size, size), Image.Resampling.LANCZOS, PADDING)


@dataclass(frozen=True)
class _Thumbnail:
    """`thumbnail` as a transform."""

    size: int

    def __call__(self, image: Image.Image, _: np.random.Generator) -> Image.Image:
        return thumbnail(image, self.size)


def thumbnails(records: Sequence[Record], size: int, workers: Workers) -> Iterator[Sample]:
    """An item for each record, in order, whose value is its thumbnail, and whose width and height
    are the picture's own."""
    transform = _Thumbnail(size)
    dataset = PictureDataset(records, transform, limits=workers.limits, decoding=workers.decoding)
    return (item for items in in_turn(dataset, AT_ONCE, workers) for item in items)


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    """The bytes of a JPEG file, colours at full resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def _line(text: str, width: int, ink: str) -> Image.Image:
    """Text in one line of `width` pixels, the middle of a long one left out."""
    # Pillow's font has Latin letters alone: others become escapes, not boxes that are all alike.
    latin = unicodedata.normalize("NFC", visible(text)).encode("latin-1", "backslashreplace")
    strip = Image.new("RGB", (width, LINE), PAPER)
    shown = one_line(latin.decode("latin-1"), width // GLYPH)
    ImageDraw.Draw(strip).text((0, 1), shown, ink, ImageFont.load_default(TEXT))
    return strip


def _unreadable(size: int) -> Image.Image:
    """The square that stands for a picture that could not be read."""
    square = Image.new("RGB", (size, size), ALARM_PAPER)
    draw, font = ImageDraw.Draw(square), ImageFont.load_default(TEXT)
    draw.rectangle((0, 0, size - 1, size - 1), outline=ALARM, width=FRAME)
    draw.text((size / 2, size / 2), MARKED, ALARM, font, anchor="mm")
    return square


def sheet_size(count: int, columns: int, size: int) -> tuple[int, int]:
    """Width and height in pixels of the sheet that `sheet` makes of so many tiles."""
    columns = min(columns, count)
    rows = -(-count // columns)
    return GAP + columns * (size + GAP), GAP + rows * (size + 2 * LINE + GAP)


def sheet(tiles: Sequence[Tile], columns: int, size: int) -> Image.Image:
    """Tiles in rows of `columns`, each a square of `size` pixels above its caption and its note,
    which are shortened to the width of the tile. ValueError without tiles."""
    if not tiles:
        raise ValueError("expected at least one tile; found none")
    paper = Image.new("RGB", sheet_size(len(tiles), columns, size), PAPER)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, min(columns, len(tiles)))
        x, y = GAP + column * (size + GAP), GAP + row * (size + 2 * LINE + GAP)
        square = thumbnail(tile.image, size) if tile.image else _unreadable(size)
        paper.paste(square, (x, y))
        paper.paste(_line(tile.caption, size, INK), (x, y + size))
        paper.paste(_line(tile.note, size, SOFT), (x, y + size + LINE))
    return paper
