"""Phase test --stream: pictures by the million, listed, scored and written part by part.

`run` is called by cli/app.py; scripts/score_ray.py shares all but the scoring. No more of the
pictures is in memory than one part's. It must give each picture the row that phase test gives it
without --stream, and leave the same files to the byte, however often it was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import LayoutError, Record

from ..api import Scorer
from ..config import ConfigError
from ..fetching.remote import UNREACHED
from ..fetching.sources import Source
from ..plain_data import read_json
from ..runtime.part_files import NOTES, PARTS, Note, PartFiles, digest
from ..runtime.progress import Progress
from ..runtime.run_folder import RUN, begin, check_mode, open_output, write_json
from ..scoring.answer import COLUMNS, RECODINGS, STABILITY, Answer, prediction
from ..scoring.loop import ScoringOptions
from ..scoring.provenance import Provenance
from ..scoring.verdict_rule import VerdictRule
from .test import TestRequest, provenance_of

KINDS = dict.fromkeys(("score", "logit", *RECODINGS), "number") | {"held": "whole", "of": "whole"}
# Pictures of a part, and their share of those seen, that could not be reached: it is not they.
LEAST_UNREACHED, MOST_UNREACHED = 16, 0.9
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamRequest:
    """What phase test --stream is asked to do. `test`: how pictures are scored, and the output
    folder; it has no records. `sources`: where they are listed from; `form`: as PartFiles has it;
    `size`: pictures of a part at most; `share`: which of how many machines' parts are scored, from
    0."""

    test: TestRequest
    sources: Iterable[Source]
    form: str
    size: int
    share: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Part:
    """Pictures that are scored and written as a whole: a piece of a source, by their numbers, and
    the note on it, which counts no unreadable ones yet."""

    source: int
    piece: int
    note: Note
    records: list[Record] = field(repr=False)

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
    files = part_files(test.output, request.form, scorer.rule)
    size = in_whole_batches(request.size, scorer.options)
    stated = stream_info(test.inputs, test.csv_roots, request.form, size, request.share)
    with writing(files, provenance_of(test), stated, test.resume, test.overwrite):
        for number, source, notes in counted(request.sources, files):
            for part in missing_parts(number, source, notes, size, request.share):
                write(files, scorer.rule, part, _answers(scorer, part))
        return finish(files)


def part_files(output: Path, form: str, rule: VerdictRule) -> PartFiles:
    """The parts in an output folder; their columns are those of predictions.csv."""
    names = (*COLUMNS, *(STABILITY if rule.views else ()))
    return PartFiles(output, form, {name: KINDS.get(name, "text") for name in names})


def in_whole_batches(size: int, options: ScoringOptions) -> int:
    """`size`, rounded up to whole batches: a logit's last digits depend on its batch."""
    batch = options.pictures_at_a_time
    return -(-size // batch) * batch


def stream_info(
    inputs: Sequence[str],
    csv_roots: Sequence[Path],
    form: str,
    size: int,
    share: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """What run.json says of a run's parts; a run that goes on has the same.

    Args:
        inputs, csv_roots: as --input and --csv_root have them.
        form, share: as StreamRequest has them.
        size: pictures of a part, in whole batches.
    """
    roots = [str(root) for root in csv_roots]
    more = {"form": form, "pictures": size, "share": list(share)}
    return {"inputs": list(inputs), "csv_roots": roots, **more}


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
    if source.archive and number % machines != own:
        return
    version = source.version()
    # Before anything is scored: other pixels may bear the names that the notes tell.
    if any((note.source, note.version) != (source.name, version) for note in notes.values()):
        raise ConfigError(_changed(f"its parts are of another version of {source.name}"))
    if version and is_whole(notes):
        return
    piece = 0
    with source.opened() as records:
        for piece, (chosen, last) in enumerate(_pieces(records, size)):
            if not chosen:
                raise LayoutError(f"{source.name}: expected pictures; found none")
            if not source.archive and piece % machines != own:
                continue
            keys = digest(record.key for record in chosen)
            note = Note(source.name, version, len(chosen), 0, keys, last)
            if piece not in notes:
                yield Part(number, piece, note, chosen)
            elif not note.same_listing(notes[piece]):
                raise ConfigError(_changed(f"{source.name} had other pictures"))
    if notes and max(notes) > piece:
        raise ConfigError(_changed(f"{source.name} had more pictures"))


def is_whole(notes: Mapping[int, Note]) -> bool:
    """Whether the notes are on all parts of a source, by the numbers of its pieces."""
    return bool(notes) and max(notes) == len(notes) - 1 and notes[len(notes) - 1].last


def _pieces(records: Iterator[Record], size: int) -> Iterator[tuple[list[Record], bool]]:
    """Records, `size` together, and whether they are the last."""
    following = next(records, None)
    while True:
        chosen = [following, *islice(records, size - 1)] if following else []
        following = next(records, None)
        yield chosen, following is None
        if following is None:
            return


def _answers(scorer: Scorer, part: Part) -> list[Answer]:
    """Answers on a part's pictures."""
    answers: list[Answer] = []
    with Progress(len(part.records), str(part)) as progress:
        for batch in scorer.answers(part.records):
            answers += batch
            progress.advance(len(batch))
    check_reached(part, answers)
    return answers


def check_reached(part: Part, answers: Sequence[Answer]) -> None:
    """Raises LayoutError when nearly no picture of a part could be reached: written down as
    unreadable they would be lost by a network that is away for an hour. The whole part is judged,
    for dead hosts in a list often follow one another."""
    unreached = sum(UNREACHED in answer.row.error for answer in answers)
    if unreached >= max(LEAST_UNREACHED, MOST_UNREACHED * len(answers)):
        error = next(a.row.error for a in answers if UNREACHED in a.row.error)
        raise LayoutError(
            f"{part} of {part.note.source}: expected pictures that can be reached; found "
            f"{unreached} of {len(answers)} that cannot ({error}): --resume goes on"
        )


def write(files: PartFiles, rule: VerdictRule, part: Part, answers: Sequence[Answer]) -> None:
    """Writes a part and its note.

    Args:
        files: where they go.
        rule: of the verdicts.
        part: whose pictures the answers are on.
        answers: in the order of the pictures.

    Raises:
        OSError: which names the file.
    """
    unreadable = sum(bool(answer.row.error) for answer in answers)
    rows = [prediction(answer, rule) for answer in answers]
    files.write(part.source, part.piece, rows, replace(part.note, unreadable=unreadable))
    log.info("%s: %d pictures, %d of them unreadable", part, len(rows), unreadable)


def finish(files: PartFiles) -> int:
    """Counts the parts into run.json. Returns how many pictures could not be read."""
    counts = {"parts": 0, "pictures": 0, "unreadable": 0}
    for note in files.all_notes():
        counts["parts"] += 1
        counts["pictures"] += note.pictures
        counts["unreadable"] += note.unreadable
    info = dict(read_json(files.folder / RUN))  # as `writing` wrote it
    write_json(files.folder / RUN, info | {"counts": counts})
    if counts["unreadable"]:
        log.warning("%(unreadable)d of %(pictures)d pictures could not be read", counts)
    log.info("results are in %s", files.folder / PARTS)
    return counts["unreadable"]
