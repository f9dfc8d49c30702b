"""The pictures that phase test is asked about, as paths on a command line or on standard input.

The request builder and the scripts that score pictures list them here; nothing is opened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TextIO

import datasets
from datasets import Record
from datasets._paths import ALL

from ..phases.test import typed_path

STDIN = "-"
FIRST_BYTES = 1 << 16  # of standard input: longer than any path, so that a NUL behind one is there


def listed(stdin: TextIO) -> Iterator[str]:
    """The paths on standard input: as they are between NULs (`find -print0`), which no path holds;
    otherwise one a line, each as `typed_path` has it. No more than a few are in memory."""
    stream: BinaryIO = getattr(stdin, "buffer", None) or BytesIO(os.fsencode(stdin.read()))
    pending = more = stream.read(FIRST_BYTES)
    separator = b"\0" if b"\0" in pending else b"\n"
    while more:
        *names, pending = pending.split(separator)
        yield from _names(names, separator)
        more = stream.read(FIRST_BYTES)
        pending += more
    yield from _names([pending], separator)


def _names(names: Iterable[bytes], separator: bytes) -> Iterator[str]:
    """The paths that stood between separators, without empty ones."""
    for name in map(os.fsdecode, names):
        if path := name if separator == b"\0" else typed_path(name):
            yield path


def collect(
    inputs: Sequence[str],
    csv_roots: Sequence[Path] = (),
    split: str | None = None,
    stdin: TextIO | None = None,
) -> list[Record]:
    """Records of pictures, folders (recursive), CSV files, archives and `-` (paths on standard
    input), of a split alone where one is named.

    `key` is the path as results show it: in an archive, the archive's and the member's. A named
    file that is missing becomes a record all the same: its row will carry the error.

    Args:
        csv_roots: as `datasets.csv_roots` has them.

    Raises:
        LayoutError: a folder, CSV or archive without pictures, or nothing named at all.
    """
    found: list[Record] = []
    paths = [Path(name) for name in inputs]
    wanted = None if split == ALL else split
    for name, path, csv_root in zip(
        inputs, paths, datasets.csv_roots(paths, csv_roots), strict=True
    ):
        if name == STDIN:
            found += [Record(line, Path(line)) for line in listed(stdin or sys.stdin)]
        elif kind := datasets.kind_of(path):
            # The pictures that a CSV names may be in an archive themselves.
            archive = csv_root if csv_root and kind == "csv_file" else path
            for record in datasets.open_path(path, wanted, labelled=False, csv_root=csv_root):
                shown = archive / record.key if record.member else record.path
                found.append(replace(record, key=str(shown)))
        else:
            found.append(Record(name, path))
    if not found:
        raise datasets.LayoutError("--input: expected pictures; found none")
    return found
