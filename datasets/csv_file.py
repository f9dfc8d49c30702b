"""Any CSV with a column `image`, in SPAI's form: `image,class,split`, and more where known.

`image` is an absolute path, or one from the CSV's folder or from `csv_root`, or a key of the LMDB
`csv_root`; `class` 1 = synthetic, 0 = real; `split` train, val or test; `generator`, `source` and
`released`, when the generator came out, YYYY or YYYY-MM, are optional.
Licence: the pictures' own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import _archives
from ._csv import IMAGE, LABELS, found_columns, iterate_csv, read_csv
from ._dates import date
from ._paths import relative, split_named
from ._record import Label, LayoutError, Record

COLUMNS = "the column image (and, as far as known, class, split, generator, source, released)"


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV of pictures, values as text. Raises LayoutError when it is
    not one."""
    columns, rows = read_csv(file, f"a CSV file with {COLUMNS}")
    if IMAGE not in columns:
        raise LayoutError(f"{file}: expected {COLUMNS}; found {found_columns(columns)}")
    return columns, rows


def picture_names(file: Path, split: str | None = None) -> Iterator[str]:
    """The texts of the column image, row by row, one in memory at a time; of a split alone where
    one is named. Raises LayoutError when the file is no CSV of pictures, or has no splits."""
    rows = iterate_csv(file, f"a CSV file with {COLUMNS}")
    columns = next(rows)
    if IMAGE not in columns:
        raise LayoutError(f"{file}: expected {COLUMNS}; found {found_columns(columns)}")
    if split:
        own = _split_column(file, columns)
        rows = (values for values in rows if split_named(values[own]) == split_named(split))
    place = columns.index(IMAGE)
    yield from (values[place] for values in rows)


def _split_column(file: Path, columns: list[str]) -> int:
    """The number of the column split. Raises LayoutError where there is none."""
    if "split" not in columns:
        raise LayoutError(f"{file}: expected a column split; found {', '.join(columns)}")
    return columns.index("split")


def path_in(name: str, file: Path, root: Path | None = None) -> str:
    """A path that a CSV names, with forward slashes, from the folder `root` that its paths start
    from; an absolute one where it lies outside, or without `root`.

    Blanks around it are part of it only where there is such a file.

    Raises:
        LayoutError: it is empty or leads upwards.
    """
    bare = name.strip()
    if bare != name and not (root and os.path.lexists(root / name)):
        name = bare
    # Absolute without resolving: a link that a person made may lead out of the root.
    path, start = Path(name), root.absolute() if root else None
    if path.is_absolute() and ".." not in path.parts and "\0" not in name:
        return (path.relative_to(start) if start and start in path.parents else path).as_posix()
    return relative(name, file, "write an absolute path for a picture elsewhere")


def resolve(name: str, root: Path, file: Path) -> Path:
    """The file of `path_in` below `root`. Raises LayoutError as that does."""
    return root / path_in(name, file, root)


def _lmdb(place: Path) -> Path | None:
    """The file of an LMDB with the pictures; None where they lie below the folder `place`.

    Raises:
        LayoutError: it is any other file.
    """
    if not place.is_file():
        # LMDB's own form is a folder with this file in it.
        data = place / _archives.LMDB_DATA
        return data if data.is_file() else None
    if _archives.FORMATS.get(place.suffix.lower()) != "lmdb_file":
        raise LayoutError(
            f"{place}: expected a folder, or an LMDB (.lmdb, .mdb), that the paths in a CSV start "
            "from; found another file"
        )
    return place


class Contents:
    """What one reading of a CSV found; `csv_root` as in `records`.

    Raises:
        LayoutError: no such file, no column `image`, or `csv_root` is a file but no LMDB.
    """

    def __init__(self, file: Path, csv_root: Path | None) -> None:
        self._file = file
        self._columns, self._rows = read_rows(file)
        self._folder = csv_root or file.parent
        self._lmdb = _lmdb(csv_root) if csv_root else None
        layout = "an LMDB that holds the pictures of a CSV"
        # Kept, for each row asks whether its name is a key.
        self._keys = frozenset(_archives.members(self._lmdb, layout) if self._lmdb else ())

    def __len__(self) -> int:
        return len(self._rows)

    def splits(self) -> set[str]:
        """What can be asked for as a split."""
        return {split_named(row.get("split", "")) for row in self._rows} - {""}

    def _name(self, text: str) -> str:
        """The key of the picture that a row names."""
        # Keys of an LMDB are no paths on disk, but become results' names, so none leads upwards.
        if self._lmdb is None:
            return path_in(text, self._file, self._folder)
        return relative(text if text in self._keys else text.strip(), self._file)

    def _record(self, name: str, label: Label | None, row: dict[str, str]) -> Record:
        """The record of a row. A real picture has no generator, whatever its row says."""
        generator = "" if label == Label.REAL else row.get("generator", "").strip()
        released = ""
        if label == Label.FAKE:
            generator = generator or "fake"
            released = self._released(name, row.get("released", "").strip())
        path, member = (self._lmdb, name) if self._lmdb else (self._folder / name, "")
        source = row.get("source", "").strip()
        return Record(name, path, label, source, generator, member, released=released)

    def _released(self, name: str, text: str) -> str:
        """When the generator of a picture came out, '' where the row does not say so."""
        try:
            return date(text) if text else ""
        except ValueError as error:
            raise LayoutError(f"{self._file}, {name}: released: {error}") from error

    def records(self, split: str | None = None, labelled: bool = True) -> list[Record]:
        """As `records` of this module."""
        file, columns = self._file, ", ".join(self._columns)
        if split:
            _split_column(file, self._columns)
        if labelled and "class" not in self._columns:
            raise LayoutError(f"{file}: expected a column class; found {columns}")
        by_key: dict[str, Record] = {}
        for row in self._rows:
            if split and split_named(row["split"]) != split_named(split):
                continue
            name = self._name(row[IMAGE])
            value = row.get("class", "").strip()
            # Never guessed: a row without a class would count for either.
            if labelled and value not in LABELS:
                raise LayoutError(f"{file}: expected class 0 or 1; found {value!r} at {name!r}")
            label = LABELS.get(value)
            if labelled and label is None:
                raise LayoutError(f"{file}: expected a class for every picture; none at {name!r}")
            # It would count twice, perhaps once for each class.
            if name in by_key:
                raise LayoutError(f"{file}: expected each picture once; found {name!r} twice")
            by_key[name] = self._record(name, label, row)
        if not by_key:
            what = f"rows of split {split!r}" if split else "rows"
            raise LayoutError(f"{file}: expected {what}; found none")
        self._check_keys(by_key)
        return sorted(by_key.values(), key=lambda record: record.key)

    def _check_keys(self, names: Iterable[str]) -> None:
        """Raises LayoutError for an LMDB of other pictures. One key in common is enough: which
        others are missing, their rows will say."""
        if self._lmdb and self._keys.isdisjoint(names):
            other = f"such as {min(self._keys)!r}" if self._keys else "none"
            raise LayoutError(
                f"{self._folder}: expected the keys that {self._file} names, such as "
                f"{min(names)!r}; found {other}"
            )


def contents(root: Path, csv_root: Path | None = None) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError as that does."""
    return Contents(Path(root), Path(csv_root) if csv_root else None)


def records(
    root: Path, split: str | None = None, labelled: bool = True, csv_root: Path | None = None
) -> list[Record]:
    """Lists the pictures that the CSV file `root` names, sorted by key.

    Args:
        root: the CSV file.
        split: keep the rows whose column `split` says so; None keeps all.
        labelled: whether each row must have a class.
        csv_root: the folder that paths start from, when it is not the CSV's own; or the LMDB whose
            keys they are, a file or a folder with data.mdb.

    Raises:
        LayoutError: no such file, a column is missing or there twice, a class is neither 0 nor 1, a
            `released` no date, a picture is named twice or by a path that leads upwards, no row is
            left, or the LMDB has none of them.
    """
    return contents(root, csv_root).records(split, labelled)
