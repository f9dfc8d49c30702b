"""A picture made into a meme: scrambled capitals above and below, emoji anywhere.

The study on SPAI derives its memes so (its meme-python.py); numbers and order of drawing are those
of it. `degradation_steps` calls `meme`. All chance is drawn from the generator that is handed in.
"""

from __future__ import annotations

import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import lettering

COLUMNS = 30  # characters after which a text is wrapped, before it is measured
FILLED = 0.9  # of the width that a line may take
FONT = (0.05, 0.10)  # of the height
LEADING = 5  # px between lines
TOP, BOTTOM, APART = 20, 40, 10  # px of the two blocks from the borders and from one another
JITTER = 0.04  # of the height, up or down, both blocks alike
OUTLINE = 2  # px
EMOJI_COUNT = (5, 10)
EMOJI_SIDE = (0.04, 0.16)  # of the height


def scrambled(text: str, rng: np.random.Generator) -> str:
    """A text in capitals; the inner letters of words of more than three letters in a random order.
    Words with other signs in them stay as they are."""
    words = []
    for word in text.split(" "):
        if len(word) > 3 and word.isalpha():
            inner = rng.permutation(list(word[1:-1])).tolist()
            word = word[0] + "".join(inner) + word[-1]
        words.append(word)
    return " ".join(words).upper()


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most COLUMNS characters and, but for single words, FILLED of `width` px."""
    lines = []
    for line in textwrap.wrap(text, COLUMNS):
        row = ""
        for word in line.split():
            longer = f"{row} {word}".strip()
            if row and font.getlength(longer) > FILLED * width:
                lines.append(row)
                longer = word
            row = longer
        lines.append(row)
    return lines


def _write(
    image: Image.Image, lines: list[str], font: ImageFont.FreeTypeFont, rng: np.random.Generator
) -> None:
    """Writes the first half of the lines at the top and the others at the bottom, white with a
    black outline, each line at a random distance from the left."""
    draw = ImageDraw.Draw(image)
    _, top, _, bottom = font.getbbox("A")
    step = int(bottom - top) + LEADING
    half = max(1, len(lines) // 2)
    jitter = int(JITTER * image.height)
    shift = int(rng.integers(-jitter, jitter + 1))
    lower = max(TOP + half * step + APART, image.height - (len(lines) - half) * step - BOTTOM)
    for index, line in enumerate(lines):
        y = TOP + index * step if index < half else lower + (index - half) * step
        room = max(0, image.width - int(font.getlength(line)))
        x = int(rng.integers(0, room + 1))
        left, top, right, bottom = map(int, font.getbbox(line))
        # Rendered once: the font's own work would take most of the time of 26 copies.
        letters = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(letters).text((-left, -top), line, font=font, fill=255)
        x, y = x + left, y + shift + top
        # A square brush: black copies at every whole shift, as the study draws them; Pillow's own
        # stroke is round.
        for dy in range(-OUTLINE, OUTLINE + 1):
            for dx in range(-OUTLINE, OUTLINE + 1):
                draw.bitmap((x + dx, y + dy), letters, fill="black")
        draw.bitmap((x, y), letters, fill="white")


def _paste_emoji(image: Image.Image, rng: np.random.Generator) -> None:
    """Pastes some emoji of random sizes anywhere inside a picture."""
    low, high = (max(1, int(share * image.height)) for share in EMOJI_SIDE)
    for _ in range(rng.integers(EMOJI_COUNT[0], EMOJI_COUNT[1] + 1)):
        name = lettering.EMOJI[rng.integers(len(lettering.EMOJI))]
        # In a picture that is narrower than the square the study's program fails.
        side = min(int(rng.integers(low, high + 1)), image.width)
        x = int(rng.integers(0, image.width - side + 1))
        y = int(rng.integers(0, image.height - side + 1))
        square = lettering.emoji(name).resize((side, side), Image.Resampling.LANCZOS)
        image.paste(square, (x, y), square)


def meme(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A copy of an 8-bit RGB picture with text and emoji on it."""
    image = image.copy()
    text = scrambled(str(rng.choice(lettering.verses())), rng)
    low, high = (max(1, int(share * image.height)) for share in FONT)
    size = int(rng.integers(low, high + 1))
    name = (lettering.IMPACT, lettering.COMIC, lettering.SANS)[rng.integers(3)]
    font = lettering.font(name, size)
    _write(image, wrapped(text, font, image.width), font, rng)
    _paste_emoji(image, rng)
    return image
