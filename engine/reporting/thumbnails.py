"""Small pictures of pictures: square thumbnails, and sheets of them with captions."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from datasets import Record
from datasets._images import Item, PictureDataset

from ..runtime.workers import Workers, in_turn

PADDING = (128, 128, 128)
PAPER, INK, SOFT = "#ffffff", "#1b1d20", "#5b6168"
ALARM, ALARM_PAPER = "#c0392b", "#f6dfdc"
GAP = 10
AT_ONCE = 8  # pictures
FRAME = 3
MARKED = "unreadable"
ELLIPSIS = "…"
NO_SUCH_CHARACTER = "\U0010ffff"
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet; None is drawn as a marked square.

    `note` is a second, softer line below the caption, `colour` that of a frame, in any of
    Pillow's notations ('' for none).
    """

    image: Image.Image | None
    caption: str
    note: str = ""
    colour: str = ""


def thumbnail(image: Image.Image, size: int) -> Image.Image:
    """The whole picture, upright, in a square of `size` pixels: enlarged or reduced to fit it,
    centred on neutral grey."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    scale = size / max(upright.size)
    width, height = (max(1, round(side * scale)) for side in upright.size)
    # Reducing by whole steps first is several times faster, and as good for a thumbnail.
    fitted = upright.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    square = Image.new("RGB", (size, size), PADDING)
    square.paste(fitted, ((size - width) // 2, (size - height) // 2))
    return square


@dataclass(frozen=True)
class _Thumbnail:
    """`thumbnail` as a transform."""

    size: int

    def __call__(self, image: Image.Image, _: np.random.Generator) -> Image.Image:
        return thumbnail(image, self.size)


def thumbnails(records: Sequence[Record], size: int, workers: Workers) -> Iterator[Item]:
    """An item for each record, in order, whose value is its thumbnail, and whose width and height
    are the picture's own."""
    drawn = _Thumbnail(size)
    dataset = PictureDataset(records, drawn, limits=workers.limits, decoding=workers.decoding)
    return (item for items in in_turn(dataset, AT_ONCE, workers) for item in items)


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    """The bytes of a JPEG file, colours at full resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


@cache
def _font(points: int) -> Font:
    return ImageFont.load_default(points)


@cache
def _drawable(char: str) -> bool:
    """Whether the default font has a glyph of its own for a character."""
    if not char.isprintable():
        return False
    mask, missing = (_font(16).getmask(c) for c in (char, NO_SUCH_CHARACTER))
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def drawable(text: str) -> str:
    """The text on one line, as escapes where the default font has no glyph for a character."""
    return "".join(
        char if _drawable(char) else char.encode("unicode_escape").decode("ascii")
        for char in unicodedata.normalize("NFC", text)
    )


def fitted(text: str, font: Font, width: float) -> str:
    """The text, or as much of its beginning and end as `width` pixels hold, with an ellipsis."""
    if font.getlength(text) <= width:
        return text

    def shortened(kept: int) -> str:
        return text[: kept - kept // 2] + ELLIPSIS + text[len(text) - kept // 2 :]

    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if font.getlength(shortened(middle)) <= width:
            fits = middle
        else:
            too_long = middle
    return shortened(fits)


@dataclass(frozen=True)
class _Layout:
    """Pixels of a sheet."""

    columns: int
    rows: int
    size: int
    text: int
    line: int
    lines: int

    @property
    def pixels(self) -> tuple[int, int]:
        step = self.size + GAP
        return GAP + self.columns * step, GAP + self.rows * (step + self.lines * self.line)

    def corner(self, place: int) -> tuple[int, int]:
        row, column = divmod(place, self.columns)
        step = self.size + GAP
        return GAP + column * step, GAP + row * (step + self.lines * self.line)


def _layout(count: int, columns: int, size: int, lines: int) -> _Layout:
    text = min(16, max(10, size // 12))
    columns = max(1, min(columns, count))
    return _Layout(columns, -(-count // columns), size, text, text + 4, lines)


def sheet_size(count: int, columns: int, size: int, notes: bool = False) -> tuple[int, int]:
    """Width and height in pixels of the sheet that `sheet` makes."""
    return _layout(count, columns, size, 1 + notes).pixels


def _mark(draw: ImageDraw.ImageDraw, corner: tuple[int, int], size: int, text: int) -> None:
    """The square that stands for a picture that could not be read."""
    x, y = corner
    box = (x, y, x + size - 1, y + size - 1)
    draw.rectangle(box, fill=ALARM_PAPER, outline=ALARM, width=FRAME)
    inset = size // 4
    for ends in (
        (x + inset, y + inset, x + size - inset, y + size - inset),
        (x + inset, y + size - inset, x + size - inset, y + inset),
    ):
        draw.line(ends, fill=ALARM, width=FRAME)
    if _font(text).getlength(MARKED) <= size - 2 * FRAME:
        draw.text((x + size / 2, y + size - FRAME - 3), MARKED, ALARM, _font(text), anchor="md")


def sheet(tiles: Sequence[Tile], columns: int, size: int) -> Image.Image:
    """Tiles in rows of `columns`, each a square of `size` pixels above its caption.

    Captions are shortened to the width of their tile. Lines for notes are there where any tile has
    a note.

    Raises:
        ValueError: no tiles.
    """
    if not tiles:
        raise ValueError("expected at least one tile; found none")
    notes = any(tile.note for tile in tiles)
    layout = _layout(len(tiles), columns, size, 1 + notes)
    font = _font(layout.text)
    paper = Image.new("RGB", layout.pixels, PAPER)
    draw = ImageDraw.Draw(paper)
    for place, tile in enumerate(tiles):
        x, y = layout.corner(place)
        if tile.image is None:
            _mark(draw, (x, y), size, layout.text)
        else:
            paper.paste(thumbnail(tile.image, size), (x, y))
            if tile.colour:
                box = (x, y, x + size - 1, y + size - 1)
                draw.rectangle(box, outline=tile.colour, width=FRAME)
        for line, (text, ink) in enumerate(((tile.caption, INK), (tile.note, SOFT))):
            at = (x, y + size + 3 + line * layout.line)
            draw.text(at, fitted(drawable(text), font, size), ink, font)
    return paper
