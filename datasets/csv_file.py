"""Any CSV with a column `image`, in SPAI's form: `image,class,split`, and more where known.

`image` is a path relative to the CSV's folder or to `csv_root`; `class` 1 = synthetic, 0 = real;
`split` train, val or test; `generator` and `source` are optional. Licence: the pictures' own.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ._paths import relative, split_named
from ._record import Label, LayoutError, Record

LABELS = {"0": Label.REAL, "1": Label.FAKE, "0.0": Label.REAL, "1.0": Label.FAKE, "": None}
COLUMNS = "the column image (and, as far as known, class, split, generator, source)"


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV, values as text. Raises LayoutError when it is not one."""
    if not file.is_file():
        raise LayoutError(f"{file}: expected a CSV file with {COLUMNS}; found none")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{file}: expected a CSV file in UTF-8; found {error}") from error
    if "image" not in columns:
        found = ", ".join(columns) or "an empty file"
        raise LayoutError(f"{file}: expected {COLUMNS}; found {found}")
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise LayoutError(f"{file}, row {number}: more values than the {len(columns)} columns")
    return columns, rows


def path_in(name: str, file: Path) -> str:
    """A path that a CSV names, with forward slashes, from the folder that its paths start from.

    Raises:
        LayoutError: it would lie outside that folder.
    """
    return relative(name, file, "name the folder they start from with --csv_root")


def resolve(name: str, root: Path, file: Path) -> Path:
    """The file of `path_in` below `root`. Raises LayoutError as that does."""
    return root / path_in(name, file)


def splits(root: Path) -> set[str]:
    """The splits that `records` can be asked for. Raises LayoutError as it does."""
    return {split_named(row.get("split", "")) for row in read_rows(Path(root))[1]} - {""}


def records(
    root: Path, split: str | None = None, labelled: bool = True, csv_root: Path | None = None
) -> list[Record]:
    """Lists the pictures that the CSV file `root` names, sorted by key.

    Args:
        root: the CSV file.
        split: keep the rows whose column `split` says so; None keeps all.
        labelled: whether each row must have a class.
        csv_root: the folder that paths start from, when it is not the CSV's own.

    Raises:
        LayoutError: no such file, a column is missing, a class is neither 0 nor 1, a picture is
            named twice or lies outside the folder, or no row is left.
    """
    file = Path(root)
    columns, rows = read_rows(file)
    if split and "split" not in columns:
        raise LayoutError(f"{file}: expected a column split; found {', '.join(columns)}")
    if labelled and "class" not in columns:
        raise LayoutError(f"{file}: expected a column class; found {', '.join(columns)}")
    folder = Path(csv_root) if csv_root else file.parent
    found: dict[str, Record] = {}
    for row in rows:
        if split and split_named(row["split"]) != split_named(split):
            continue
        name, value = path_in(row["image"], file), row.get("class", "").strip()
        if labelled and value not in LABELS:
            raise LayoutError(f"{file}: expected class 0 or 1; found {value!r} at {name!r}")
        label = LABELS.get(value)
        if labelled and label is None:
            raise LayoutError(f"{file}: expected a class for every picture; none at {name!r}")
        if name in found:
            raise LayoutError(f"{file}: expected each picture once; found {name!r} twice")
        generator = "" if label == Label.REAL else row.get("generator", "")
        if label == Label.FAKE:
            generator = generator or "fake"
        found[name] = Record(name, folder / name, label, row.get("source", ""), generator)
    if not found:
        what = f"rows of split {split!r}" if split else "rows"
        raise LayoutError(f"{file}: expected {what}; found none")
    return sorted(found.values(), key=lambda record: record.key)
