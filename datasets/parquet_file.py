"""Pictures in Parquet files as hubs of data sets hold them: a file, or a folder of them.

The column `image` holds the picture's file, or `bytes` and `path`. The columns `label` or `class`
(0 and 1, or numbers that the file itself calls real and fake), `generator`, `source` and `split`
are optional; without a label the folders of `path` state it, without a split the name of the file,
`SPLIT-00000-of-00008.parquet`. Needs the package pyarrow. Licence: that of the pictures' owner.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from . import _archives
from ._members import Contents, Entry, Stated, beside, shards
from ._paths import normal
from ._record import LayoutError, Record

IMAGE, LABELS, OTHERS = "image", ("label", "class"), ("generator", "source", "split")
LAYOUT = ".parquet files with the column image, and optionally label, generator, source, split"
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet", re.IGNORECASE)
BUDGET = 256 << 20  # bytes of pictures that a process keeps
ROWS = 1 << 16  # listed at once


class _Kept:
    """The contents read last, of all open files of the process; None for a row without one."""

    def __init__(self) -> None:
        self._size = 0
        self._contents: OrderedDict[tuple[int, int], bytes | None] = OrderedDict()

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._contents

    def get(self, key: tuple[int, int]) -> bytes | None:
        """A content that is kept."""
        self._contents.move_to_end(key)
        return self._contents[key]

    def put(self, key: tuple[int, int], content: bytes | None) -> None:
        """Keeps a content, and as many of the earlier ones as the budget allows."""
        if key in self._contents:
            return
        self._contents[key] = content
        self._size += len(content or b"")
        while self._size > BUDGET and len(self._contents) > 1:
            _, dropped = self._contents.popitem(last=False)
            self._size -= len(dropped or b"")

    def drop(self, owner: int) -> None:
        """Lets go of what belongs to one file."""
        for key in [key for key in self._contents if key[0] == owner]:
            self._size -= len(self._contents.pop(key) or b"")


_kept = _Kept()


class Archive:
    """An open Parquet file; `member` is the number of a row, from 0.

    A row is reached through those before it in its row group. A group that fits the budget is read
    as a whole, any other up to the row, from where the last call stopped if that was before it:
    memory holds a page of the file besides the budget.
    """

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise LayoutError(
                f"{path}: expected the package pyarrow, to read it; found none: pip install pyarrow"
            ) from error
        # Also text that is none, a column twice, fewer rows than announced.
        self._errors: tuple[type[Exception], ...] = (
            ArrowException, OSError, ValueError, KeyError, StopIteration,
        )  # fmt: skip
        try:
            # With a buffer, a group's column is not read as a whole before its first row.
            self._file = parquet.ParquetFile(
                path, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
            )
            self._schema = self._file.schema_arrow
            metadata = self._file.metadata
            self._groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            self._starts = [0, *accumulate(group.num_rows for group in self._groups)]
        except self._errors as error:
            raise LayoutError(
                f"{path}: expected {LAYOUT}; found none that can be read ({_line(error)})"
            ) from error
        self._column = _picture_column(self._schema, path)
        self._cursor: tuple[int, int, Iterator[bytes | None]] | None = None

    def members(self) -> list[tuple[str, Stated]]:
        """Path ("" where there is none) and statements of each row, without its picture.

        Raises:
            OSError: damaged.
        """
        label = next((name for name in LABELS if name in self._schema.names), LABELS[0])
        names = (label, *OTHERS)
        wanted = [name for name in names if name in self._schema.names]
        found: dict[str, list[Any]] = {name: [] for name in wanted}
        paths: list[Any] = []
        try:
            for batch in self._file.iter_batches(
                ROWS, columns=[*wanted, f"{IMAGE}.path"], use_threads=False
            ):
                for name in wanted:
                    found[name] += batch.column(name).to_pylist()
                if IMAGE in batch.schema.names:
                    paths += batch.column(IMAGE).field("path").to_pylist()
            nothing = [None] * self._starts[-1]
            columns = [self._words(name, found.get(name, nothing)) for name in names]
            return [
                (path if isinstance(path, str) else "", Stated(*said))
                for path, *said in zip(paths or nothing, *columns, strict=True)
            ]
        except self._errors as error:
            raise OSError(_line(error)) from error

    def _words(self, column: str, values: list[Any]) -> list[Any]:
        """The names of classes that numbers stand for, where the file has a table of them."""
        try:
            features = json.loads(self._schema.metadata[b"huggingface"])["info"]["features"]
            names = list(features[column]["names"])
        except (KeyError, TypeError, ValueError, RecursionError):
            return values
        known = dict(enumerate(names))
        return [known.get(value, value) if isinstance(value, int) else value for value in values]

    def read(self, member: str) -> bytes:
        """The content of a row. Raises OSError: missing, damaged, over 1 GiB."""
        row, key = int(member), (id(self), int(member))
        if row >= self._starts[-1]:
            raise OSError("not in the Parquet file any more")
        content = _kept.get(key) if key in _kept else self._seek(row)
        if content is None:
            raise OSError("the row holds no picture")
        _archives.check_size(len(content))
        return content

    def _seek(self, row: int) -> bytes | None:
        group = bisect_right(self._starts, row) - 1
        first, end = self._starts[group : group + 2]
        rows = self._contents(group)
        if self._cursor and self._cursor[0] == group and self._cursor[1] <= row:
            _, first, rows = self._cursor
        self._cursor = None
        last = end - 1 if self._groups[group].total_byte_size <= BUDGET else row
        found = None
        for at in range(first, last + 1):
            try:
                content = next(rows)
            except self._errors as error:
                if at > row:  # damage behind a row is no reason to refuse it
                    return found
                raise OSError(f"damaged in its Parquet file: {_line(error)}") from error
            _kept.put((id(self), at), content)
            if at == row:
                found = content
        self._cursor = (group, last + 1, rows)
        return found

    def _contents(self, group: int) -> Iterator[bytes | None]:
        """The pictures of a row group, one after the other."""
        for batch in self._file.iter_batches(
            1, row_groups=[group], columns=[self._column], use_threads=False
        ):
            for value in batch.column(0).to_pylist():
                yield value["bytes"] if isinstance(value, dict) else value

    def close(self) -> None:
        _kept.drop(id(self))
        self._cursor = None
        self._file.close()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _picture_column(schema: Any, path: Path) -> str:
    """The column of pictures, in Parquet's words. Raises LayoutError when there is none."""
    from pyarrow import types

    def is_binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    index = schema.get_field_index(IMAGE)
    if index < 0:
        raise LayoutError(f"{path}: expected {LAYOUT}; found {', '.join(schema.names)[:200]!r}")
    kind = schema.field(index).type
    if is_binary(kind):
        return IMAGE
    inner = kind.get_field_index("bytes") if types.is_struct(kind) else -1
    if inner >= 0 and is_binary(kind.field(inner).type):
        return f"{IMAGE}.bytes"
    raise LayoutError(f"{path}: expected pictures' bytes in the column {IMAGE}; found {kind}"[:300])


def _names(paths: list[str], file: Path) -> list[str]:
    """What the rows are called: their paths, or their numbers where paths would not do: missing,
    repeated, absolute (from where the file was made), or upwards."""
    numbers = [f"{row:07}" for row in range(len(paths))]
    try:
        names = [normal(path, file) for path in paths]
    except LayoutError:
        return numbers
    return names if all(names) and len(set(names)) == len(names) else numbers


def _entries(root: Path) -> Iterator[Entry]:
    for path, shard in shards(root, (".parquet",), LAYOUT):
        rows = _archives.members(path, LAYOUT)
        of_name = SHARD.fullmatch(path.name)
        for row, (name, (_, stated)) in enumerate(
            zip(_names([p for p, _ in rows], path), rows, strict=True)
        ):
            if of_name and not stated.split:
                stated = replace(stated, split=of_name[1])
            key, place = beside(shard, name)
            yield Entry(key, path, str(row), place, stated)


def contents(root: Path) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError as that does."""
    return Contents(_entries(Path(root)), Path(root), LAYOUT)


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """Lists the pictures of a Parquet file, or of all those below a folder, sorted by key.

    Args:
        root: the file or the folder. Keys start with a file's path in the folder; then comes the
            path of the row, or its number.
        split: what the column, or else the file's name, or a leading folder says; None takes
            everything.
        labelled: whether every picture must have a label.

    Raises:
        LayoutError: no such file or none that can be read, the package pyarrow is missing, no
            column of pictures, no picture, or a label is required and not stated.
    """
    return contents(root).records(split, labelled)
