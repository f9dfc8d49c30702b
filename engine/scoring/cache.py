"""Scores of earlier runs: by the content of the picture, and by all that decides its logit."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import platformdirs

from datasets._images import Known

from ..config import ConfigError
from .table import ScoreRow

SUFFIX, DAMAGED = ".sqlite", ".damaged"
CHUNK = 10_000  # rows of a transaction: another run can write after each
WAIT_SECONDS = 30.0
NONE = "none"
log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where scores are kept without --cache: in the user's own cache folder."""
    return Path(platformdirs.user_cache_dir("synthetic-picture-detectors"), "scores")


@cache
def _warn(text: str) -> None:
    """Logs a line once: a sweep has a file for each degradation, all in one folder."""
    log.warning("%s", text)


def _is_damage(error: Exception) -> bool:
    """Whether it says that a file is no database, or a malformed one. All else that can go wrong
    with one, such as a lock, is a subclass."""
    return type(error) is sqlite3.DatabaseError


class Memo:
    """Looks logits up in, and adds them to, one file of scores; `path` None knows nothing.

    Asked in the processes that decode pictures, each of which opens the file for itself. A run
    calls `keep` when it is complete, and finds only what others kept: so it gives the same scores
    whether or not it was interrupted. A damaged file is set aside; whatever else is wrong with the
    file or its folder costs time and a line in the log.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._readable = path is not None
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self(hashlib.blake2b(digest_size=16).hexdigest())  # so that a damaged file is told once
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

    def _useless(self, error: Exception) -> None:
        """Says, unless it has, that a file cannot be read or written; then it is not read."""
        assert self.path is not None
        self._close()
        if self._readable:
            self._readable = False
            reason = getattr(error, "strerror", None) or error
            _warn(
                f"{self.path.parent}: the cache of scores cannot be used, which costs only time: "
                f"{reason}"
            )

    def _set_aside(self, reason: object) -> None:
        """Renames a damaged file, unless another process has done so. Raises OSError."""
        assert self.path is not None
        self._close()
        aside = self.path.with_name(self.path.name + DAMAGED)
        try:
            self.path.replace(aside)
        except FileNotFoundError:
            return
        log.warning(
            "%s: is damaged (%s): renamed to %s, and a new one begins",
            self.path, reason, aside.name,
        )  # fmt: skip

    def __call__(self, digest: str) -> Known | None:
        """What is known of the picture of that digest."""
        if not self._readable:
            return None
        try:
            try:
                return self._known(digest)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
        except (OSError, sqlite3.Error) as error:
            self._useless(error)
        return None

    def _known(self, digest: str) -> Known | None:
        reader = self._reader()
        if reader is None:
            return None
        question = "SELECT logit, width, height FROM scores WHERE digest = ?"
        try:
            found = reader.execute(question, (bytes.fromhex(digest),)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # its first writer found the disk full
                return None
            raise
        return Known(*found) if found else None

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
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while chunk := list(islice(values, CHUNK)):
                try:
                    self._add(chunk)
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._set_aside(error)
                    self._add(chunk)
        except (OSError, sqlite3.Error) as error:
            self._useless(error)

    def _add(self, values: Iterable[tuple[Any, ...]]) -> None:
        """One transaction. Raises sqlite3.Error."""
        with closing(self._connect("rwc")) as connection, connection as writer:
            writer.execute(
                "CREATE TABLE IF NOT EXISTS scores (digest BLOB PRIMARY KEY, logit REAL, "
                "width INTEGER, height INTEGER) WITHOUT ROWID"
            )
            writer.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)", values)


def open_memo(folder: str | None, fingerprint: str) -> Memo:
    """The memo of what has this fingerprint (`Provenance`) in `folder`; None = the default one,
    `none` in any case of letters = no memo.

    Raises:
        ConfigError: the folder has no name.
    """
    if folder is not None and not folder.strip():
        raise ConfigError(f"--cache: expected a folder or none; found {folder!r}")
    if folder is not None and folder.lower() == NONE:
        return Memo(None)
    place = default_folder() if folder is None else Path(folder)
    return Memo(place / f"{fingerprint}{SUFFIX}")
