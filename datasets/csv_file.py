"""Any CSV with a column `image`, in SPAI's form: `image,class,split`, and more where known.

`image` is a path relative to the CSV's folder or to `csv_root`; `class` 1 = synthetic, 0 = real;
`split` train, val or test; `generator` and `source` are optional. Licence: the pictures' own.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from ._record import Label, LayoutError, Record

LABELS = {"0": Label.REAL, "1": Label.FAKE, "0.0": Label.REAL, "1.0": Label.FAKE, "": None}


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV, values as text. Raises LayoutError when it is not one."""
    if not file.is_file():
        raise LayoutError(
            f"{file}: expected a CSV file with the columns image, class, split; found none"
        )
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = list(reader.fieldnames or [])
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{file}: expected a CSV file in UTF-8; found {error}") from error
    if "image" not in columns:
        found = ", ".join(columns) or "an empty file"
        raise LayoutError(f"{file}: expected the columns image, class, split; found {found}")
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise LayoutError(f"{file}, row {number}: more values than the {len(columns)} columns")
    return columns, rows


def resolve(name: str, root: Path, file: Path) -> Path:
    """The path that a CSV names. Raises LayoutError when it would lie outside `root`."""
    relative = PurePosixPath(name.replace("\\", "/"))
    if not name or relative.is_absolute() or ".." in relative.parts:
        raise LayoutError(
            f"{file}: expected paths that stay inside {root}; found {name!r}: "
            "name the folder they start from with --csv_root"
        )
    return root / relative


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
    folder = Path(csv_root) if csv_root else file.parent
    found: dict[str, Record] = {}
    for row in rows:
        if split and row["split"] != split:
            continue
        name, value = row["image"], row.get("class", "").strip()
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
        found[name] = Record(
            name, resolve(name, folder, file), label, row.get("source", ""), generator
        )
    if not found:
        what = f"rows of split {split!r}" if split else "rows"
        raise LayoutError(f"{file}: expected {what}; found none")
    return sorted(found.values(), key=lambda record: record.key)
