"""Scores of records as a saved table: rows that are there stay, the others are computed.

Phase eval, validation in training and the ensemble score through here, alone or as one of several
processes; measuring comes later. A resumed run, or one of another number of processes, must leave
the same table to the byte.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from datasets import Record
from datasets._images import UnreadablePicture, digest, read_bytes

from ..config import Config, ConfigError
from ..runtime.distributed import ALONE, World
from ..runtime.progress import Progress
from ..runtime.table_writer import TableWriter
from ..runtime.workers import Workers
from . import degradations
from .backend import Backend
from .cache import Memo
from .loop import ScoringOptions, Tally, score
from .table import COLUMNS, ScoreRow, read_table

REREAD = 100  # pictures scored before that are read again, to see whether they are the same
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableScorer:
    """A detector with all that it takes to turn pictures into rows. `backend` computes it; `memos`:
    the score cache's files by degradation; `validation`: as ScoringOptions has it."""

    backend: Backend
    config: Config
    workers: Workers
    memos: Mapping[str, Memo] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    validation: bool = False

    def rows(self, records: Sequence[Record], degradation: str) -> Iterator[list[ScoreRow]]:
        """The rows of `records`, a batch at a time."""
        options = ScoringOptions(
            self.config.score.batch_size,
            self.workers,
            self.config.score.seed,
            degradations.parse(degradation),
            self.validation,
            lookup=self.memos.get(degradation),
            tally=self.tally,
        )
        return score(self.backend, records, options)


def check_keys(records: Sequence[Record]) -> None:
    """Raises ConfigError when two pictures have one key, for a row tells them by it."""
    if len({record.key for record in records}) < len(records):
        counts = Counter(record.key for record in records)
        key, count = counts.most_common(1)[0]
        raise ConfigError(f"expected each picture once; found {key!r} {count} times")


def _check_unchanged(path: Path, records: Sequence[Record]) -> None:
    """Raises ConfigError when a picture of a table is another one now: the names of two folders may
    be the same. Reads REREAD of them, evenly spread, for all would take as long as scoring."""
    rows = [row for row in read_table(path) if row.digest]
    by_key = {record.key: record for record in records}
    for row in rows[:: max(1, len(rows) // REREAD)]:
        try:
            current = digest(read_bytes(by_key[row.key]))
        except UnreadablePicture:
            current = ""
        if current != row.digest:
            raise ConfigError(
                f"--resume: {row.key} is no longer the picture that {path} has a score of: "
                "use --overwrite or another --output"
            )


def _plan(
    table: TableWriter, records: Sequence[Record], degradations: Sequence[str], batch_size: int
) -> list[tuple[str, list[int]]]:
    """Indices of the pictures that are still to be scored, for each degradation.

    Args:
        table: opened, with what an interrupted run left.
        records, degradations: all that the whole run scores.
        batch_size: of the run; only whole batches are scored.

    Raises:
        ConfigError: the table has pictures that are not among the records, or were others.
    """
    keys = [record.key for record in records]
    if others := table.done.difference((key, name) for name in degradations for key in keys):
        raise ConfigError(
            f"--resume: {table.path} has rows of other pictures or degradations, such as "
            f"{' under '.join(min(others))!r}: use --overwrite or another --output"
        )
    if table.done:
        # Names alone do not tell pictures apart, and a row cannot be taken back.
        total = len(records) * len(degradations)
        _check_unchanged(table.path, records)
        what = "pictures" if len(degradations) == 1 else "rows (pictures x degradations)"
        log.info("%d of %d %s were scored before", len(table.done), total, what)
    return [
        (name, whole_batches([(key, name) not in table.done for key in keys], batch_size))
        for name in degradations
    ]


def score_share(
    world: World,
    scorer: TableScorer,
    records: Sequence[Record],
    chosen: Sequence[int],
    degradation: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[list[ScoreRow]]:
    """Rows of the chosen records, a batch at a time and in order, in the main process; the others
    score their share and get nothing.

    Args:
        world: its processes take batches in turn, so that each picture shares its batch with the
            same ones whatever their number.
        scorer: of this process.
        records, chosen: all records, and the indices of those to score.
        degradation: its canonical name.
        check: called by all processes after each turn; it may raise to end the run.
    """
    size = scorer.config.score.batch_size
    batches = [chosen[i : i + size] for i in range(0, len(chosen), size)]
    own = [records[i] for batch in batches[world.rank :: world.size] for i in batch]
    batches_of_rows = scorer.rows(own, degradation) if own else iter(())
    for _ in range(0, len(batches), world.size):
        gathered = world.gather(next(batches_of_rows, []))
        check()
        yield from gathered


def score_table(
    path: Path,
    records: Sequence[Record],
    scorer: TableScorer,
    degradations: Sequence[str],
    resume: bool = False,
    world: World = ALONE,
) -> list[ScoreRow]:
    """Rows of records under all degradations, in the main process; those that the table at `path`
    does not hold yet are scored and appended.

    Args:
        path: of scores.csv.
        records: with keys of their own.
        scorer: of this process.
        degradations: their canonical names, in the order of the table.
        resume: keep the rows that are there.
        world: the processes that score; only the main one writes.

    Raises:
        ConfigError: the table has pictures that are not among the records.
    """
    # The others need no table: the plan says what is missing, and the rows go to the main process.
    if not world.main:
        plan = world.run_on_main(list[tuple[str, list[int]]])
        for name, chosen in plan:
            for _ in score_share(world, scorer, records, chosen, name):
                pass
        return []
    size = scorer.config.score.batch_size
    with TableWriter(path, COLUMNS, ("key", "degradation"), resume) as table:
        plan = world.run_on_main(_plan, table, records, degradations, size)
        with Progress(sum(len(chosen) for _, chosen in plan), "scoring") as progress:
            for name, chosen in plan:
                for rows in score_share(world, scorer, records, chosen, name):
                    # Of a batch that was cut in two, some rows are on the disk already.
                    new = [row for row in rows if (row.key, row.degradation) not in table.done]
                    table.append(astuple(row) for row in new)
                    progress.advance(len(rows))
    return read_table(path)


def whole_batches(missing: Sequence[bool], size: int) -> list[int]:
    """Indices of all pictures whose batch of `size` has a missing one: the last digits of a logit
    depend on what it shares its batch with."""
    starts = [i for i in range(0, len(missing), size) if any(missing[i : i + size])]
    return [k for i in starts for k in range(i, min(i + size, len(missing)))]


def listing_digest(records: Sequence[Record]) -> str:
    """A digest of the names, labels, sources and generators of pictures, in their order, so that a
    resumed run cannot mix data."""
    total = hashlib.blake2b(digest_size=16)
    for r in records:
        row = json.dumps([r.key, r.label, r.source, r.generator])
        total.update(row.encode() + b"\n")
    return total.hexdigest()
