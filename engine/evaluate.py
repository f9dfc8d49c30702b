"""Phase eval: score labelled pictures once, then derive every number from the saved table."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Record
from detectors._base import Detector

from . import degrade, report
from .config import Config, ConfigError
from .listing import whole_batches
from .predict import Device, score
from .progress import Progress
from .run import begin, log_to, open_output, run_info, write_json
from .table import COLUMNS, ScoreRow, TableWriter, read_table
from .weights import Loaded

SCORES, RUN, LOG = "scores.csv", "run.json", "evaluation.log"
RESULTS = (
    RUN, "result.json", "output.json", LOG, "report.md", "report.html",
    "roc.png", "pr.png", "histogram.png", "generators.png",
)  # fmt: skip
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


def score_table(
    path: Path,
    records: Sequence[Record],
    model: Detector,
    device: Device,
    config: Config,
    degradation: str,
    workers: int,
    resume: bool,
) -> list[ScoreRow]:
    """Appends the rows that a table does not hold yet. Returns all of them.

    Raises:
        ConfigError: the table has pictures that are not among the records.
    """
    keys = ("key", "degradation")
    with TableWriter(path, COLUMNS, keys, resume) as table:
        wanted = [(record.key, degradation) for record in records]
        if others := table.done.difference(wanted):
            raise ConfigError(
                f"--resume: {path} has {len(others)} pictures that are not among these, such as "
                f"{min(others)[0]!r}: give the same --data, or use --overwrite or another --output"
            )
        if table.done:
            log.info("%d of %d pictures were scored before", len(table.done), len(records))
        chosen = whole_batches([row not in table.done for row in wanted], config.score.batch_size)
        with Progress(len(chosen), "scoring") as progress:
            for rows in score(
                model,
                [records[i] for i in chosen],
                device,
                config.score.batch_size,
                workers,
                degrade.parse(degradation),
                config.score.seed,
            ):
                new = [row for row in rows if (row.key, row.degradation) not in table.done]
                table.append(astuple(row) for row in new)
                progress.advance(len(rows))
    return read_table(path)


def run(
    request: Request, records: Sequence[Record], loaded: Loaded, device: Device, config: Config
) -> tuple[str, int]:
    """Evaluates, and writes scores.csv, the reports, CO-SPY's JSON files and run.json.

    Returns:
        The summary table for standard output, and how many pictures could not be read.

    Raises:
        ConfigError: no such degradation, or the folder holds another run.
    """
    degradation = degrade.parse(request.degradation)  # before anything is written
    request = replace(request, degradation=degradation.name if degradation else degrade.NONE)
    open_output(request.output, (SCORES, *RESULTS), request.resume, request.overwrite)
    handler = log_to(request.output / LOG)
    try:
        info = run_info(config, device, loaded)
        info |= {"threshold": request.threshold, "degradation": request.degradation}
        begin(request.output / RUN, info, request.resume)
        start = time.monotonic()
        rows = score_table(
            request.output / SCORES, records, loaded.model, device, config,
            request.degradation, request.workers, request.resume,
        )  # fmt: skip
        info["seconds"] = round(time.monotonic() - start, 1)
        summary = _write_results(request, rows, info, config)
        unreadable = info["counts"]["unreadable"]
        if unreadable:
            log.warning("%d of %d pictures could not be read", unreadable, len(rows))
        log.info("results are in %s", request.output)
    finally:
        logging.getLogger("engine").removeHandler(handler)
        handler.close()
    with (request.output / LOG).open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(f"{request.title}, threshold {request.threshold:g}\n{summary}\n")
    return summary, unreadable


def _write_results(
    request: Request, rows: list[ScoreRow], info: dict[str, Any], config: Config
) -> str:
    """Everything that derives from the table; completes run.json. Returns the summary."""
    unreadable = sum(bool(row.error) for row in rows)
    info["counts"] = {"pictures": len(rows), "unreadable": unreadable}
    analysis = report.analyse(rows, request.threshold, config.score.resamples, config.score.seed)
    report.write_report(request.output, rows, request.threshold, info, request.title, analysis)
    write_json(request.output / "result.json", report.result_json(rows, request.threshold))
    write_json(request.output / "output.json", report.output_json(rows))
    write_json(request.output / RUN, info)
    return report.summary_text(rows, request.threshold, analysis)
