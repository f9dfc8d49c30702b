"""Pieces of text that several commands print: sizes, lines of errors, names, columns.

Pure functions, used from everywhere in the engine and the scripts. What a file or the
network supplied is shown by `one_line` alone. Quick to import: --help waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from datasets._paths import visible

LONGEST, LONGEST_REASON = 2000, 300  # characters of a message, and of why something failed


def size_text(size: int | None) -> str:
    """A number of bytes for people, as the hub shows it: 935 MB; `-` for an unknown one."""
    if size is None:
        return "-"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def one_line(message: str, longest: int = LONGEST) -> str:
    """A message without line breaks and control characters; of a very long one, which quotes a
    hostile name, the middle is left out: its end says what to do."""
    text = visible(" ".join(message.split()))
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def reason(error: BaseException) -> str:
    """An error's text, short and printable: names in it come from a file, and may be anything."""
    return one_line(str(error), LONGEST_REASON) or type(error).__name__


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Names of files or folders in one folder, where case may not count: a name that an earlier one
    or `taken` has gets a number behind it."""
    there, results = {name.casefold() for name in taken}, []
    for name in names:
        number, own = 1, name
        while own.casefold() in there:
            number += 1
            own = f"{name}_{number}"
        there.add(own.casefold())
        results.append(own)
    return results


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
