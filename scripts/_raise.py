"""The pictures of RAISE-1k that Synthbuster's generators had described to them."""

from __future__ import annotations

from pathlib import Path

from datasets import LayoutError, walk_pictures
from datasets._csv import found_columns, read_csv
from datasets._layout import unexpected
from datasets._paths import relative

PROMPTS, COLUMN = "prompts.csv", "image name (matching Raise-1k)"
TIFF = (".tif", ".tiff")


def raise_names(file: Path) -> list[str]:
    """The names of the pictures of RAISE-1k whose descriptions are Synthbuster's prompts, as
    prompts.csv has them.

    Raises:
        LayoutError: no such file, no such column or no name in it, or a path in a name's place.
    """
    what = "Synthbuster's list of prompts, which names pictures of RAISE-1k"
    columns, rows = read_csv(file, what)
    if COLUMN not in columns:
        raise unexpected(file, f"a column {COLUMN!r}", found_columns(columns))
    names = [name for name in dict.fromkeys(row[COLUMN].strip() for row in rows) if name]
    if not names:
        raise unexpected(file, f"names in the column {COLUMN!r}", "none")
    for name in names:
        if "/" in relative(name, file):
            raise unexpected(file, "names of pictures", repr(name))
    return names


def raise_pictures(file: Path, folder: Path) -> list[Path]:
    """The TIFFs below a folder that the prompts in `file` describe; where one is missing, the place
    where it was expected.

    Raises:
        LayoutError: no picture is named, none of them is there, or one is there twice.
    """
    there: dict[str, Path] = {}
    names = raise_names(file)
    wanted = {name.casefold() for name in names}
    for path in walk_pictures(folder):
        stem = path.stem.casefold()
        if path.suffix.lower() not in TIFF or stem not in wanted:
            continue
        if stem in there:
            raise LayoutError(f"{folder}: expected one {path.stem}; found {there[stem]} and {path}")
        there[stem] = path
    if not there:
        raise unexpected(folder, f"the TIFFs of RAISE-1k that {file} names, as {names[0]}.tif")
    return [there.get(name.casefold(), folder / f"{name}.tif") for name in names]
