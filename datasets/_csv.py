"""CSV files as text in columns: the one reader, and cells that no spreadsheet computes.

Every CSV that a person may have made is read here, so that none is read by halves: what a reader
would pass over (a column twice, a quote that is never closed) is refused. Standard library only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ._record import Label, LayoutError, is_picture

# What a spreadsheet takes for a formula, after the apostrophes that keep it from doing so.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
IMAGE = "image"
# Classes as SPAI's CSV files have them; '' where unknown.
LABELS = {"0": Label.REAL, "1": Label.FAKE, "0.0": Label.REAL, "1.0": Label.FAKE, "": None}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def defused(text: str) -> str:
    """A cell as it is written: one that a spreadsheet would compute gets an apostrophe in front.
    Numbers stay."""
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def plain(cell: str) -> str:
    """The text whose `defused` a cell is."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _columns(file: Path, header: list[str]) -> list[str]:
    """The names of the columns, without blanks around them. Raises LayoutError for one that is
    there twice: which of the two counts would be a guess."""
    names = [plain(name.strip()) for name in header]
    folded = [name.casefold() for name in names]
    if twice := [name for name in dict.fromkeys(names) if folded.count(name.casefold()) > 1]:
        raise LayoutError(
            f"{file}: expected each column once; found {', '.join(map(repr, twice))} several times"
        )
    return names


def _swallowed(columns: list[str], values: list[str]) -> bool:
    """Whether an open quote took a row below into a field: the first of its lines and another one
    would each be a row, with a picture of its own."""
    column = columns.index(IMAGE) if IMAGE in columns else 0
    least = max(column + 1, min(2, len(columns)))
    lines = [line.split(",") for line in ",".join(values).splitlines()]
    rows = [len(cells) >= least and is_picture(cells[column].strip()) for cells in lines]
    return rows[:1] == [True] and any(rows[1:])


def _rows(file: Path, stream: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows as they stand, each with the line where it begins."""
    reader, line = csv.reader(stream, strict=True), 1
    try:
        for values in reader:
            if values:
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        # An open quote comes to light where the file ends.
        raise LayoutError(
            f"{file}, line {line}: expected a row of a CSV; found {error}: look for a quote "
            "without its other half"
        ) from error


def iterate_csv(file: Path, what: str = "a CSV file") -> Iterator[list[str]]:
    """The names of the columns of a CSV with commas, in UTF-8, then the values of each row as text,
    one row in memory at a time; what a row lacks is empty. `what` the file should be, for the
    message.

    Raises:
        LayoutError: no such file, another encoding, a column twice, a row of more values, or a
            quote that is not closed.
    """
    if not file.is_file():
        raise LayoutError(f"{file}: expected {what}; found none")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = _rows(file, stream)
            columns = _columns(file, next(rows, (1, []))[1])
            yield columns
            for line, values in rows:
                if len(values) > len(columns):
                    wanted = f"at most {len(columns)} values, as many as columns"
                    raise LayoutError(
                        f"{file}, line {line}: expected {wanted}; found {len(values)}"
                    )
                if _swallowed(columns, values):
                    raise LayoutError(
                        f"{file}, line {line}: expected a quote to be closed; found "
                        "one that takes the rows below into its field"
                    )
                values += [""] * (len(columns) - len(values))
                yield list(map(plain, values))
    except UnicodeDecodeError as error:
        raise LayoutError(
            f"{file}: expected a CSV file in UTF-8; found {error}: save it as UTF-8"
        ) from error


def read_csv(file: Path, what: str = "a CSV file") -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV, values as text by column. Raises LayoutError as `iterate_csv`
    does, which says what `file` and `what` are."""
    rows = iterate_csv(file, what)
    columns = next(rows)
    return columns, [dict(zip(columns, values, strict=True)) for values in rows]


def found_columns(columns: list[str]) -> str:
    """The columns of a table that lacks one, for the end of a message; where another separator
    made them one, what to do."""
    for separator, name in SEPARATORS.items():
        if len(columns) == 1 and separator in columns[0]:
            return f"one column, {columns[0]!r}, separated by {name}: save it with commas"
    return ", ".join(columns) or "an empty file"
