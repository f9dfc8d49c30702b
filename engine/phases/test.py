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
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from datasets import Record
from datasets._paths import visible

from ..api import Drawn, Scorer
from ..credentials import reading
from ..credentials.manifests import TrustList
from ..reporting.listed_scores import PREDICTIONS, listed_scores, read_predictions
from ..runtime.files import replacing
from ..runtime.progress import Progress
from ..runtime.run_folder import RUN, begin, check_mode, open_output, write_json
from ..runtime.table_writer import TableWriter
from ..scoring.answer import (
    COLUMNS,
    SCORE,
    STABILITY,
    Answer,
    as_text,
    prediction,
    remarks,
    spoken,
)
from ..scoring.provenance import Provenance, run_info
from ..scoring.scorer import whole_batches
from ..scoring.verdict_rule import VerdictRule

EXPLAIN = "explain"
LEAVE = ("", "q", "quit", "exit")
PROMPT = "Please enter the image filepath for scanning: "
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """What a row of predictions holds. `rule`: of the verdicts; `credentials`: whether what files
    say of themselves stands in it; `score`: the name of the scores' column."""

    rule: VerdictRule
    credentials: bool = False
    score: str = SCORE

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in their order."""
        names = (*COLUMNS, *(STABILITY if self.rule.views else ()))
        names += reading.COLUMNS if self.credentials else ()
        return tuple(self.score if name == SCORE else name for name in names)

    def row(self, answer: Answer) -> tuple[object, ...]:
        """A picture's values."""
        values = prediction(answer, self.rule)
        return (*values, *reading.as_row(answer.inspected)) if self.credentials else values


@dataclass(frozen=True)
class TestRequest:
    """What phase test is asked to do. `records`: the pictures, none for a prompt; `inputs`,
    `csv_roots`, `split`: what they were listed from; `tag`: the run's name and that of the column
    of scores. `explain` needs an `output`; `credentials`: whether the scorer inspects files for
    what they say of their origin, whose signatures are trusted by `trust`."""

    records: Sequence[Record]
    scorer: Scorer
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
        for answer in scored:
            failed += bool(answer.row.error)
            _print(_line(request, answer))
    else:
        failed = _run_into(request, request.output)
    if failed:
        log.warning("%d of %d pictures could not be read", failed, len(request.records))
    return failed


def _run_into(request: TestRequest, output: Path) -> int:
    """`run` with files. Returns how many of the records could not be read."""
    if request.explain:
        request.scorer.check_explain()
    records = request.records
    listed = listed_scores(request.inputs, request.csv_roots, request.split, output, request.tag)
    owned = (PREDICTIONS, RUN, EXPLAIN, *listed.files)
    check_mode(output, streamed=False)
    with open_output(output, owned, request.resume, request.overwrite):
        provenance = provenance_of(request)
        info = provenance.info
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


def provenance_of(request: TestRequest) -> Provenance:
    """What decides the rows of a request, and the content of its run.json."""
    scorer, rule = request.scorer, request.scorer.rule
    info = run_info(scorer.config, scorer.backend.computing(), scorer.loaded) | rule.entries()
    info |= {"decoding": scorer.workers.decoding, "tag": request.tag}
    info |= {"stability": [view.name for view in rule.views] or None}
    trust = request.trust.sha256 if request.trust else None
    info |= {"credentials": {"trust_list": trust} if request.credentials else None}
    return Provenance(scorer.config, info, (*rule.entries(), "stability", "credentials"))


def _append_missing(request: TestRequest, output: Path) -> None:
    """Scores the records that the predictions lack, a row and a line for each."""
    records = request.records
    columns = Columns(request.scorer.rule, request.credentials)
    with TableWriter(output / PREDICTIONS, columns.names, ["path"], request.resume) as table:
        table.flush()
        missing = _missing(records, output)
        if not all(missing):
            log.info("%d of %d pictures were scored before", missing.count(False), len(records))
        at_a_time = request.scorer.options.pictures_at_a_time
        # Whole batches, so that each picture is summed up beside the same others as in a whole run.
        chosen = whole_batches(missing, at_a_time)
        scored = _answers(request, [records[i] for i in chosen])
        for i, answer in zip(chosen, scored, strict=True):
            if missing[i]:
                table.append([columns.row(answer)])
                _print(_line(request, answer))


def _missing(records: Sequence[Record], output: Path) -> list[bool]:
    """Whether the predictions lack each record; one named twice has two rows."""
    done = Counter(row["path"] for row in read_predictions(output))
    missing = []
    for record in records:
        missing.append(not done[record.key])
        done[record.key] -= not missing[-1]
    return missing


def _answers(request: TestRequest, records: Sequence[Record]) -> Iterator[Answer]:
    """Answers on records, with progress on standard error; explanations are drawn."""
    show = None
    if request.explain and request.output is not None:
        show = _overlays(request.output)
    # Lines on a terminal are the progress; a bar among them would tear both.
    quiet = sys.stdout.isatty()
    with nullcontext() if quiet else Progress(len(records), "scoring") as progress:
        for batch in request.scorer.answers(records, show):
            yield from batch
            if progress is not None:
                progress.advance(len(batch))


def overlay_path(output: Path, record: Record) -> Path:
    """File of a picture's explanation: its name, and a sum that tells namesakes apart."""
    digest = zlib.crc32(record.key.encode("utf-8", "surrogateescape"))
    stem = re.sub(r"[^\w.-]+", "_", Path(record.key).stem)[:80]
    return output / EXPLAIN / f"{stem}_{digest:08x}.png"


def _overlays(output: Path) -> Drawn:
    """A function that saves a picture's explanation as a file of its own."""
    (output / EXPLAIN).mkdir(exist_ok=True)

    def show(record: Record, drawing: Image.Image) -> None:
        with replacing(overlay_path(output, record)) as temporary:
            drawing.save(temporary, "PNG")

    return show


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _line(request: TestRequest, answer: Answer) -> str:
    """A picture's line, or its object, with what its file says."""
    told = answer.inspected
    if request.json:
        more = {"credentials": reading.as_json(told)} if request.credentials else {}
        return json.dumps(request.scorer.row(answer, **more).as_dict())
    return "\n".join([as_text(answer, request.scorer.rule), *reading.as_lines(told)])


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
    failed, scorer = 0, request.scorer
    while True:
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        line = sys.stdin.readline()
        name = typed_path(line)
        if name.lower() in LEAVE and not _is_file(name):
            sys.stderr.write("" if line else "\n")  # after Ctrl-D the cursor is behind the prompt
            return failed
        record = Record(name, Path(name))
        [[answer]] = scorer.answers([record])
        failed += bool(answer.row.error)
        if request.json:
            _print(_line(request, answer))
            continue
        # The line is the published one where nothing more was asked for.
        more, views = remarks(answer, scorer.rule), scorer.rule.views
        _print(spoken(answer, scorer.rule, scorer.loaded) + (more if views else ""))
        for line in reading.as_lines(answer.inspected):
            _print(line)
        if more and not views:
            log.warning("%s%s", visible(name), more)
