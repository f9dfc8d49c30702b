"""A small document of text, tables and pictures, as Markdown, HTML or plain text."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets._paths import visible

CSS = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1b1d20; --soft: #5b6168; --line: #d4d8dd }
@media (prefers-color-scheme: dark) {
  :root { --bg: #16181b; --fg: #e6e8ea; --soft: #a3a9b0; --line: #3a3f45 }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
.table { overflow-x: auto; margin: .7rem 0 }
table { border-collapse: collapse; font-size: .875rem }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: left;
  vertical-align: top }
th:first-child { padding-left: 0 }
thead th { color: var(--soft); white-space: nowrap }
tbody th { font-weight: 500; min-width: 11rem }
td { min-width: 5rem }
td.number { min-width: 0 }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
figure { margin: 1.2rem 0 }
figcaption { color: var(--soft); font-size: .875rem }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px }
.warning { border-left: 4px solid #d55e00; padding: .1rem .8rem; font-weight: 500 }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem }
.gallery figure { margin: 0 }
.gallery img, .gallery .missing { display: block; width: 100%; height: 9.5rem;
  object-fit: contain; background: none; border-radius: 0 }
.gallery .missing { border: 1px dashed var(--line); box-sizing: border-box; padding: .5rem }
.gallery figcaption, .missing { font-size: .8rem; line-height: 1.35; color: var(--soft) }
.gallery b { display: block; color: var(--fg); font-weight: 500 }
button { display: block; margin: .5rem 0 -.4rem auto; font: inherit; font-size: .75rem }
"""
# execCommand, because navigator.clipboard is refused to a page that was opened from a folder.
COPY_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const button = document.createElement("button");
  button.textContent = "Copy table";
  button.onclick = () => {
    getSelection().selectAllChildren(table);
    document.execCommand("copy");
  };
  table.parentNode.before(button);
}
"""


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Plot:
    """A picture file beside the document, and what it shows."""

    name: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Cells as plain text; the columns after the first `names` are numbers, aligned right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


@dataclass(frozen=True)
class Caution:
    """A paragraph that nobody should miss."""

    text: str


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


Block = str | Heading | Plot | Table | Caution | Gallery


def _markdown(text: str) -> str:
    marked = re.sub(r"([\\`*|~$]|\](?=[(\[:]))", r"\\\1", visible(text))
    # Underscores emphasise only at the edge of a word; stable_diffusion stays readable.
    marked = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", marked)
    return html.escape(marked, quote=False)


def _markdown_table(table: Table) -> str:
    rule = ["---" if place < table.names else "---:" for place in range(len(table.header))]
    lines = [[_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"## {_markdown(block.text)}"
    if isinstance(block, Plot):
        return f"![{_markdown(block.caption)}]({block.name})"
    if isinstance(block, Table):
        return _markdown_table(block)
    if isinstance(block, Caution):
        return f"> **Warning:** {_markdown(block.text)}"
    if isinstance(block, Gallery):
        picture = f"![{_markdown(block.caption)}]({block.name})"
        return f"{picture}\n\n{_markdown_table(block.table)}"
    return _markdown(block)


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The document in GitHub's Markdown; pictures are references to files beside it."""
    parts = [f"# {_markdown(title)}", *map(_markdown_block, blocks)]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _html_row(cells: Sequence[str], table: Table, head: bool) -> str:
    parts = []
    for place, cell in enumerate(cells):
        tag = "th" if head or place == 0 else "td"
        scope = f' scope="{"col" if head else "row"}"' if tag == "th" else ""
        kind = ' class="number"' if place >= table.names else ""
        parts.append(f"<{tag}{scope}{kind}>{_escaped(cell)}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>"


def _html_table(table: Table) -> str:
    body = "\n".join(_html_row(row, table, head=False) for row in table.rows)
    return (
        f'<div class="table"><table>\n<thead>{_html_row(table.header, table, head=True)}</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _html_tile(picture: bytes | None, header: Sequence[str], row: Sequence[str]) -> str:
    first, *rest = map(_escaped, row)
    shown = (
        '<div class="missing">no picture to show</div>'
        if picture is None
        else f'<img alt="{first}" src="{_data("jpeg", picture)}">'
    )
    lines = "".join(
        f"<div>{_escaped(name)} {text}</div>" for name, text in zip(header[1:], rest, strict=True)
    )
    return f"<figure>{shown}<figcaption><b>{first}</b>{lines}</figcaption></figure>"


def _html_gallery(block: Gallery) -> str:
    tiles = "\n".join(
        _html_tile(picture, block.table.header, row)
        for picture, row in zip(block.pictures, block.table.rows, strict=True)
    )
    return f'<div class="gallery">\n{tiles}\n</div>'


def _html_block(block: Block, images: Mapping[str, bytes]) -> str:
    if isinstance(block, Heading):
        return f"<h2>{_escaped(block.text)}</h2>"
    if isinstance(block, Plot):
        caption = _escaped(block.caption)
        return (
            f'<figure><img alt="{caption}" src="{_data("png", images[block.name])}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if isinstance(block, Table):
        return _html_table(block)
    if isinstance(block, Caution):
        return f'<p class="warning">Warning: {_escaped(block.text)}</p>'
    if isinstance(block, Gallery):
        return _html_gallery(block)
    return f"<p>{_escaped(block)}</p>"


def policy(style: str, script: str = "") -> str:
    """The Content-Security-Policy, as an element of the head, of a page with one inline style and
    at most one script: nothing else runs, and nothing is loaded but the page's own pictures."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = source(script) if script else "'none'"
    rules = (
        f"default-src 'none'; img-src data:; style-src {source(style)}; script-src {scripts}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">\n'


def to_html(title: str, blocks: Sequence[Block], images: Mapping[str, bytes]) -> str:
    """The document as one page that needs nothing else: `images` (PNG by name) are inlined."""
    body = "\n".join(_html_block(block, images) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{policy(CSS, COPY_SCRIPT)}"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<h1>{_escaped(title)}</h1>\n{body}\n<script>{COPY_SCRIPT}</script>\n</body>\n</html>\n"
    )


def to_text(table: Table) -> str:
    """Aligned columns, names to the left and numbers to the right; no line break at the end."""
    lines = [[visible(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < table.names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
