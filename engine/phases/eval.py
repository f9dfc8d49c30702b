"""Phase eval: score labelled pictures once, then derive every number from the saved table."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from datasets import Record

from ..config import Config, ConfigError
from ..evaluation.analysis import TOO_MANY_UNREADABLE, View, analyse, worst_errors
from ..evaluation.hints import hints
from ..reporting import report, results
from ..reporting.thumbnails import jpeg, thumbnails
from ..runtime.device import Device
from ..runtime.distributed import ALONE, World
from ..runtime.program import FILE_ONLY
from ..runtime.run_folder import RUN, begin, log_to, open_output, peak_memory, write_json
from ..runtime.workers import IN_PROCESS, Workers
from ..scoring import trained_on
from ..scoring.cache import open_memo
from ..scoring.degradations import NONE
from ..scoring.metadata import TABLE, Values
from ..scoring.metadata import write as write_metadata
from ..scoring.probability import EVEN, restated
from ..scoring.provenance import Provenance, run_info
from ..scoring.scorer import TableScorer, check_keys, listing_digest, score_table
from ..scoring.table import ScoreRow, count_pictures
from ..scoring.torch_backend import TorchBackend, computing
from ..weights.loaded import Loaded

SCORES, LOG = "scores.csv", "evaluation.log"
SERIES = ("series.csv", "series.md")  # of several evaluations below one folder
RESULTS = (RUN, "result.json", "output.json", "metrics.json", TABLE, LOG, *SERIES, *report.FILES)
# What a resumed run must have in common with the one it goes on with, beside what decides scores.
SAME = ("data", "benchmark", "protocol", "degradations", "prevalence")
THUMBNAIL = 192
REASONS = 3  # why pictures could not be read that the log names
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalRequest:
    """What phase eval is asked to do.

    `degradations`: canonical names, the first one that of the main tables, `view.base`.
    `benchmark`, `protocol`: their names, where the pictures are those of a benchmark. `pictures`:
    what evaluation.log calls them. `metadata`: what is known of pictures, by their keys. `cache`:
    as open_memo has it. `tag`: the run's name. `prevalence`: the share of generated pictures that
    the results' probabilities are for; the table and the cache have those for one half.
    """

    records: Sequence[Record]
    loaded: Loaded
    device: Device
    config: Config
    output: Path
    title: str
    threshold: float
    prevalence: float = EVEN
    degradations: tuple[str, ...] = (NONE,)
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


def _check_same(provenance: Provenance, infos: Sequence[dict[str, Any]]) -> None:
    """Raises ConfigError when the processes of a run, by rank, were to do different things."""
    for rank, info in enumerate(infos):
        if names := provenance.differences(info):
            raise ConfigError(
                f"process {rank} has other {', '.join(names)} than process 0: "
                "give all of them the same command, weights and data"
            )


def run(request: EvalRequest, world: World = ALONE) -> tuple[str, int]:
    """Evaluates, and writes scores.csv, the reports, CO-SPY's JSON files and run.json.

    Returns:
        The summary table for standard output, and how many pictures could not be read; in other
        processes than the main one, nothing and 0.

    Raises:
        ConfigError: a picture is listed twice, or the folder holds another run.
    """
    check_keys(request.records)
    info = _info(request, world)
    provenance = Provenance(request.config, info, SAME)
    memos = {
        name: open_memo(request.cache, provenance.fingerprint(name))
        for name in request.degradations
    }
    backend = TorchBackend(request.loaded.model, request.device)
    scorer = TableScorer(backend, request.config, request.workers, memos)
    infos = world.gather(info)
    with ExitStack() as stack:

        def open_folder() -> None:
            _check_same(provenance, infos)
            owned = (SCORES, *RESULTS)
            folder = open_output(request.output, owned, request.resume, request.overwrite)
            begin(request.output, info, request.resume, provenance.deciding, SCORES)
            stack.enter_context(folder)

        # The main process alone opens the folder; the others learn whether it could.
        world.run_on_main(open_folder)
        if not world.main:
            score_table(request.output, request.records, scorer, request.degradations, world=world)
            world.gather(scorer.tally)
            return "", 0
        stack.enter_context(log_to(request.output / LOG))
        summary, unreadable = _run_main(request, scorer, info, world)
        log.info("results are in %s", request.output)
    with (request.output / LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{request.heading}, threshold {request.threshold:g}\n{summary}\n")
    return summary, unreadable


def _info(request: EvalRequest, world: World) -> dict[str, Any]:
    """The content of run.json before the first score."""
    return run_info(request.config, computing(request.device), request.loaded) | {
        "threshold": request.threshold,
        "prevalence": request.prevalence,
        "data": {"pictures": len(request.records), "digest": listing_digest(request.records)},
        "benchmark": request.benchmark,
        "protocol": request.protocol,
        "degradations": list(request.degradations),
        "decoding": request.workers.decoding,
        "min_pictures": request.view.min_pictures,
        "processes": world.size,
        "tag": request.tag,
    }


def _run_main(
    request: EvalRequest, scorer: TableScorer, info: dict[str, Any], world: World
) -> tuple[str, int]:
    """`run` in the main process, with its folder open."""
    for note in request.view.notes:
        log.info("note: %s", note)
    if request.metadata:
        write_metadata(request.output, request.metadata)
    start = time.monotonic()
    table = request.output / SCORES
    rows = score_table(table, request.records, scorer, request.degradations, request.resume, world)
    info["seconds"] = round(time.monotonic() - start, 1)
    info["peak_memory_gib"] = peak_memory()
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
    info["counts"] |= {"pictures": len(request.records), "unreadable": unreadable}
    if len(rows) != len(request.records):
        info["counts"]["rows"] = len(rows)
    return _write_results(request, rows, info), unreadable


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


def _write_results(request: EvalRequest, rows: list[ScoreRow], info: dict[str, Any]) -> str:
    """Everything that derives from the table; completes run.json. Returns the summary."""
    view, threshold, score = request.view, request.threshold, request.config.score
    weights = [request.loaded, *request.loaded.members]
    trained = trained_on.read(member.path for member in weights)
    rows = restated(rows, request.prevalence)
    analysis = analyse(rows, threshold, score.resamples, score.seed, view)
    analysis = replace(analysis, hints=hints(analysis.rows, analysis.pooled, trained))
    for hint in analysis.hints:
        log.warning("%s", hint)
    small = _thumbnails(worst_errors(analysis.rows, threshold), request.records, request.workers)
    report.write_report(request.output, rows, threshold, info, request.heading, analysis, small)
    result = results.result_json(rows, threshold, view, analysis)
    write_json(request.output / "result.json", result)
    for line in results.log_lines(result, request.pictures):
        log.info("%s", line, extra=FILE_ONLY)
    write_json(request.output / "output.json", results.output_json(rows, view))
    write_json(request.output / "metrics.json", results.metrics_json(analysis))
    write_json(request.output / RUN, info)
    return report.summary_text(rows, threshold, analysis)
