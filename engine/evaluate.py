"""Phase eval: score labelled pictures once, then derive every number from the saved table."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import astuple, dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from datasets import Record
from datasets._images import UnreadablePicture, digest, read_bytes
from detectors._base import Detector

from . import degrade, report, trained_on
from ._analysis import TOO_MANY_UNREADABLE
from .config import Config, ConfigError
from .decoding import IN_PROCESS, Workers
from .distributed import ALONE, World
from .hints import hints
from .listing import listing_digest, whole_batches
from .memo import Memo, open_memo
from .metadata import TABLE, Values
from .metadata import write as write_metadata
from .predict import Device, Tally, score
from .probability import EVEN, restated
from .program import FILE_ONLY
from .progress import Progress
from .report import View
from .run import RUN, begin, deciding, differing_entries, log_to, open_output, run_info, write_json
from .table import COLUMNS, ScoreRow, TableWriter, count_pictures, read_table
from .thumbnails import jpeg, thumbnails
from .weights import Loaded

SCORES, LOG = "scores.csv", "evaluation.log"
SERIES = ("series.csv", "series.md")  # of several evaluations below one folder
RESULTS = (RUN, "result.json", "output.json", "metrics.json", TABLE, LOG, *SERIES, *report.FILES)
# What a resumed run must have in common with the one it goes on with, beside what decides scores.
SAME = ("data", "benchmark", "protocol", "degradations", "prevalence")
# So many pictures that were scored before are read again, to see whether they are still the same.
REREAD = 100
THUMBNAIL = 192
REASONS = 3  # why pictures could not be read that the log names
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What phase eval is asked to do, besides the detector and the pictures.

    `degradations`: canonical names, the first one that of the main tables, `view.base`.
    `benchmark`, `protocol`: their names, where the pictures are those of a benchmark. `pictures`:
    what evaluation.log calls them. `metadata`: what is known of pictures, by their keys. `cache`:
    as open_memo has it. `tag`: the run's name. `prevalence`: the share of generated pictures that
    the results' probabilities are for; the table and the cache have those for one half.
    """

    output: Path
    title: str
    threshold: float
    prevalence: float = EVEN
    degradations: tuple[str, ...] = (degrade.NONE,)
    view: View = field(default_factory=View)
    benchmark: str | None = None
    protocol: str | None = None
    pictures: str = "data"
    metadata: Mapping[str, Values] = field(default_factory=dict)
    cache: str | None = None
    tag: str = ""
    workers: Workers = IN_PROCESS
    resume: bool = False
    overwrite: bool = False

    @property
    def heading(self) -> str:
        """The title of the report, with the run's name."""
        return f"{self.title} ({self.tag})" if self.tag else self.title


@dataclass(frozen=True)
class Scorer:
    """What turns pictures into rows."""

    model: Detector
    device: Device
    config: Config
    workers: Workers
    memos: Mapping[str, Memo] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    validation: bool = False

    def rows(self, records: Sequence[Record], degradation: str) -> Iterator[list[ScoreRow]]:
        """The rows of `records`, a batch at a time."""
        return score(
            self.model,
            records,
            self.device,
            self.config.score.batch_size,
            self.workers,
            degrade.parse(degradation),
            self.config.score.seed,
            lookup=self.memos.get(degradation),
            tally=self.tally,
            validation=self.validation,
        )


def check_keys(records: Sequence[Record]) -> None:
    """Raises ConfigError when two pictures have one key, for a row tells them by it."""
    if len({record.key for record in records}) < len(records):
        counts = Counter(record.key for record in records)
        key, count = counts.most_common(1)[0]
        raise ConfigError(f"expected each picture once; found {key!r} {count} times")


def _check_unchanged(path: Path, records: Sequence[Record]) -> None:
    """Raises ConfigError when a picture that a table has is another one now: the names of two
    folders may be the same. Reads REREAD of them, evenly spread."""
    rows = [row for row in read_table(path) if row.digest]
    named = {record.key: record for record in records}
    for row in rows[:: max(1, len(rows) // REREAD)]:
        try:
            found = digest(read_bytes(named[row.key]))
        except UnreadablePicture:
            found = ""
        if found != row.digest:
            raise ConfigError(
                f"--resume: {row.key} is no longer the picture that {path} has a score of: "
                "use --overwrite or another --output"
            )


def _plan(
    table: TableWriter, records: Sequence[Record], degradations: Sequence[str], batch_size: int
) -> list[tuple[str, list[int]]]:
    """For each degradation, the indices of the pictures that are still to be scored.

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
    scorer: Scorer,
    records: Sequence[Record],
    chosen: Sequence[int],
    degradation: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[list[ScoreRow]]:
    """The rows of the chosen records, a batch at a time and in order, in the main process; the
    others help and get nothing. The processes take batches in turn, so that each picture shares
    its batch with the same ones whatever their number. All of them call `check` after each turn."""
    size = scorer.config.score.batch_size
    batches = [chosen[i : i + size] for i in range(0, len(chosen), size)]
    own = [records[i] for batch in batches[world.rank :: world.size] for i in batch]
    mine = scorer.rows(own, degradation) if own else iter(())
    for _ in range(0, len(batches), world.size):
        found = world.gather(next(mine, []))
        check()
        yield from found


def score_table(
    path: Path,
    records: Sequence[Record],
    scorer: Scorer,
    degradations: Sequence[str],
    resume: bool = False,
    world: World = ALONE,
) -> list[ScoreRow]:
    """Appends the rows that a table does not hold yet. Returns all of them in the main process.

    Raises:
        ConfigError: the table has pictures that are not among the records.
    """
    if not world.main:
        plan = world.shared(list[tuple[str, list[int]]])
        for name, chosen in plan:
            for _ in score_share(world, scorer, records, chosen, name):
                pass
        return []
    size = scorer.config.score.batch_size
    with TableWriter(path, COLUMNS, ("key", "degradation"), resume) as table:
        plan = world.shared(lambda: _plan(table, records, degradations, size))
        with Progress(sum(len(chosen) for _, chosen in plan), "scoring") as progress:
            for name, chosen in plan:
                for rows in score_share(world, scorer, records, chosen, name):
                    new = [row for row in rows if (row.key, row.degradation) not in table.done]
                    table.append(astuple(row) for row in new)
                    progress.advance(len(rows))
    return read_table(path)


def _conditions(info: dict[str, Any], config: Config, degradation: str) -> dict[str, Any]:
    """All that decides a logit besides the picture and the code."""
    return {
        "weights": info["weights"],
        "detector": config.as_dict()[config.detector],
        "seed": config.score.seed,
        "degradation": degradation,
        "decoding": info["decoding"],
        "precision": info["precision"],
        "compiled": info["compiled"],
        "device": info["device"],
        # The last digits depend on it, and a run shall give what it gives without kept scores.
        "threads": info["threads"] if info["device"] == "cpu" else None,
        "versions": info["versions"],
    }


def _check_readable(rows: Sequence[ScoreRow]) -> int:
    """How many pictures have an error under some degradation; warns where there are any."""
    pictures = count_pictures(rows)
    unreadable = count_pictures(row for row in rows if row.error)
    if unreadable:
        log.warning("%d of %d pictures could not be read", unreadable, pictures)
        reasons: dict[str, dict[str, None]] = {}
        for row in rows:
            if row.error:
                reasons.setdefault(row.error, {})[row.key] = None
        for reason, keys in list(reasons.items())[:REASONS]:
            log.warning("%d: %s (%s)", len(keys), reason, next(iter(keys)))
        if len(reasons) > REASONS:
            log.warning("%d more reasons are in %s", len(reasons) - REASONS, SCORES)
    if unreadable > TOO_MANY_UNREADABLE * pictures:
        share = 100 * unreadable / pictures
        log.warning(
            "%.1f %% of the pictures could not be read: results are those of the rest, and may "
            "mislead; the rows of %s say what is wrong with each", share, SCORES,
        )  # fmt: skip
    return unreadable


def _check_same(infos: Sequence[dict[str, Any]], same: Sequence[str]) -> None:
    """Raises ConfigError when the processes of a run, by rank, were to do different things."""
    for rank, info in enumerate(infos):
        if names := differing_entries(infos[0], info, same):
            raise ConfigError(
                f"process {rank} has other {', '.join(names)} than process 0: "
                "give all of them the same command, weights and data"
            )


def _open(
    request: Request, infos: Sequence[dict[str, Any]], same: Sequence[str]
) -> AbstractContextManager[Any]:
    """Makes the output folder ready, takes it, and writes run.json into it."""
    _check_same(infos, same)
    owned = (SCORES, *RESULTS)
    taken = open_output(request.output, owned, request.resume, request.overwrite)
    begin(request.output, infos[0], request.resume, same, SCORES)
    return taken


def run(
    request: Request,
    records: Sequence[Record],
    loaded: Loaded,
    device: Device,
    config: Config,
    world: World = ALONE,
) -> tuple[str, int]:
    """Evaluates, and writes scores.csv, the reports, CO-SPY's JSON files and run.json.

    Returns:
        The summary table for standard output, and how many pictures could not be read; in other
        processes than the main one, nothing and 0.

    Raises:
        ConfigError: a picture is listed twice, or the folder holds another run.
    """
    check_keys(records)
    info = run_info(config, device, loaded) | {
        "threshold": request.threshold,
        "prevalence": request.prevalence,
        "data": {"pictures": len(records), "digest": listing_digest(records)},
        "benchmark": request.benchmark,
        "protocol": request.protocol,
        "degradations": list(request.degradations),
        "decoding": request.workers.decoding,
        "min_pictures": request.view.min_pictures,
        "processes": world.size,
        "tag": request.tag,
    }
    same = (*deciding(config), *SAME)
    memos = {
        name: open_memo(request.cache, _conditions(info, config, name))
        for name in request.degradations
    }
    scorer = Scorer(loaded.model, device, config, request.workers, memos)
    infos = world.gather(info)
    with ExitStack() as stack:
        # The main process alone opens the folder; the others learn whether it could.
        def opened() -> None:
            stack.enter_context(_open(request, infos, same))

        world.shared(opened)
        if not world.main:
            score_table(request.output, records, scorer, request.degradations, world=world)
            world.gather(scorer.tally)
            return "", 0
        stack.enter_context(log_to(request.output / LOG))
        weights = [loaded.path, *(member.path for member in loaded.members)]
        trained = trained_on.read(weights)
        summary, unreadable = _run_main(request, records, scorer, info, world, trained)
        log.info("results are in %s", request.output)
    with (request.output / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{request.heading}, threshold {request.threshold:g}\n{summary}\n")
    return summary, unreadable


def _run_main(
    request: Request,
    records: Sequence[Record],
    scorer: Scorer,
    info: dict[str, Any],
    world: World,
    trained: Collection[str],
) -> tuple[str, int]:
    """`run` in the main process, with its folder open; `trained`: digests of training pictures."""
    for note in request.view.notes:
        log.info("note: %s", note)
    if request.metadata:
        write_metadata(request.output, request.metadata)
    start = time.monotonic()
    rows = score_table(
        request.output / SCORES, records, scorer, request.degradations, request.resume, world
    )
    info["seconds"] = round(time.monotonic() - start, 1)
    tally = reduce(add, world.gather(scorer.tally))
    info["counts"] = {"scored_now": tally.scored, "reused": tally.reused}
    if tally.reused:
        log.info(
            "%d scores were known from earlier runs with the same weights and transform; "
            "--cache none scores all pictures afresh", tally.reused,
        )  # fmt: skip
    for name, memo in scorer.memos.items():
        memo.keep(row for row in rows if row.degradation == name)
    unreadable = _check_readable(rows)
    info["counts"] |= {"pictures": len(records), "unreadable": unreadable}
    if len(rows) != len(records):
        info["counts"]["rows"] = len(rows)
    return _write_results(request, records, rows, info, scorer.config, trained), unreadable


def _thumbnails(
    rows: Sequence[ScoreRow], records: Sequence[Record], workers: Workers
) -> dict[str, bytes]:
    """Small JPEGs of the pictures of some rows, by key; without those that have gone since."""
    wanted = {row.key for row in rows}
    shown = [record for record in records if record.key in wanted]
    found = {}
    for record, item in zip(shown, thumbnails(shown, THUMBNAIL, workers), strict=True):
        if item.value is None:
            log.warning("%s: no thumbnail: %s", record.key, item.error)
        else:
            found[record.key] = jpeg(item.value)
    return found


def _write_results(
    request: Request,
    records: Sequence[Record],
    rows: list[ScoreRow],
    info: dict[str, Any],
    config: Config,
    trained: Collection[str],
) -> str:
    """Everything that derives from the table; completes run.json. Returns the summary."""
    view, threshold = request.view, request.threshold
    rows = restated(rows, request.prevalence)
    analysis = report.analyse(rows, threshold, config.score.resamples, config.score.seed, view)
    analysis = replace(analysis, hints=hints(analysis.rows, analysis.pooled, trained))
    for hint in analysis.hints:
        log.warning("%s", hint)
    small = _thumbnails(report.worst_errors(analysis.rows, threshold), records, request.workers)
    report.write_report(request.output, rows, threshold, info, request.heading, analysis, small)
    result = report.result_json(rows, threshold, view, analysis)
    write_json(request.output / "result.json", result)
    for line in report.log_lines(result, request.pictures):
        log.info("%s", line, extra=FILE_ONLY)
    write_json(request.output / "output.json", report.output_json(rows, view))
    write_json(request.output / "metrics.json", report.metrics_json(analysis))
    write_json(request.output / RUN, info)
    return report.summary_text(rows, threshold, analysis)
