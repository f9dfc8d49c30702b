"""A small document of headings, paragraphs, tables and plots, as Markdown, HTML or plain text."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
tbody th { font-weight: 500; min-width: 8rem }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
figure { margin: 1.2rem 0 }
figcaption { color: var(--soft); font-size: .875rem }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px }
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


Block = str | Heading | Plot | Table


def visible(text: str) -> str:
    """The text on one line: line breaks, controls and undecodable bytes as backslash escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


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


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The document in GitHub's Markdown; plots are references to files beside it."""
    parts = [f"# {_markdown(title)}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {_markdown(block.text)}")
        elif isinstance(block, Plot):
            parts.append(f"![{_markdown(block.caption)}]({block.name})")
        elif isinstance(block, Table):
            parts.append(_markdown_table(block))
        else:
            parts.append(_markdown(block))
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


def _html_block(block: Block, images: Mapping[str, bytes]) -> str:
    if isinstance(block, Heading):
        return f"<h2>{_escaped(block.text)}</h2>"
    if isinstance(block, Plot):
        caption, data = _escaped(block.caption), base64.b64encode(images[block.name]).decode()
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if isinstance(block, Table):
        return _html_table(block)
    return f"<p>{_escaped(block)}</p>"


def to_html(title: str, blocks: Sequence[Block], images: Mapping[str, bytes]) -> str:
    """The document as one page that needs nothing else: `images` (PNG by name) are inlined."""
    body = "\n".join(_html_block(block, images) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
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
