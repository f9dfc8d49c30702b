"""A picture as the screenshot of a phone that shows it in a post: 377 px wide, much of it white.

The layout is the study's on SPAI (its template, measured in a browser at device scale 1); icons and
avatars are drawn here. `degradation_steps` calls `post`. All chance is drawn from the generator
that is handed in, the words of a post first, so that they do not depend on the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .lettering import SANS, SANS_BOLD, font
from .picture_size import check_size

WIDTH, BORDER = 375, 1  # px of the content, and of the frame around it
STATUS, TOP, HEADER, GAP, ACTIONS, FOOTER, BOTTOM = 28, 45, 60, 4, 32, 57, 51  # px of each row
LINE = 18  # px that each further line of the caption adds
PADDING = 10
FRAME, GREY, INK = "#cccccc", "#888888", "#000000"
FINE = 4  # times larger is what icons and avatars are drawn at
VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
UNITS = ("minutes", "hours", "days", "weeks", "months")
MOST = 2_000_000  # of likes, comments, messages
AVATARS = ("#5b8fb0", "#b0705b", "#6d9a62", "#8a6bab", "#c2a14d", "#4d9a96", "#a85a7c", "#6b7688")


@dataclass(frozen=True)
class Words:
    """What a post says beside its picture. `bars`: of the signal, 1-5."""

    name: str
    caption: str
    time: str
    age: str
    counts: tuple[str, str, str]
    network: str
    bars: int
    charged: bool
    news: tuple[bool, bool]
    saved: bool
    avatar: int


def _name(rng: np.random.Generator) -> str:
    """A word of 4 to 8 letters, consonants and vowels in turn, capitalised."""
    kinds = (CONSONANTS, VOWELS)
    letters = [rng.choice(list(kinds[i % 2])) for i in range(rng.integers(4, 9))]
    return "".join(letters).capitalize()


def _caption(rng: np.random.Generator) -> str:
    """Random words of 2 to 8 lower-case letters, cut to a random length of 8 to 20."""
    length, text = int(rng.integers(8, 21)), ""
    while len(text) < length:
        letters = rng.integers(ord("a"), ord("z") + 1, rng.integers(2, 9))
        text += "".join(map(chr, letters)) + " "
    return text[:length].strip()


def count(number: float) -> str:
    """A count as the apps show it: 999, 12.3K, 1.2M; always one decimal."""
    if number < 1_000:
        return str(int(number))
    return f"{number / 1e3:.1f}K" if number < 1_000_000 else f"{number / 1e6:.1f}M"


def words(rng: np.random.Generator) -> Words:
    """What a post says, drawn at random as the study does."""
    return Words(
        name=f"{_name(rng)} {_name(rng)}",
        caption=_caption(rng),
        time=f"{rng.integers(24)}:{rng.integers(60):02}",
        age=f"{rng.integers(1, 100)} {UNITS[rng.integers(len(UNITS))]} ago",
        counts=(
            count(rng.uniform(0, MOST)), count(rng.uniform(0, MOST)), count(rng.uniform(0, MOST)),
        ),
        network=("3G", "4G")[rng.integers(2)],
        bars=int(rng.integers(1, 6)),
        charged=bool(rng.integers(2)),
        news=(bool(rng.integers(2)), bool(rng.integers(2))),
        saved=bool(rng.integers(2)),
        avatar=int(rng.integers(len(AVATARS))),
    )  # fmt: skip


# --- icons: each draws into a square of 24 units; `u` turns units into px of the canvas

Pen = ImageDraw.ImageDraw
Units = Callable[..., list[float]]


def _heart(pen: Pen, u: Units) -> None:
    pen.line(u(12, 20, 3, 11, 3, 7, 6, 4, 9, 4, 12, 8, 15, 4, 18, 4, 21, 7, 21, 11, 12, 20),
             INK, int(u(2)[0]), "curve")  # fmt: skip


def _chat(pen: Pen, u: Units) -> None:
    pen.arc(u(3, 3, 21, 21), 60, 400, INK, int(u(2)[0]))
    pen.line(u(16, 19, 21, 21, 19, 16), INK, int(u(2)[0]), "curve")


def _send(pen: Pen, u: Units) -> None:
    pen.line(u(2, 4, 22, 4, 12, 21, 9, 11, 2, 4), INK, int(u(2)[0]), "curve")
    pen.line(u(9, 11, 22, 4), INK, int(u(2)[0]))


def _save(pen: Pen, u: Units) -> None:
    pen.line(u(5, 3, 19, 3, 19, 21, 12, 15, 5, 21, 5, 3), INK, int(u(2)[0]), "curve")


def _saved(pen: Pen, u: Units) -> None:
    pen.polygon(u(5, 3, 19, 3, 19, 21, 12, 15, 5, 21), INK)


def _house(pen: Pen, u: Units) -> None:
    pen.line(u(3, 12, 12, 3, 21, 12, 19, 12, 19, 21, 5, 21, 5, 12, 3, 12), INK, int(u(2)[0]))


def _glass(pen: Pen, u: Units) -> None:
    pen.ellipse(u(3, 3, 17, 17), outline=INK, width=int(u(2)[0]))
    pen.line(u(15, 15, 21, 21), INK, int(u(2)[0]))


def _plus(pen: Pen, u: Units) -> None:
    pen.rounded_rectangle(u(3, 3, 21, 21), u(4)[0], outline=INK, width=int(u(2)[0]))
    pen.line(u(12, 8, 12, 16), INK, int(u(2)[0]))
    pen.line(u(8, 12, 16, 12), INK, int(u(2)[0]))


def _film(pen: Pen, u: Units) -> None:
    pen.rounded_rectangle(u(3, 3, 21, 21), u(4)[0], outline=INK, width=int(u(2)[0]))
    pen.line(u(3, 9, 21, 9), INK, int(u(2)[0]))
    pen.polygon(u(10, 12, 10, 18, 15, 15), INK)


def _arrow(pen: Pen, u: Units) -> None:
    pen.line(u(5, 9, 12, 16, 19, 9), INK, int(u(3)[0]), "curve")


def _stamp(
    card: Image.Image, icon: Callable[[Pen, Units], None], x: int, y: int, side: int
) -> None:
    """Draws an icon at FINE times its size and pastes it, smoothed, at (x, y)."""
    canvas = Image.new("L", (side * FINE, side * FINE), 255)
    unit = side * FINE / 24
    icon(ImageDraw.Draw(canvas), lambda *values: [value * unit for value in values])
    small = canvas.resize((side, side), Image.Resampling.BOX)
    card.paste(Image.new("RGB", small.size), (x, y), Image.eval(small, lambda value: 255 - value))


def _avatar(card: Image.Image, number: int, letter: str, x: int, y: int, side: int) -> None:
    """Pastes a round portrait: a colour and the first letter of the name."""
    mask = Image.new("L", (side * FINE, side * FINE))
    ImageDraw.Draw(mask).ellipse((0, 0, side * FINE - 1, side * FINE - 1), 255)
    face = Image.new("RGB", (side, side), AVATARS[number])
    ImageDraw.Draw(face).text(
        (side / 2, side / 2), letter, "white", font(SANS_BOLD, side // 2), "mm"
    )
    card.paste(face, (x, y), mask.resize((side, side), Image.Resampling.BOX))


def _caption_lines(said: Words) -> list[tuple[str, str]]:
    """The caption's lines, (bold, plain) each: it wraps where it does not fit beside the name."""
    bold, plain = font(SANS_BOLD, 16), font(SANS, 16)
    room = WIDTH - 2 * PADDING
    lines, row, used = [], "", bold.getlength(f"{said.name} ")
    name = said.name
    for word in said.caption.split():
        longer = f"{row} {word}".strip()
        if used + plain.getlength(longer) > room:
            lines.append((name, row))
            name, used, longer = "", 0.0, word
        row = longer
    return [*lines, (name, row)]


def _status_bar(pen: Pen, y: int, said: Words) -> None:
    """Time at the left; signal, network and battery at the right."""
    pen.text((PADDING, y + STATUS / 2), said.time, INK, font(SANS_BOLD, 12), "lm")
    right = WIDTH - PADDING
    pen.rounded_rectangle((right - 22, y + 8, right - 2, y + 19), 3, outline=INK)
    pen.rectangle((right - 1, y + 12, right, y + 15), INK)
    if said.charged:
        pen.rectangle((right - 20, y + 10, right - 4, y + 17), INK)
    pen.text((right - 28, y + STATUS / 2), said.network, INK, font(SANS_BOLD, 12), "rm")
    for bar in range(5):
        left, tall = right - 70 + 4 * bar, 4 + 2 * bar
        colour = INK if bar < said.bars else FRAME
        pen.rectangle((left, y + 20 - tall, left + 2, y + 19), colour)


def _top_bar(card: Image.Image, pen: Pen, y: int, said: Words) -> None:
    """The feed's name; heart and messages, with a red dot where there is news."""
    bold = font(SANS_BOLD, 16)
    pen.text((PADDING, y + TOP / 2), "For You", INK, bold, "lm")
    _stamp(card, _arrow, PADDING + int(bold.getlength("For You")) + 5, y + 14, 16)
    for icon, x, news in zip((_heart, _send), (WIDTH - 74, WIDTH - 34), said.news, strict=True):
        _stamp(card, icon, x, y + 10, 24)
        if news:
            pen.ellipse((x + 17, y + 9, x + 24, y + 16), "#ed4956")
    pen.line((0, y + TOP - 1, WIDTH, y + TOP - 1), FRAME)


def _action_row(card: Image.Image, pen: Pen, y: int, said: Words) -> None:
    """Heart, comments and messages with their counts; the mark that saves at the right."""
    x, plain = PADDING, font(SANS, 14)
    for icon, number in zip((_heart, _chat, _send), said.counts, strict=True):
        _stamp(card, icon, x, y + 8, 24)
        pen.text((x + 28, y + 20), number, INK, plain, "lm")
        x += 28 + int(plain.getlength(number)) + 16
    _stamp(card, _saved if said.saved else _save, WIDTH - PADDING - 24, y + 8, 24)


def _footer(pen: Pen, y: int, said: Words, lines: list[tuple[str, str]]) -> None:
    """Name and caption; under them how old the post is."""
    bold, plain = font(SANS_BOLD, 16), font(SANS, 16)
    for index, (name, caption) in enumerate(lines):
        middle = y + 14 + LINE * index
        pen.text((PADDING, middle), name, INK, bold, "lm")
        indent = bold.getlength(f"{name} ") if name else 0
        pen.text((PADDING + indent, middle), caption, INK, plain, "lm")
    pen.text((PADDING, y + 38 + LINE * (len(lines) - 1)), said.age, GREY, font(SANS, 12), "lm")


def _bottom_bar(card: Image.Image, pen: Pen, y: int, said: Words) -> None:
    """Five things to go to, the last one's the user's own."""
    pen.line((0, y, WIDTH, y), FRAME)
    step = WIDTH / 5
    for index, icon in enumerate((_house, _glass, _plus, _film)):
        _stamp(card, icon, int(step * (index + 0.5)) - 12, y + 13, 24)
    _avatar(card, said.avatar, said.name[0], int(step * 4.5) - 14, y + 11, 28)


def post(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The screenshot of a post with an 8-bit RGB picture (width, height) in it.

    (377, 375 * height / width + 279) px, 18 more for each further line of the caption; the picture
    takes the whole width, reduced or enlarged by Lanczos, antialiased as a browser does.

    Raises:
        OSError: a strip would become a screenshot of more than 179 megapixels.
    """
    said = words(rng)
    height = max(1, round(WIDTH * image.height / image.width))
    lines = _caption_lines(said)
    rows = (STATUS, TOP, HEADER, height + GAP, ACTIONS, FOOTER + LINE * (len(lines) - 1), BOTTOM)
    check_size(WIDTH + 2 * BORDER, sum(rows) + 2 * BORDER)
    card = Image.new("RGB", (WIDTH, sum(rows)), "white")
    pen = ImageDraw.Draw(card)
    status, top, header, picture, actions, footer, bottom = np.cumsum((0, *rows[:-1])).tolist()
    _status_bar(pen, status, said)
    _top_bar(card, pen, top, said)
    _avatar(card, said.avatar, said.name[0], PADDING, header + PADDING, 40)
    pen.text((PADDING + 50, header + HEADER / 2), said.name, INK, font(SANS_BOLD, 16), "lm")
    card.paste(image.resize((WIDTH, height), Image.Resampling.LANCZOS), (0, picture))
    _action_row(card, pen, actions, said)
    _footer(pen, footer, said, lines)
    _bottom_bar(card, pen, bottom, said)
    framed = Image.new("RGB", (WIDTH + 2 * BORDER, card.height + 2 * BORDER), FRAME)
    framed.paste(card, (BORDER, BORDER))
    return framed
