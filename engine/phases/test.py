"""Phase test: verdicts on pictures, printed one by one, and saved where a folder is named.

`run` scores what was listed; `ask` answers at a prompt. Called by cli/app.py with a `TestRequest`;
nothing here knows a command line, or imports torch, which the backend does where it computes.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Record
from datasets._images import UnreadablePicture, decode, read_bytes
from datasets._paths import visible

from ..config import Config
from ..credentials import reading
from ..credentials.manifests import TrustList
from ..credentials.reading import Credentials
from ..reporting.listed_scores import PREDICTIONS, listed_scores, read_predictions
from ..runtime.files import replacing
from ..runtime.progress import Progress
from ..runtime.run_folder import RUN, begin, open_output, write_json
from ..runtime.table_writer import TableWriter
from ..runtime.workers import Workers
from ..scoring.answer import (
    COLUMNS,
    STABILITY,
    Answer,
    as_json,
    as_text,
    prediction,
    remarks,
    spoken,
)
from ..scoring.backend import Backend
from ..scoring.loop import ScoringOptions, Show, answers
from ..scoring.provenance import Provenance, run_info
from ..scoring.scorer import whole_batches
from ..scoring.verdict_rule import VerdictRule
from ..weights.loaded import Loaded

EXPLAIN = "explain"
LEAVE = ("", "q", "quit", "exit")
PROMPT = "Please enter the image filepath for scanning: "
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestRequest:
    """What phase test is asked to do. `backend` computes what was `loaded`; `records`: the
    pictures, none for a prompt; `inputs`, `csv_roots`, `split`: what they were listed from; `tag`:
    the run's name and that of the column of scores. `explain` needs an `output`; `credentials`:
    whether files are asked what they say of their origin, whose signatures are trusted by
    `trust`."""

    records: Sequence[Record]
    loaded: Loaded
    rule: VerdictRule
    backend: Backend
    config: Config
    workers: Workers
    inputs: Sequence[str] = ()
    csv_roots: Sequence[Path] = ()
    split: str | None = None
    output: Path | None = None
    json: bool = False
    tag: str = ""
    explain: bool = False
    credentials: bool = False
    trust: TrustList | None = None
    resume: bool = False
    overwrite: bool = False

    __test__ = False  # no test class, though its name begins like one


def run(request: TestRequest) -> int:
    """Scores the pictures, prints a line for each, writes the files.

    Returns:
        How many pictures could not be read.

    Raises:
        ConfigError: the output folder holds another run.
    """
    if request.output is None:
        failed = 0
        scored = _answers(request, request.records)
        for record, answer in zip(request.records, scored, strict=True):
            failed += bool(answer.row.error)
            _print(_line(request, answer, credentials_of(request, record)))
    else:
        failed = _run_into(request, request.output)
    if failed:
        log.warning("%d of %d pictures could not be read", failed, len(request.records))
    return failed


def _run_into(request: TestRequest, output: Path) -> int:
    """`run` with files. Returns how many of the records could not be read."""
    if request.explain:
        request.loaded.model.check_explain()
    rule, records = request.rule, request.records
    listed = listed_scores(request.inputs, request.csv_roots, request.split, output, request.tag)
    owned = (PREDICTIONS, RUN, EXPLAIN, *listed.files)
    with open_output(output, owned, request.resume, request.overwrite):
        info = (
            run_info(request.config, request.backend.computing(), request.loaded) | rule.entries()
        )
        info |= {"decoding": request.workers.decoding, "tag": request.tag}
        info |= {"stability": [view.name for view in rule.views] or None}
        trust = request.trust.sha256 if request.trust else None
        info |= {"credentials": {"trust_list": trust} if request.credentials else None}
        deciding = (*rule.entries(), "stability", "credentials")
        provenance = Provenance(request.config, info, deciding)
        begin(output, info, request.resume, provenance.deciding, PREDICTIONS)
        _append_missing(request, output)
        listed.write(output, records)
        asked = {record.key for record in records}
        rows = [row for row in read_predictions(output) if row["path"] in asked]
        failed = sum(bool(row["error"]) for row in rows)
        info["counts"] = {"pictures": len(rows), "unreadable": failed}
        write_json(output / RUN, info)
    log.info("results are in %s", output)
    return failed


def _append_missing(request: TestRequest, output: Path) -> None:
    """Scores the records that the predictions lack, a row and a line for each."""
    rule, records = request.rule, request.records
    columns = (*COLUMNS, *(STABILITY if rule.views else ()))
    columns += reading.COLUMNS if request.credentials else ()
    with TableWriter(output / PREDICTIONS, columns, ["path"], request.resume) as table:
        table.flush()
        missing = _missing(records, output)
        if not all(missing):
            log.info("%d of %d pictures were scored before", missing.count(False), len(records))
        at_a_time = _scoring(request).pictures_at_a_time
        # Whole batches, so that each picture is summed up beside the same others as in a whole run.
        chosen = whole_batches(missing, at_a_time)
        scored = _answers(request, [records[i] for i in chosen])
        for i, answer in zip(chosen, scored, strict=True):
            if missing[i]:
                told = credentials_of(request, records[i])
                row = prediction(answer, rule)
                table.append([(*row, *reading.as_row(told)) if request.credentials else row])
                _print(_line(request, answer, told))


def _missing(records: Sequence[Record], output: Path) -> list[bool]:
    """Whether the predictions lack each record; one named twice has two rows."""
    done = Counter(row["path"] for row in read_predictions(output))
    missing = []
    for record in records:
        missing.append(not done[record.key])
        done[record.key] -= not missing[-1]
    return missing


def _scoring(request: TestRequest) -> ScoringOptions:
    """How the request's pictures are scored, without their explanations."""
    score = request.config.score
    return ScoringOptions(score.batch_size, request.workers, score.seed, views=request.rule.views)


def judged(
    request: TestRequest, records: Sequence[Record], show: Show | None = None
) -> Iterator[list[Answer]]:
    """Answers on records, in order, under the rule's prevalence, a batch at a time; nothing is
    printed or written.

    Args:
        request: how they are scored; its own records are not looked at.
        records: of the pictures.
        show: as ScoringOptions has it.
    """
    options = replace(_scoring(request), show=show)
    for batch in answers(request.backend, records, options):
        yield [answer.restated(request.rule.prevalence) for answer in batch]


def _answers(request: TestRequest, records: Sequence[Record]) -> Iterator[Answer]:
    """Answers on records, with progress on standard error; explanations are drawn."""
    show = None
    if request.explain and request.output is not None:
        show = _overlays(request, request.output)
    # Lines on a terminal are the progress; a bar among them would tear both.
    quiet = sys.stdout.isatty()
    with nullcontext() if quiet else Progress(len(records), "scoring") as progress:
        for batch in judged(request, records, show):
            yield from batch
            if progress is not None:
                progress.advance(len(batch))


def overlay_path(output: Path, record: Record) -> Path:
    """File of a picture's explanation: its name, and a sum that tells namesakes apart."""
    digest = zlib.crc32(record.key.encode("utf-8", "surrogateescape"))
    stem = re.sub(r"[^\w.-]+", "_", Path(record.key).stem)[:80]
    return output / EXPLAIN / f"{stem}_{digest:08x}.png"


def _overlays(request: TestRequest, output: Path) -> Show:
    """A function that draws a picture's explanation into a file of its own."""
    model, workers = request.loaded.model, request.workers
    (output / EXPLAIN).mkdir(exist_ok=True)

    def show(record: Record, relevance: Any) -> None:
        image = decode(read_bytes(record), workers.limits, workers.decoding)
        with replacing(overlay_path(output, record)) as temporary:
            model.overlay(image, relevance).save(temporary, "PNG")

    return show


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def credentials_of(request: TestRequest, record: Record) -> Credentials | None:
    """What a picture's file says of its origin; None where nobody asked, or it cannot be read."""
    if not request.credentials:
        return None
    try:
        return reading.credentials(read_bytes(record), request.trust)
    except UnreadablePicture:
        return None


def _line(request: TestRequest, answer: Answer, told: Credentials | None) -> str:
    """A picture's line, or its object, with what its file says."""
    if request.json:
        more = {"credentials": reading.as_json(told)} if request.credentials else {}
        return json.dumps(as_json(answer, request.rule, request.loaded) | more)
    return "\n".join([as_text(answer, request.rule), *reading.as_lines(told)])


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:
        return False


def typed_path(line: str) -> str:
    """The path that a typed line means: as it stands where there is such a file, else without the
    spaces and the pair of quotes that a terminal puts around a dropped file."""
    name = line.rstrip("\r\n")
    bare = name.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1]
    return name if name != bare and _is_file(name) else bare


def ask(request: TestRequest) -> int:
    """Asks for one path after the other until a word of `LEAVE` or the end of the input.

    Returns:
        How many pictures could not be read.
    """
    failed, rule = 0, request.rule
    while True:
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        line = sys.stdin.readline()
        name = typed_path(line)
        if name.lower() in LEAVE and not _is_file(name):
            sys.stderr.write("" if line else "\n")  # after Ctrl-D the cursor is behind the prompt
            return failed
        record = Record(name, Path(name))
        [[answer]] = judged(request, [record])
        failed += bool(answer.row.error)
        told = credentials_of(request, record)
        if request.json:
            _print(_line(request, answer, told))
            continue
        # The line is the published one where nothing more was asked for.
        more = remarks(answer, rule)
        _print(spoken(answer, rule, request.loaded) + (more if rule.views else ""))
        for line in reading.as_lines(told):
            _print(line)
        if more and not rule.views:
            log.warning("%s%s", visible(name), more)
