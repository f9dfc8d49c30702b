"""Fonts and emoji of drawn degradations: `memes` and `posts` take them from here.

All lie in assets/ under free licences, so that a picture does not depend on what a machine has
installed. Pillow's basic layout draws them: the other one is not in every build.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageFont

ASSETS = Path(__file__).parent / "assets"
# Impact, Comic Sans and Arial are not free: Anton and Comic Neue look like the first two, and Arimo
# has the widths of the third.
IMPACT, COMIC, SANS, SANS_BOLD = (
    "Anton-Regular", "ComicNeue-Bold", "Arimo-Regular", "Arimo-Bold",
)  # fmt: skip
EMOJI = (
    "clown", "fire", "heart_eyes", "joy", "pensive", "rolling", "skull", "sunglasses", "tada",
    "thinking",
)  # fmt: skip
ENDS = re.compile(r"(?<=[.!?]) ")  # of sentences, as the study has them
SHORTEST = 20


@lru_cache(maxsize=32)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of the fonts above at `size` px an em."""
    return ImageFont.truetype(ASSETS / f"{name}.ttf", size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=len(EMOJI))
def emoji(name: str) -> Image.Image:
    """One of EMOJI, square RGBA of about 120 px."""
    with Image.open(ASSETS / "emoji" / f"{name}.png") as image:
        return image.convert("RGBA")


@lru_cache(maxsize=1)
def verses() -> tuple[str, ...]:
    """Sentences of Genesis 1 and 2 (King James), of `SHORTEST` characters and more."""
    text = (ASSETS / "genesis.txt").read_text(encoding="utf-8")
    sentences = map(str.strip, ENDS.split(text.replace("\n", " ")))
    return tuple(sentence for sentence in sentences if len(sentence) >= SHORTEST)
