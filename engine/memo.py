"""Scores of earlier runs: by the content of the picture, and by all that decides its logit."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import platformdirs

from datasets._images import Known

from .config import ROOT
from .table import ScoreRow

# The code between a file's bytes and its logit: a change in it makes earlier scores void.
CODE = ("datasets/_images.py", "detectors/**/*.py", "engine/*degrad*.py", "engine/predict.py")
SUFFIX = ".sqlite"
WAIT_SECONDS = 30.0
NONE = "none"
log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where scores are kept without --cache: in the user's own cache folder."""
    return Path(platformdirs.user_cache_dir("synthetic-picture-detectors"), "scores")


def code_digest() -> str:
    """A hash over the code that turns a file into a logit."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted({path for pattern in CODE for path in ROOT.glob(pattern)}):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def fingerprint(conditions: Mapping[str, Any]) -> str:
    """A hash of whatever decides a logit besides the picture; `conditions` as JSON knows them."""
    text = json.dumps({**conditions, "code": code_digest()}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Memo:
    """Looks logits up in, and adds them to, one file of scores; `path` None knows nothing.

    Asked in the processes that decode pictures, each of which opens the file for itself. Only what
    the file held before is ever found, for `keep` is called when a run is complete: so a run gives
    the same scores whether or not it was interrupted.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self(hashlib.blake2b(digest_size=16).hexdigest())  # so that a damaged file is told once
        self._close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def _reader(self) -> sqlite3.Connection | None:
        if self.path is None or not self.path.exists():
            return None
        # A connection must not cross a fork.
        if self._opened is None or self._opened[0] != os.getpid():
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS)
            self._opened = os.getpid(), connection
        return self._opened[1]

    def __call__(self, digest: str) -> Known | None:
        """What is known of the picture of that digest."""
        try:
            return self._known(digest)
        except sqlite3.Error as error:
            log.warning("%s: cannot be read, and is left alone: %s", self.path, error)
            self.path = None
            return None

    def _known(self, digest: str) -> Known | None:
        reader = self._reader()
        if reader is None:
            return None
        question = "SELECT logit, width, height FROM scores WHERE digest = ?"
        found = reader.execute(question, (bytes.fromhex(digest),)).fetchone()
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
            connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS)
            with closing(connection), connection as writer:
                writer.execute(
                    "CREATE TABLE IF NOT EXISTS scores (digest BLOB PRIMARY KEY, logit REAL, "
                    "width INTEGER, height INTEGER) WITHOUT ROWID"
                )
                writer.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)", values)
        except (OSError, sqlite3.Error) as error:
            log.warning("%s: the scores are not kept for later runs: %s", self.path, error)


def open_memo(folder: str | None, conditions: Mapping[str, Any]) -> Memo:
    """The memo of one detector, weights and transform in `folder`; None = the default one, `none`
    = no memo."""
    if folder == NONE:
        return Memo(None)
    place = default_folder() if folder is None else Path(folder)
    return Memo(place / f"{fingerprint(conditions)}{SUFFIX}")
