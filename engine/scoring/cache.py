"""The score cache: logits of earlier runs, by picture and by all that decides a logit.

Phase eval opens a file for each degradation; the processes that decode ask it by the digest of a
picture's file. It must never change a score, nor end a run: whatever is wrong with the cache costs
time and a line in the log.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from datasets._images import Known

from ..config import ConfigError
from .table import ScoreRow

SUFFIX = ".sqlite"
CHUNK = 10_000  # rows of a transaction: another run can write after each
WAIT_SECONDS = 30.0  # for another run's transaction
NONE = "none"
T = TypeVar("T")
log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Folder of the cache without --cache: in the user's own cache folder."""
    return Path(platformdirs.user_cache_dir("synthetic-picture-detectors"), "scores")


@cache
def _warn(text: str) -> None:
    """Logs a line once: a sweep has a file for each degradation, all in one folder."""
    log.warning("%s", text)


class Memo:
    """Logits of one file of the cache, looked up and added to; `path` None knows nothing.

    Asked in the processes that decode pictures, each of which opens the file for itself. A run
    calls `keep` when it is complete, and looks up only what others kept: so it gives the same
    scores whether or not it was interrupted. A damaged file is deleted, and a new one begins.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._readable = path is not None
        self._opened: tuple[int, sqlite3.Connection] | None = None
        # Damage is met here, before the processes that decode are forked: one line, not one each.
        self(hashlib.blake2b(digest_size=16).hexdigest())
        self._close()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opened": None}

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def _connect(self, mode: str) -> sqlite3.Connection:
        assert self.path is not None
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS)

    def _reader(self) -> sqlite3.Connection | None:
        # A connection must not cross a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            if self.path is None or not self.path.exists():
                return None
            # For writing too, or what a killed writer left could not be rolled back.
            self._opened = os.getpid(), self._connect("rw")
        return self._opened[1]

    def _attempt(self, action: Callable[[], T]) -> T | None:
        """The result of reading or writing the file; once more after damage. None, with a line in
        the log, where the file or its folder cannot be used."""
        assert self.path is not None
        try:
            try:
                return action()
            except sqlite3.DatabaseError as error:
                # All else that can go wrong with a database, such as a lock, is a subclass.
                if type(error) is not sqlite3.DatabaseError:
                    raise
                self._close()
                self.path.unlink(missing_ok=True)  # another process may have been faster
                _warn(f"{self.path}: is damaged ({error}): deleted, and a new one begins")
                return action()
        except (OSError, sqlite3.Error) as error:
            self._close()
            if self._readable:
                self._readable = False
                reason = getattr(error, "strerror", None) or error
                _warn(
                    f"{self.path.parent}: the cache of scores cannot be used, which costs only "
                    f"time: {reason}"
                )
        return None

    def __call__(self, digest: str) -> Known | None:
        """Logit and size of the picture whose file has that digest; None for one not known."""
        return self._attempt(partial(self._known, digest)) if self._readable else None

    def _known(self, digest: str) -> Known | None:
        reader = self._reader()
        if reader is None:
            return None
        question = "SELECT logit, width, height FROM scores WHERE digest = ?"
        try:
            values = reader.execute(question, (bytes.fromhex(digest),)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # its first writer met a full disk
                return None
            raise
        return Known(*values) if values else None

    def keep(self, rows: Iterable[ScoreRow]) -> None:
        """Adds the scores of a complete run; what cannot be written is only missed, with a line."""
        if self.path is None:
            return
        values = (
            (bytes.fromhex(row.digest), row.logit, row.width, row.height)
            for row in rows
            if row.digest and row.logit is not None
        )
        self._close()
        while chunk := list(islice(values, CHUNK)):
            if not self._attempt(partial(self._add, self.path, chunk)):
                return

    def _add(self, path: Path, values: Iterable[tuple[Any, ...]]) -> bool:
        """True, when one transaction has added the values. Raises OSError, sqlite3.Error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect("rwc")) as connection, connection as writer:
            writer.execute(
                "CREATE TABLE IF NOT EXISTS scores (digest BLOB PRIMARY KEY, logit REAL, "
                "width INTEGER, height INTEGER) WITHOUT ROWID"
            )
            writer.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)", values)
        return True


def open_memo(folder: str | None, fingerprint: str) -> Memo:
    """The cache's file for what has this fingerprint (`Provenance.fingerprint`) in `folder`; None =
    the default one, `none` in any case of letters = a memo that knows nothing.

    Raises:
        ConfigError: the folder has no name.
    """
    if folder is not None and not folder.strip():
        raise ConfigError(f"--cache: expected a folder or none; found {folder!r}")
    if folder is not None and folder.lower() == NONE:
        return Memo(None)
    parent = default_folder() if folder is None else Path(folder)
    return Memo(parent / f"{fingerprint}{SUFFIX}")
