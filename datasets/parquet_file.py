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
from ._archives import ArchiveMember, Contents, Stated, beside, shards
from ._paths import normal
from ._record import LayoutError, Record

IMAGE, LABELS, OTHERS = "image", ("label", "class"), ("generator", "source", "split")
LAYOUT = ".parquet files with the column image, and optionally label, generator, source, split"
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet", re.IGNORECASE)
BUDGET = 256 << 20  # bytes of pictures that a process keeps: every worker has as many
ROWS = 1 << 16  # listed at once
Window = dict[int, bytes | None]  # pictures of neighbouring rows; None for a row without one


# The windows read last, of all open files of the process, by file and row group.
_windows: OrderedDict[tuple[int, int], Window] = OrderedDict()


def held() -> int:
    """Bytes of all pictures that the process keeps."""
    return sum(len(content or b"") for w in _windows.values() for content in w.values())


class Archive:
    """An open Parquet file; `member` is the number of a row, from 0.

    A row is reached through those before it in its row group. A window of neighbouring rows is
    held: the whole group where that fits the budget, else as many rows as do.
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
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            self._sizes = [group.total_byte_size for group in groups]
            self._starts = [0, *accumulate(group.num_rows for group in groups)]
        except self._errors as error:
            raise LayoutError(
                f"{path}: expected {LAYOUT}; found none that can be read ({_line(error)})"
            ) from error
        self._column = _picture_column(self._schema, path)

    def members(self) -> list[tuple[str, Stated]]:
        """Path ("" where there is none) and statements of each row, without its picture.

        Raises:
            OSError: damaged.
        """
        label = next((name for name in LABELS if name in self._schema.names), LABELS[0])
        names = (label, *OTHERS)
        columns: dict[str, list[Any]] = {n: [] for n in names if n in self._schema.names}
        paths: list[Any] = []
        try:
            for batch in self._file.iter_batches(
                ROWS, columns=[*columns, f"{IMAGE}.path"], use_threads=False
            ):
                for name, values in columns.items():
                    values += batch.column(name).to_pylist()
                if IMAGE in batch.schema.names:
                    paths += batch.column(IMAGE).field("path").to_pylist()
            nothing = [None] * self._starts[-1]
            stated = [self._words(name, columns.get(name, nothing)) for name in names]
            return [
                (path if isinstance(path, str) else "", Stated(*values))
                for path, *values in zip(paths or nothing, *stated, strict=True)
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
        row = int(member)
        if row >= self._starts[-1]:
            raise OSError("not in the Parquet file any more")
        group = bisect_right(self._starts, row) - 1
        key = id(self), group
        if row not in _windows.get(key, {}):
            _windows.pop(key, None)
            while _windows and held() + min(self._sizes[group], BUDGET) > BUDGET:
                _windows.popitem(last=False)
            _windows[key] = self._window(group, row)
        _windows.move_to_end(key)
        content = _windows[key][row]
        if content is None:
            raise OSError("the row holds no picture")
        _archives.check_size(len(content))
        return content

    def _window(self, group: int, row: int) -> Window:
        """The pictures around a row of a group, within the budget but for the row's own."""
        window: Window = {}
        size = 0
        contents = self._contents(group)
        for at in range(*self._starts[group : group + 2]):
            try:
                content = next(contents)
            except self._errors as error:
                if at > row:  # damage behind a row is no reason to refuse it
                    break
                raise OSError(f"damaged in its Parquet file: {_line(error)}") from error
            size += len(content or b"")
            if size > BUDGET:
                if at > row:
                    break
                # The next window: those of a large group begin at the same rows, whoever asks.
                window, size = {}, len(content or b"")
            window[at] = content
        return window

    def _contents(self, group: int) -> Iterator[bytes | None]:
        """The pictures of a row group, one after the other."""
        for batch in self._file.iter_batches(
            1, row_groups=[group], columns=[self._column], use_threads=False
        ):
            for value in batch.column(0).to_pylist():
                yield value["bytes"] if isinstance(value, dict) else value

    def close(self) -> None:
        for key in [key for key in _windows if key[0] == id(self)]:
            del _windows[key]
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


def _pictures(root: Path) -> Iterator[ArchiveMember]:
    for path, shard in shards(root, (".parquet",), LAYOUT):
        rows = _archives.members(path, LAYOUT)
        of_name = SHARD.fullmatch(path.name)
        names = _names([name for name, _ in rows], path)
        for row, (name, (_, stated)) in enumerate(zip(names, rows, strict=True)):
            if of_name and not stated.split:
                stated = replace(stated, split=of_name[1])
            key, inside = beside(shard, name)
            yield ArchiveMember(key, path, str(row), inside, stated)


def contents(root: Path) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError as that does."""
    return Contents(_pictures(Path(root)), Path(root), LAYOUT)


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """The pictures of a Parquet file, or of all those below a folder, sorted by key.

    Args:
        root: the file or the folder. Keys start with a file's path in the folder; then comes the
            path of the row, or its number.
        split, labelled: as in `_archives.Contents.records`.

    Raises:
        LayoutError: no such file or none that can be read, the package pyarrow is missing, no
            column of pictures, no picture, or a label is required and not stated.
    """
    return contents(root).records(split, labelled)
