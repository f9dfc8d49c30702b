"""Lists of the pictures that published figures rest on, which ship in data/lists/.

They hold names, never pictures. The families read them to evaluate on exactly those pictures, and
scripts/make_csv.py to write a published training set; nothing else does.
"""

from __future__ import annotations

import csv
import gzip
from functools import cache
from pathlib import Path

LISTS = Path(__file__).resolve().parent.parent / "data" / "lists"


@cache
def published_rows(name: str) -> tuple[tuple[str, ...], ...]:
    """Rows, without the header, of the list `name` (`spai_eval`: set, image, class;
    `study_reduced`: image, class, split). Paths have forward slashes."""
    with gzip.open(LISTS / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream)
        next(reader)
        return tuple(tuple(row) for row in reader)
