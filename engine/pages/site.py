"""The HTML of the pages: their templates, and a detector's card as a part of a page.

The server renders its pages through `render`; the leaderboard has its template here, too. All that
is printed is escaped; a card's Markdown is rendered without HTML and pictures.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datasets._paths import visible

FOLDER = Path(__file__).parent
TEMPLATES, STATIC = FOLDER / "templates", FOLDER / "static"
CARD_SECTIONS = ("Results", "Verdicts", "What it is not good for")


def _shown(value: Any) -> Any:
    """A value as it is printed: names come from strangers, and may turn the direction of text."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return visible(value, "\n") if plain else value


@cache
def environment() -> Environment:
    """Jinja with the pages' templates, all values escaped."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        finalize=_shown, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """A template of the pages with its values."""
    return environment().get_template(template).render(values)


def card_of(weights: Path) -> str:
    """The sections of a card that say what was measured, in Markdown; '' where none lies beside
    the weights under their name."""
    path = weights.with_suffix(".md")
    if not path.is_file():
        return ""
    sections = path.read_text(encoding="utf-8").split("\n## ")[1:]
    chosen = [text for text in sections if text.partition("\n")[0] in CARD_SECTIONS]
    lines = "\n## ".join(["", *chosen]).splitlines()
    return "\n".join(line for line in lines if not line.startswith("!["))


def to_html(markdown: str) -> Markup:
    """Markdown with tables as HTML; HTML in it is shown as text, and a link that runs code is
    none."""
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(renderer.render(markdown))
