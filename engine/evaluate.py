"""Phase eval: score labelled pictures once, then derive every number from the saved table."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from datasets import Record

from . import degrade, report
from .config import Config
from .predict import Device, score
from .progress import Progress
from .run import begin, log_to, open_output, run_info, write_json
from .table import COLUMNS, TableWriter, read_table
from .weights import Loaded

SCORES, RUN, LOG = "scores.csv", "run.json", "evaluation.log"
RESULTS = (
    RUN, "result.json", "output.json", LOG, "report.md", "report.html",
    "roc.png", "pr.png", "histogram.png", "generators.png",
)  # fmt: skip
MANY_UNREADABLE = 0.01
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What phase eval is asked to do, besides the detector and the pictures."""

    output: Path
    title: str
    threshold: float
    degradation: str = degrade.NONE
    workers: int = 0
    resume: bool = False
    overwrite: bool = False


def _score_table(
    request: Request, records: Sequence[Record], loaded: Loaded, device: Device, config: Config
) -> None:
    """Appends the rows that scores.csv does not hold yet."""
    degradation = degrade.parse(request.degradation)
    name = degradation.name if degradation else degrade.NONE
    keys = ("key", "degradation")
    with TableWriter(request.output / SCORES, COLUMNS, keys, request.resume) as table:
        left = [record for record in records if (record.key, name) not in table.done]
        if len(left) < len(records):
            log.info("%d of %d pictures were scored before", len(records) - len(left), len(records))
        with Progress(len(left), "scoring") as progress:
            for rows in score(
                loaded.model,
                left,
                device,
                config.score.batch_size,
                request.workers,
                degradation,
                config.score.seed,
            ):
                table.append(astuple(row) for row in rows)
                progress.advance(len(rows))


def run(
    request: Request, records: Sequence[Record], loaded: Loaded, device: Device, config: Config
) -> tuple[str, int]:
    """Evaluates, and writes scores.csv, the reports, CO-SPY's JSON files and run.json.

    Returns:
        The summary table for standard output, and how many pictures could not be read.
    """
    open_output(request.output, (SCORES, *RESULTS), request.resume, request.overwrite)
    handler = log_to(request.output / LOG)
    info = run_info(config, device, loaded)
    info |= {"threshold": request.threshold, "degradation": request.degradation}
    begin(request.output / RUN, info, request.resume)
    start = time.monotonic()
    _score_table(request, records, loaded, device, config)
    seconds = time.monotonic() - start
    rows = read_table(request.output / SCORES)
    unreadable = sum(bool(row.error) for row in rows)
    if unreadable > MANY_UNREADABLE * len(rows):
        log.warning("%d of %d pictures could not be read", unreadable, len(rows))
    info["counts"] = {"pictures": len(rows), "unreadable": unreadable}
    info["seconds"] = round(seconds, 1)
    analysis = report.analyse(rows, request.threshold, config.score.resamples, config.score.seed)
    report.write_report(request.output, rows, request.threshold, info, request.title, analysis)
    write_json(request.output / "result.json", report.result_json(rows, request.threshold))
    write_json(request.output / "output.json", report.output_json(rows))
    write_json(request.output / RUN, info)
    summary = report.summary_text(rows, request.threshold, analysis)
    logging.getLogger("engine").removeHandler(handler)
    handler.close()
    with (request.output / LOG).open("a", encoding="utf-8") as stream:
        stream.write(f"{request.title}, threshold {request.threshold:g}\n{summary}\n")
    return summary, unreadable
