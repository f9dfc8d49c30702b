"""CSV tables that grow row by row and survive a kill.

Rows are on the disk within seconds, and a resumed run cuts off a half-written last row. Scores,
predictions, addresses and metadata are written through here. A row that was written stays to the
byte: resumed or not, a run leaves the same file.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datasets._csv import defused, plain

from ..config import ConfigError

FLUSH_SECONDS = 5.0


def _encode(values: Iterable[object]) -> str:
    """The line of a row; a text that a spreadsheet would compute has an apostrophe in front."""
    cells = [defused(v) if isinstance(v, str) else "" if v is None else v for v in values]
    buffer = io.StringIO(newline="")
    # Older versions of csv quote a lone carriage return only where the line ends in one.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()[:-2] + "\n"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """A small table as it would be written here, its header among the rows."""
    return "".join(map(_encode, rows))


def _complete_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that end in a newline outside quotes, each with the byte offset after it."""
    offset, pending = 0, ""
    with path.open("rb") as stream:
        for line in stream:
            offset += len(line)
            pending += line.decode("utf-8", "surrogateescape")
            if pending.endswith("\n") and pending.count('"') % 2 == 0:
                yield offset, next(csv.reader([pending], strict=True))
                pending = ""


class TableWriter:
    """A CSV to which rows are appended, on disk at most `FLUSH_SECONDS` later.

    `columns`: the header; `keys`: those of them that name a row. With `resume`, rows that an
    interrupted run left are kept, a half-written last row is cut off, and `done` holds the values
    of their `keys` columns.

    Raises:
        ConfigError: the file there has other columns.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], keys: Sequence[str], resume: bool
    ) -> None:
        self.path = path
        self.columns = list(columns)
        self.keys = [self.columns.index(key) for key in keys]
        self.done: set[tuple[str, ...]] = set()
        self._last_flush = self._last_append = time.monotonic()
        if resume and path.exists():
            self._recover()
            self._stream = path.open("ab")
        else:
            self._stream = path.open("wb")
        if self._stream.tell() == 0:
            self.append([self.columns])

    def _recover(self) -> None:
        """Keeps the rows of an interrupted run. Raises ConfigError for a file that is no table."""
        try:
            self._cut_off_half_row()
        except csv.Error as error:
            raise ConfigError(
                f"{self.path}: expected a table of this program; found {error}: "
                "use --overwrite or another --output"
            ) from error

    def _cut_off_half_row(self) -> None:
        """Cuts the file off behind its last whole row, and fills `done`. Raises csv.Error."""
        end = 0
        for offset, row in _complete_rows(self.path):
            if end == 0 and row != self.columns:
                raise ConfigError(
                    f"{self.path}: expected the columns {', '.join(self.columns)}; found "
                    f"{', '.join(row)}: use --overwrite or another --output"
                )
            if end and len(row) == len(self.columns):
                self.done.add(tuple(plain(row[i]) for i in self.keys))
            elif end:  # a row that was torn by a crash, and all behind it, is scored anew
                break
            end = offset
        os.truncate(self.path, end)

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Appends rows of values; None becomes an empty field."""
        text = "".join(_encode(row) for row in rows)
        with self._named_errors():
            self._stream.write(text.encode("utf-8", "surrogateescape"))
        now = time.monotonic()
        # What comes slowly goes to the disk at once, for nothing else may come in time to take it.
        slow = now - self._last_append >= FLUSH_SECONDS / 2
        if slow or now - self._last_flush >= FLUSH_SECONDS:
            self.flush()
        self._last_append = now

    def flush(self) -> None:
        """Puts all rows so far on the disk, where a crash of the machine leaves them."""
        with self._named_errors():
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self._last_flush = time.monotonic()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A context whose OSErrors say which file could not be written: the system does not."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def close(self) -> None:
        """Closes the file, flushed."""
        self.flush()
        self._stream.close()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
