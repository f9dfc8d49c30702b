"""Phase test: score pictures that nobody has labelled, and say what the score means."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from torch import Tensor

import datasets
from datasets import Record, csv_file
from datasets._csv import plain
from datasets._images import decode, read_bytes
from datasets._paths import ALL, split_named, visible
from datasets._splits import TEST
from datasets.csv_file import read_rows
from detectors._base import Detector

from ..config import Config, ConfigError
from ..runtime.device import Device
from ..runtime.files import replacing
from ..runtime.progress import Progress
from ..runtime.run_folder import RUN, begin, open_output, write_json
from ..runtime.table_writer import TableWriter
from ..runtime.text import distinct
from ..runtime.workers import IN_PROCESS, Workers
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
from ..scoring.loop import Show, answers, pictures_at_a_time
from ..scoring.provenance import deciding, run_info
from ..scoring.scorer import whole_batches
from ..scoring.verdict_rule import Judge
from ..weights.loading import Loaded

PREDICTIONS, EXPLAIN = "predictions.csv", "explain"
LEAVE = ("", "q", "quit", "exit")
PROMPT = "Please enter the image filepath for scanning: "
STDIN = "-"
LONGEST_NAME = 50  # letters of a folder's name, at most four bytes each, that its result's repeats
log = logging.getLogger(__name__)


def _listed(stdin: TextIO) -> list[str]:
    """The paths on standard input: as they are between NULs (`find -print0`), which no path holds;
    otherwise one a line, each as `typed_path` has it."""
    text = os.fsdecode(stdin.buffer.read()) if hasattr(stdin, "buffer") else stdin.read()
    names = text.split("\0") if "\0" in text else map(typed_path, text.split("\n"))
    return [name for name in names if name]


def collect(
    inputs: Sequence[str],
    csv_roots: Sequence[Path] = (),
    split: str | None = None,
    stdin: TextIO | None = None,
) -> list[Record]:
    """Records of pictures, folders (recursive), CSV files, archives and `-` (paths on standard
    input), of a split alone where one is named.

    `key` is the path as results show it: in an archive, the archive's and the member's. A named
    file that is missing becomes a record all the same: its row will carry the error.

    Args:
        csv_roots: as `datasets.csv_roots` has them.

    Raises:
        LayoutError: a folder, CSV or archive without pictures, or nothing named at all.
    """
    found: list[Record] = []
    paths = [Path(name) for name in inputs]
    wanted = None if split == ALL else split
    for name, path, csv_root in zip(
        inputs, paths, datasets.csv_roots(paths, csv_roots), strict=True
    ):
        if name == STDIN:
            found += [Record(line, Path(line)) for line in _listed(stdin or sys.stdin)]
        elif kind := datasets.kind_of(path):
            # The pictures that a CSV names may be in an archive themselves.
            archive = csv_root if csv_root and kind == "csv_file" else path
            for record in datasets.open_path(path, wanted, labelled=False, csv_root=csv_root):
                shown = archive / record.key if record.member else record.path
                found.append(replace(record, key=str(shown)))
        else:
            found.append(Record(name, path))
    if not found:
        raise datasets.LayoutError("--input: expected pictures; found none")
    return found


def _read_predictions(output: Path) -> list[dict[str, str]]:
    path = output / PREDICTIONS
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return [{k: plain(v) for k, v in row.items()} for row in csv.DictReader(stream, restval="")]


def _spai_rows(
    file: Path, root: Path | None, split: str | None, scores: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a CSV that came in, of the split that was scored, and the score of
    each as its last value, empty for an unreadable picture."""
    columns, rows = read_rows(file)
    if split not in (None, ALL):
        rows = [row for row in rows if split_named(row["split"]) == split_named(str(split))]
    keys = [str(csv_file.resolve(row["image"], root or file.parent, file)) for row in rows]
    values = [[row[column] for column in columns] for row in rows]
    return columns, [[*own, scores[key]] for own, key in zip(values, keys, strict=True)]


def _folder_rows(
    folder: Path, split: str | None, records: Sequence[Record], scores: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of SPAI's form for a folder: paths from the folder, no class, for it is
    not known, and the split that was asked for, else test as the published program has it."""
    named = TEST if split in (None, ALL) else str(split)
    below = {r.path: r.key for r in records if not r.member and folder in r.path.parents}
    rows = [
        [path.relative_to(folder).as_posix(), "", named, scores[key]] for path, key in below.items()
    ]
    return ["image", "class", "split"], rows


def _write_spai(
    request: Request, records: Sequence[Record], output: Path, files: Mapping[str, Path]
) -> None:
    """Writes SPAI's form of results, a CSV for each CSV and each folder among the inputs: `files`,
    by their names in `output`."""
    scores = {row["path"]: row["score"] for row in _read_predictions(output)}
    paths = [Path(name) for name in request.inputs]
    roots = dict(zip(paths, datasets.csv_roots(paths, request.csv_roots), strict=True))
    for name, path in files.items():
        if path.is_dir():
            columns, rows = _folder_rows(path, request.split, records, scores)
        else:
            columns, rows = _spai_rows(path, roots[path], request.split, scores)
        with (
            replacing(output / name) as temporary,
            TableWriter(temporary, [*columns, request.tag], [], resume=False) as table,
        ):
            table.append(rows)


def _result_files(inputs: Sequence[str], output: Path, tag: str) -> dict[str, Path]:
    """The CSV files and folders among the inputs, by the names of their results: of a CSV its own,
    of a folder its name with .csv. Raises ConfigError when these could not stand in `output`."""
    paths = [Path(name) for name in inputs]
    kinds = {path: datasets.kind_of(path) for path in paths}
    files = [path for path in paths if kinds[path] == "csv_file"]
    names = [file.name for file in files]
    for name in names:
        if name == PREDICTIONS or names.count(name) > 1:
            raise ConfigError(
                f"--output: two result files would be called {name}: rename the input"
            )
    for file in files:
        if file.resolve().parent == output.resolve():
            raise ConfigError(f"--output {output}: expected another folder than that of {file}")
        if tag in read_rows(file)[0]:
            raise ConfigError(f"{file} has a column {tag!r} already: choose another by --tag")
    folders = [path for path, kind in kinds.items() if kind == "folder"]
    if folders and tag in ("image", "class", "split"):
        raise ConfigError(f"--tag: expected no column of SPAI's form; found {tag}")
    stems = [path.resolve().name[:LONGEST_NAME].lstrip(".") or "root" for path in folders]
    taken = [Path(name).stem for name in (PREDICTIONS, *names)]
    own = [f"{stem}.csv" for stem in distinct(stems, taken)]
    return dict(zip([*names, *own], [*files, *folders], strict=True))


@dataclass(frozen=True)
class Request:
    """What phase test is asked to do, besides the detector. `explain` needs an `output`."""

    inputs: Sequence[str]
    csv_roots: Sequence[Path] = ()
    split: str | None = None
    output: Path | None = None
    json: bool = False
    tag: str = ""
    explain: bool = False
    workers: Workers = IN_PROCESS
    resume: bool = False
    overwrite: bool = False


def overlay_path(output: Path, record: Record) -> Path:
    """Where the explanation of a picture goes: its name, and a sum that tells namesakes apart."""
    digest = zlib.crc32(record.key.encode("utf-8", "surrogateescape"))
    stem = re.sub(r"[^\w.-]+", "_", Path(record.key).stem)[:80]
    return output / EXPLAIN / f"{stem}_{digest:08x}.png"


def _overlays(model: Detector, output: Path, workers: Workers) -> Show:
    """Draws each picture's explanation into a file of its own."""
    (output / EXPLAIN).mkdir(exist_ok=True)

    def show(record: Record, relevance: Tensor) -> None:
        image = decode(read_bytes(record), workers.limits, workers.decoding)
        with replacing(overlay_path(output, record)) as temporary:
            model.overlay(image, relevance).save(temporary, "PNG")

    return show


def _answers(
    request: Request,
    records: Sequence[Record],
    loaded: Loaded,
    judge: Judge,
    device: Device,
    config: Config,
) -> Iterator[Answer]:
    show = None
    if request.explain and request.output is not None:
        show = _overlays(loaded.model, request.output, request.workers)
    # Lines on a terminal are the progress; a bar among them would tear both.
    quiet = sys.stdout.isatty()
    with nullcontext() if quiet else Progress(len(records), "scoring") as progress:
        for batch in answers(
            loaded.model, records, device, config.score.batch_size, request.workers,
            seed=config.score.seed, show=show, views=judge.views,
        ):  # fmt: skip
            yield from (one.restated(judge.prevalence) for one in batch)
            if progress is not None:
                progress.advance(len(batch))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _line(told: Answer, judge: Judge, loaded: Loaded, in_json: bool) -> str:
    return json.dumps(as_json(told, judge, loaded)) if in_json else as_text(told, judge)


def _missing(records: Sequence[Record], output: Path) -> list[bool]:
    """Whether the predictions lack each record; one named twice has two rows."""
    done = Counter(row["path"] for row in _read_predictions(output))
    left = []
    for record in records:
        left.append(not done[record.key])
        done[record.key] -= not left[-1]
    return left


def _run_into(
    output: Path,
    request: Request,
    records: Sequence[Record],
    loaded: Loaded,
    judge: Judge,
    device: Device,
    config: Config,
) -> int:
    """`run` with files. Returns how many of the records could not be read."""
    if request.explain:
        loaded.model.check_explain()
    tables = _result_files(request.inputs, output, request.tag)
    owned = (PREDICTIONS, RUN, EXPLAIN, *tables)
    with open_output(output, owned, request.resume, request.overwrite):
        info = run_info(config, device, loaded)
        info |= judge.entries()
        info |= {"decoding": request.workers.decoding, "tag": request.tag}
        info |= {"stability": [view.name for view in judge.views] or None}
        same = (*deciding(config), *judge.entries(), "stability")
        begin(output, info, request.resume, same, PREDICTIONS)
        columns = (*COLUMNS, *(STABILITY if judge.views else ()))
        with TableWriter(output / PREDICTIONS, columns, ["path"], request.resume) as table:
            table.flush()
            missing = _missing(records, output)
            if not all(missing):
                log.info("%d of %d pictures were scored before", missing.count(False), len(records))
            chosen = whole_batches(
                missing, pictures_at_a_time(config.score.batch_size, judge.views)
            )
            left = [records[i] for i in chosen]
            told = _answers(request, left, loaded, judge, device, config)
            for i, one in zip(chosen, told, strict=True):
                if missing[i]:
                    table.append([prediction(one, judge)])
                    _print(_line(one, judge, loaded, request.json))
        _write_spai(request, records, output, tables)
        asked = {record.key for record in records}
        found = [row for row in _read_predictions(output) if row["path"] in asked]
        failed = sum(bool(row["error"]) for row in found)
        info["counts"] = {"pictures": len(found), "unreadable": failed}
        write_json(output / RUN, info)
    log.info("results are in %s", output)
    return failed


def run(
    request: Request,
    records: Sequence[Record],
    loaded: Loaded,
    judge: Judge,
    device: Device,
    config: Config,
) -> int:
    """Scores what `collect` listed, prints a line for each, writes the files. Returns how many
    could not be read."""
    if request.output is None:
        failed = 0
        for one in _answers(request, records, loaded, judge, device, config):
            failed += bool(one.row.error)
            _print(_line(one, judge, loaded, request.json))
    else:
        failed = _run_into(request.output, request, records, loaded, judge, device, config)
    if failed:
        log.warning("%d of %d pictures could not be read", failed, len(records))
    return failed


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


def ask(
    loaded: Loaded,
    judge: Judge,
    device: Device,
    config: Config,
    in_json: bool,
    workers: Workers = IN_PROCESS,
) -> int:
    """Asks for one path after the other until a word of LEAVE or the end of the input; `in_json`
    answers in JSON. Returns how many failed."""
    failed = 0
    while True:
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        line = sys.stdin.readline()
        name = typed_path(line)
        if name.lower() in LEAVE and not _is_file(name):
            sys.stderr.write("" if line else "\n")  # after Ctrl-D the cursor is behind the prompt
            return failed
        [[found]] = answers(
            loaded.model, [Record(name, Path(name))], device, 1, workers,
            seed=config.score.seed, views=judge.views,
        )  # fmt: skip
        found = found.restated(judge.prevalence)
        failed += bool(found.row.error)
        if in_json:
            _print(json.dumps(as_json(found, judge, loaded)))
            continue
        # The line is the published one where nothing more was asked for.
        more = remarks(found, judge)
        _print(spoken(found, judge, loaded) + (more if judge.views else ""))
        if more and not judge.views:
            log.warning("%s%s", visible(name), more)
