"""The list of pictures that weights were trained on, in a file beside them.

Training writes it, and evaluation says which of its pictures are on it. It tells files by their
content: a copy under another name is recognised, one that was saved anew is not; and weights that
were moved without their list are not known to have been trained on anything. A list that cannot be
read must not end an evaluation.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import Record
from datasets._images import UnreadablePicture, digest, read_bytes

from ..runtime.files import write_file

TRAINED_ON = "trained_on.txt.gz"
THREADS = 4  # reading and hashing let each other run
MOST_BYTES = 1 << 30  # of a list unpacked: 30 million pictures
log = logging.getLogger(__name__)


def _digest(record: Record) -> str:
    """The digest of a record's file; '' for an unreadable one."""
    try:
        return digest(read_bytes(record))
    except UnreadablePicture:
        return ""  # training did not learn from it either


def write(folder: Path, records: Sequence[Record]) -> None:
    """Writes the digests of the records' files into the folder's list, sorted, a line each."""
    with ThreadPoolExecutor(THREADS) as pool:
        digests = sorted(set(pool.map(_digest, records)) - {""})
    # Without the time of writing, so that the same pictures give the same file.
    content = gzip.compress("".join(f"{line}\n" for line in digests).encode(), mtime=0)
    write_file(folder / TRAINED_ON, content)


def _lines(path: Path) -> list[str]:
    """The digests in a list; none in a damaged one, with a line in the log."""
    try:
        with gzip.open(path) as stream:
            return stream.read(MOST_BYTES).decode("ascii").split()
    except (OSError, EOFError, ValueError) as error:
        log.warning("%s: the list of training pictures cannot be read: %s", path, error)
        return []


def read(weights: Iterable[Path]) -> frozenset[str]:
    """The digests in the lists beside weight files, or in folders of such."""
    folders = {path if path.is_dir() else path.parent for path in weights}
    lists = sorted(folder / TRAINED_ON for folder in folders)
    return frozenset(line for path in lists if path.is_file() for line in _lines(path))
