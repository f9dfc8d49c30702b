"""Small pieces of text that several scripts print."""

from __future__ import annotations

from collections.abc import Sequence


def size_text(size: int | None) -> str:
    """Bytes for people, as the hub shows them: 935 MB."""
    if size is None:
        return "-"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
