"""Documents of text, tables and pictures: as GitHub's Markdown, as one HTML page, as plain text.

The paragraphs stand in `templates/`, once for all forms; `markdown.j2`, `html.j2` and `text.j2`
there say what a heading or a table looks like. Reports, comparisons and the page of contact sheets
are written through this module. Nothing that a template prints may pass unescaped: names of
pictures and generators come from strangers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datasets._paths import visible

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Plot:
    """A PNG file beside the document, and what it shows."""

    name: str
    caption: str
    content: bytes


@dataclass(frozen=True)
class Table:
    """Cells as plain text; the columns after the first `names` are numbers, aligned right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


@dataclass(frozen=True)
class Gallery:
    """Small pictures in a grid, described by the rows of a table.

    `pictures` are JPEGs, a row of `table` each, None where there is none to show; `name` is the
    file beside the document that shows them all, for Markdown, which cannot hold them.
    """

    name: str
    caption: str
    table: Table
    pictures: Sequence[bytes | None]


def _markdown(text: str) -> str:
    """Text that GitHub shows as it is, on one line."""
    marked = re.sub(r"([\\`*|~$]|\](?=[(\[:]))", r"\\\1", visible(text))
    # Underscores emphasise only at the edge of a word; stable_diffusion stays readable.
    marked = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", marked)
    return html.escape(marked, quote=False)


def _html(text: str) -> str:
    """Text that a browser shows as it is, also inside an attribute."""
    return html.escape(visible(text))


def to_text(table: Table) -> str:
    """A table as aligned columns, names to the left and numbers to the right; no line break at the
    end."""
    lines = [[visible(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < table.names else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _data(content: bytes, kind: str) -> Markup:
    """The address that holds a picture itself."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


ESCAPES = {"markdown": _markdown, "html": _html, "text": visible}


@cache
def _environment(form: str) -> Environment:
    """Jinja with the parts of a form. Every printed value is escaped as the form needs it, unless
    it is what a macro made."""

    def finalize(value: object) -> Markup:
        if isinstance(value, Markup):
            return value
        return Markup(ESCAPES[form](str(value)))

    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=finalize,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.globals["form"] = f"{form}.j2"
    found.filters |= {
        "flat": lambda text: Markup(" ".join(text.split())),
        "aligned": lambda table: Markup(to_text(table)),
        "data": _data,
    }
    return found


def _rendered(form: str, template: str, content: dict[str, object]) -> str:
    """A document without its title: paragraphs and tables with one empty line between them."""
    text = _environment(form).get_template(template).render(content)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def render_text(template: str, **content: object) -> str:
    """A template as plain text; no line break at the end."""
    return _rendered("text", template, content)


def render_markdown(template: str, title: str, **content: object) -> str:
    """A template in GitHub's Markdown, under its title."""
    return f"# {_markdown(title)}\n\n{_rendered('markdown', template, content)}\n"


def style(name: str, **values: object) -> str:
    """A style sheet of `templates/`, its values filled in."""
    return _environment("text").get_template(name).render(values)


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page with one inline style and at most one script: nothing
    else runs, and nothing is loaded but the page's own pictures."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = source(script) if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )


def page_pieces(
    template: str, title: str, style: str, script: str = "", **content: object
) -> Iterator[str]:
    """A page that needs no other file, piece by piece, so that it need not be held in memory.

    Args:
        template: one that extends `page.j2`, or that page itself.
        title: heading and title of the page.
        style, script: ours, inlined and named in the policy by their sums; no script where empty.
        content: values of the template.
    """
    page = _environment("html").get_template(template)
    # Ours, and in the page as the policy has their sums: not escaped.
    inline = {"style": Markup(style), "script": Markup(script)}
    allowed = Markup(policy(style, script))
    return page.generate(title=title, policy=allowed, **inline, **content)


def render_page(template: str, title: str, **content: object) -> str:
    """A template as one HTML page that holds its pictures, its tables with buttons to copy them."""
    script = (TEMPLATES / "copy_tables.js").read_text("utf-8")
    values = content | {"content": template}
    return "".join(page_pieces("page.j2", title, style("page.css"), script, **values))
