"""Phase test --stream: pictures by the million, listed, scored and written part by part.

`run` is called by cli/app.py; scripts/score_ray.py shares all but the scoring. No more of the
pictures is in memory than one part's. It must give each picture the row that phase test gives it
without --stream, and leave the same files to the byte, however often it was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from datasets import LayoutError, Record
from datasets._images import UnreadablePicture, read_bytes

from ..api import Scorer
from ..config import ConfigError
from ..fetching.remote import UNREACHED
from ..fetching.sources import Source
from ..plain_data import read_json
from ..runtime.part_files import NOTES, PARTS, Note, PartFiles, digest
from ..runtime.progress import Progress
from ..runtime.run_folder import RUN, begin, check_mode, open_output, write_json
from ..scoring.answer import COLUMNS, RECODINGS, SCORE
from ..scoring.loop import ScoringOptions
from ..scoring.provenance import Provenance
from .test import Columns, TestRequest, provenance_of

KINDS = dict.fromkeys(("logit", *RECODINGS), "number") | {"held": "whole", "of": "whole"}
# Pictures in a row, or of a part and their share of it, that could not be reached: it is not they.
LEAST_UNREACHED, MOST_UNREACHED = 16, 0.9
# Others that are tried then, so many at a time, of which one that is reached is enough: a list with
# four dead addresses of five would be stopped once in a thousand times (0.8 ^ 32).
PROBES, AT_A_TIME = 32, 8
ERROR = COLUMNS.index("error")
Row = tuple[object, ...]  # as Columns has it
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamRequest:
    """What phase test --stream is asked to do. `test`: how pictures are scored, and the output
    folder; it has no records. `sources`: where they are listed from; `form`: as PartFiles has it;
    `size`: pictures of a part at most; `share`: which of how many machines' parts are scored, from
    0; `score`: the name of the scores' column."""

    test: TestRequest
    sources: Iterable[Source]
    form: str
    size: int
    share: tuple[int, int] = (0, 1)
    score: str = SCORE


@dataclass(frozen=True)
class Part:
    """Pictures that are scored and written as a whole: a piece of a source, by their numbers, the
    note on it, which counts no unreadable ones yet, and the state of the source before it was
    listed."""

    source: int
    piece: int
    note: Note
    records: list[Record] = field(repr=False)
    state: str = ""

    def __str__(self) -> str:
        return f"part {self.source:05}-{self.piece:05}"


def run(request: StreamRequest) -> int:
    """Scores what the sources list, and writes the parts that are not there.

    Returns:
        How many pictures could not be read.

    Raises:
        ConfigError: the output folder holds another run, or one of other pictures.
        LayoutError: a source cannot be listed or reached.
    """
    test = request.test
    assert test.output is not None
    scorer = test.scorer
    columns = Columns(scorer.rule, test.credentials, request.score)
    files = part_files(test.output, request.form, columns)
    size = in_whole_batches(request.size, scorer.options)
    stated = stream_info(
        test.inputs, test.csv_roots, test.split, request.form, request.score, size, request.share
    )
    with writing(files, provenance_of(test), stated, test.resume, test.overwrite):
        for number, source, notes in counted(request.sources, files):
            for part in missing_parts(number, source, notes, size, request.share):
                rows = _rows(scorer, columns, part)
                # Before it is written: --resume would keep what is of two versions.
                source.check_state(part.state)
                write(files, part, rows)
        return finish(files)


def part_files(output: Path, form: str, columns: Columns) -> PartFiles:
    """The parts in an output folder; their columns are those of predictions.csv."""
    kinds = KINDS | {columns.score: "number"}
    return PartFiles(output, form, {name: kinds.get(name, "text") for name in columns.names})


def in_whole_batches(size: int, options: ScoringOptions) -> int:
    """`size`, rounded up to whole batches: a logit's last digits depend on its batch."""
    batch = options.pictures_at_a_time
    return -(-size // batch) * batch


def stream_info(
    inputs: Sequence[str],
    csv_roots: Sequence[Path],
    split: str | None,
    form: str,
    score: str,
    size: int,
    share: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """What run.json says of a run's parts; a run that goes on has the same.

    Args:
        inputs, csv_roots, split: as --input, --csv_root and --split have them.
        form, score, share: as StreamRequest has them.
        size: pictures of a part, in whole batches.
    """
    roots = [str(root) for root in csv_roots]
    more = {"form": form, "score": score, "pictures": size, "share": list(share)}
    return {"inputs": list(inputs), "csv_roots": roots, "split": split, **more}


@contextmanager
def writing(
    files: PartFiles, provenance: Provenance, stated: dict[str, Any], resume: bool, overwrite: bool
) -> Iterator[None]:
    """A context in which the output folder is this run's.

    Args:
        files: in the folder.
        provenance: what decides a row.
        stated: by `stream_info`.
        resume, overwrite: as `open_output` takes them.

    Raises:
        ConfigError: it holds another run.
    """
    check_mode(files.folder, streamed=True)
    # Until the last part: two runs in one folder would take each other's parts for their own.
    with open_output(files.folder, (PARTS, NOTES, RUN), resume, overwrite):
        info = provenance.info | {"stream": stated}
        begin(files.folder, info, resume, (*provenance.deciding, "stream"), PARTS)
        files.prepare()
        yield


def counted(
    sources: Iterable[Source], files: PartFiles
) -> Iterator[tuple[int, Source, dict[int, Note]]]:
    """Sources with their numbers, and the notes on their parts that are there. Raises ConfigError,
    after the last one, where there are parts of more: those of another listing."""
    number, pieces = -1, files.pieces()
    for number, source in enumerate(sources):
        yield number, source, files.notes(number, pieces.pop(number, ()))
    if number < 0:
        raise LayoutError("--input: expected pictures; found none")
    # What is left is of sources that are no longer listed, and would stay among this run's parts.
    if pieces:
        raise ConfigError(_changed(f"{files.folder} has parts of more"))


def _changed(what: str) -> str:
    return f"--resume: {what} than is listed now: use --overwrite or another --output"


def missing_parts(
    number: int, source: Source, notes: Mapping[int, Note], size: int, share: tuple[int, int]
) -> Iterator[Part]:
    """The parts of a source that are not written yet; its archive is there as long as they are
    asked for.

    Args:
        number: of the source.
        source: which is not opened where nothing of it is missing.
        notes: on its parts that are there.
        size: pictures of a part.
        share: as StreamRequest has it: archives by their numbers, or pieces of all else.

    Raises:
        ConfigError: what is there was listed otherwise, or from another version of an archive.
        LayoutError: it cannot be listed, or has no pictures.
    """
    own, machines = share
    # An archive is one machine's, or all of them would bring it for a piece each.
    if source.archive and number % machines != own:
        return
    state = source.state()
    version = state if source.archive else ""  # of all else the names tell
    # Before anything is scored: other pixels may bear the names that the notes tell.
    if any((note.source, note.version) != (source.name, version) for note in notes.values()):
        raise ConfigError(_changed(f"its parts are of another version of {source.name}"))
    # Where nothing tells versions apart, or names may have changed, it is listed to be compared.
    if version and is_whole(notes):
        return
    piece = 0
    with source.opened() as records:
        for piece, (chosen, last) in enumerate(_pieces(records, size)):
            # An archive may well have none of a split: its part has no rows, and is not asked for
            # again.
            if not chosen and not (source.archive and source.split):
                of_split = f" of split {source.split}" if source.split else ""
                raise LayoutError(f"{source.name}: expected pictures{of_split}; found none")
            if not source.archive and piece % machines != own:
                continue
            keys = digest(record.key for record in chosen)
            note = Note(source.name, version, len(chosen), 0, keys, last)
            if piece not in notes:
                yield Part(number, piece, note, chosen, state)
            elif not note.same_listing(notes[piece]):
                raise ConfigError(_changed(f"{source.name} had other pictures"))
    # Notes within the listing were compared above; those behind its end are of a longer one.
    if notes and max(notes) > piece:
        raise ConfigError(_changed(f"{source.name} had more pictures"))


def is_whole(notes: Mapping[int, Note]) -> bool:
    """Whether the notes are on all parts of a source, by the numbers of its pieces."""
    return bool(notes) and max(notes) == len(notes) - 1 and notes[len(notes) - 1].last


def _pieces(records: Iterator[Record], size: int) -> Iterator[tuple[list[Record], bool]]:
    """Records, `size` together, and whether they are the last."""
    # One record ahead, for a part's note says whether it is the last.
    following = next(records, None)
    while True:
        chosen = [following, *islice(records, size - 1)] if following else []
        following = next(records, None)
        yield chosen, following is None
        if following is None:
            return


def _rows(scorer: Scorer, columns: Columns, part: Part) -> list[Row]:
    """Rows of a part's pictures."""
    rows: list[Row] = []
    with Progress(len(part.records), str(part)) as progress:
        # At once: an answer may hold much more of what a file says of itself than its row does.
        batches = (list(map(columns.row, batch)) for batch in scorer.answers(part.records))
        for batch in watched(part, batches, errors_of):
            rows += batch
            progress.advance(len(batch))
    check_reached(part, errors_of(rows))
    return rows


def errors_of(rows: Iterable[Row]) -> list[str]:
    """The errors of pictures by their rows, '' for none."""
    return [str(row[ERROR]) for row in rows]


def watched(part: Part, batches: Iterable[T], errors: Callable[[T], Iterable[str]]) -> Iterator[T]:
    """Batches of a part as they come, as long as the network is there.

    Args:
        part: whose pictures they are, all of them.
        batches: in the order of the pictures.
        errors: the errors of a batch's pictures, '' for none.

    Raises:
        LayoutError: pictures cannot be reached, one after the other, nor any all over the part.
    """
    unreached, due = 0, LEAST_UNREACHED
    for batch in batches:
        for error in errors(batch):
            unreached, due = (unreached + 1, due) if UNREACHED in error else (0, LEAST_UNREACHED)
        if unreached >= due:
            log.warning("%s: %d pictures in a row were not reached: trying others", part, unreached)
            _probe(part)
            due *= 2  # a dead host with thousands of them costs a few probes
        yield batch


def _probe(part: Part) -> None:
    """Raises LayoutError when none of PROBES pictures can be reached. They are spread over all of
    the part, those that were reached before included: of a dead host's at its end, or at its head,
    a list may have hundreds."""
    count, probes = len(part.records), min(PROBES, len(part.records))
    chosen = [part.records[count * number // probes] for number in range(probes)]
    threads = ThreadPoolExecutor(AT_A_TIME)
    try:
        errors = list(threads.map(_error, chosen))
    finally:
        # Ctrl-C has the rest left alone: without a network each may take minutes.
        threads.shutdown(wait=False, cancel_futures=True)
    if all(UNREACHED in error for error in errors):
        raise _away(part, errors)


def _error(record: Record) -> str:
    try:
        read_bytes(record)
    except UnreadablePicture as error:
        return str(error)
    return ""


def check_reached(part: Part, errors: Sequence[str]) -> None:
    """Raises LayoutError when nearly no picture of a part could be reached: written down as
    unreadable they would be lost by a network that is away for an hour. The whole part is judged,
    for dead hosts in a list often follow one another."""
    unreached = sum(UNREACHED in error for error in errors)
    if unreached >= max(LEAST_UNREACHED, MOST_UNREACHED * len(errors)):
        raise _away(part, errors)


def _away(part: Part, errors: Sequence[str]) -> LayoutError:
    unreached = [error for error in errors if UNREACHED in error]
    return LayoutError(
        f"{part} of {part.note.source}: expected pictures that can be reached; found "
        f"{len(unreached)} of {len(errors)} that cannot ({unreached[0]}): --resume goes on"
    )


def write(files: PartFiles, part: Part, rows: Sequence[Row]) -> None:
    """Writes a part and its note.

    Args:
        files: where they go.
        part: whose pictures the rows are of.
        rows: in the order of the pictures.

    Raises:
        OSError: which names the file.
    """
    unreadable = sum(map(bool, errors_of(rows)))
    files.write(part.source, part.piece, rows, replace(part.note, unreadable=unreadable))
    log.info("%s: %d pictures, %d of them unreadable", part, len(rows), unreadable)


def finish(files: PartFiles) -> int:
    """Counts the parts into run.json. Returns how many pictures could not be read. Raises
    LayoutError when a whole run has none of its split."""
    counts = {"parts": 0, "pictures": 0, "unreadable": 0}
    for note in files.all_notes():
        counts["parts"] += 1
        counts["pictures"] += note.pictures
        counts["unreadable"] += note.unreadable
    info = dict(read_json(files.folder / RUN))  # as `writing` wrote it
    write_json(files.folder / RUN, info | {"counts": counts})
    stated = info["stream"]
    if not counts["pictures"] and stated["share"] == [0, 1]:  # of a share's archives none may have
        raise LayoutError(f"--split: expected pictures of {stated['split']}; found none")
    if counts["unreadable"]:
        log.warning("%(unreadable)d of %(pictures)d pictures could not be read", counts)
    log.info("results are in %s", files.folder / PARTS)
    return counts["unreadable"]
