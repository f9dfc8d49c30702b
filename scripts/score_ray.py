"""Scores shards of pictures on a Ray cluster: decoding on CPUs, detectors beside them or on GPUs.

    python scripts/score_ray.py shards/ --output runs/big --gpus 4 --cpus_per_decode 4
    python scripts/score_ray.py s3://bucket/shards --output runs/big --address auto

Writes what main.py --stream writes: DIR/parts and DIR/notes, with the same scores to the last
digit, for batches and threads are the same. The same command with --resume goes on; a process that
dies meanwhile costs time alone. Needs the package ray (`pip install 'ray[data]'`), and this folder
and local pictures at the same path on all machines.
"""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import shared  # noqa: E402
from scripts._shared import add_again, answer, new_parser, parse_as_main  # noqa: E402

if TYPE_CHECKING:
    from datasets import Record
    from datasets._images import Sample
    from detectors._arrays import Transform
    from engine.fetching.sources import Source
    from engine.phases.stream import Part, Row
    from engine.phases.test import TestRequest
    from engine.runtime.part_files import Note, PartFiles
    from engine.scoring.loop import ScoringOptions
    from engine.scoring.provenance import Provenance
    from engine.scoring.verdict_rule import VerdictRule

PROGRAM, UNSCORED = "score_ray.py", 1
MEMORY = 1 << 30  # bytes that Ray reserves for a task that decodes
CHOICE = ("detector", "config", "set", "weights", "backbone_weights", "pretrain", "threshold")
MORE = ("prevalence", "stability", "credentials", "trust_list", "tag", "split", "csv_root")
PARTS = ("protocols", "shard_size")
MACHINE = ("device", "precision", "batch_size", "threads", "torch", "compile")
LIMITS = ("max_megapixels", "picture_memory", "picture_seconds")
SHARED = ("stream", *CHOICE, *MORE, *PARTS, *MACHINE, *LIMITS)
log = logging.getLogger("engine.phases.stream")


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but some pictures could not be read; 2 wrong usage, weights or data"
    p = new_parser(PROGRAM, __doc__, status, whole=True, parents=[shared(SHARED)])
    p.add_argument("input", nargs="+", metavar="SHARDS",
                   help="folders or addresses of tar or Parquet files, archives, folders, CSV "
                   "files and pictures, as --input of main.py --stream takes")  # fmt: skip
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="where parts go")
    p.add_argument("--address", metavar="HOST:PORT",
                   help="of a cluster that runs, or auto (one of this machine alone, which ends "
                   "with the script)")  # fmt: skip
    p.add_argument("--gpus", type=number(int, 0), default=0, metavar="N",
                   help="detectors, each on a GPU of its own (0: on CPUs)")  # fmt: skip
    p.add_argument("--detectors", type=number(int, 1), default=1, metavar="N",
                   help="detectors on CPUs, each with --threads of them (%(default)s)")  # fmt: skip
    p.add_argument("--cpus_per_decode", "--cpus-per-decode", type=number(int, 1), default=1,
                   metavar="M",
                   help="processes that decode for one task, which counts as as many CPUs "
                   "(%(default)s)")  # fmt: skip
    add_again(p)
    return p


# --- on the cluster


@dataclass(frozen=True)
class Job:
    """What all tasks share: `transform`, `options`, how pictures are decoded; `size`: pictures of a
    part."""

    transform: Transform
    options: ScoringOptions
    size: int


class Described(NamedTuple):
    """What a process with the detector says of it, before anything is scored."""

    job: Job
    rule: VerdictRule
    provenance: Provenance


@dataclass(frozen=True)
class Item:
    """What a task lists and decodes: a source by its number, of which these parts are there, or a
    `share` of what is not one file."""

    number: int
    source: Source
    notes: dict[int, Note]
    share: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Pictures on their way from a decoder to a detector. `part` has no records; `place`: of the
    batch in the part; `total`: batches of that."""

    part: Part
    place: int
    total: int
    records: list[Record] = field(repr=False)
    items: list[Sample] = field(repr=False)


def request_of(args: argparse.Namespace) -> TestRequest:
    """How pictures are scored, by a detector that is loaded here."""
    from engine.cli.test_request import testing

    return testing(args)


def describe(args: argparse.Namespace) -> Described:
    """What decides a row, told by a process with the resources of those that score."""
    from engine.phases.stream import in_whole_batches
    from engine.phases.test import provenance_of

    test = request_of(args)
    scorer, options = test.scorer, test.scorer.options
    job = Job(scorer.backend.transform(False), options, in_whole_batches(args.shard_size, options))
    return Described(job, scorer.rule, provenance_of(test))


def decode(job: Job, rows: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
    """Batches of the items of a block of rows, one in memory at a time."""
    from engine.phases.stream import missing_parts

    size = job.options.pictures_at_a_time
    for row in rows["item"]:
        item: Item = _unpack(row)
        for part in missing_parts(item.number, item.source, item.notes, job.size, item.share):
            # One of no pictures, for an archive without any of the split, is a part all the same.
            bare, total = replace(part, records=[]), max(1, -(-len(part.records) // size))
            for place, (records, items) in enumerate(_batches(job, part)):
                if place == total - 1:  # without which the part is not written
                    item.source.check_state(part.state)
                yield {"batch": [_pack(Batch(bare, place, total, records, items))]}


def _batches(job: Job, part: Part) -> Iterator[tuple[list[Record], list[Sample]]]:
    """Decoded batches of a part."""
    from engine.phases.stream import watched
    from engine.scoring.loop import decoded

    if not part.records:
        return iter([([], [])])
    batches = decoded(job.transform, part.records, job.options)
    return watched(part, batches, _errors)


def _errors(batch: tuple[list[Record], list[Sample]]) -> list[str]:
    return [item.error for item in batch[1]]


class Detector:
    """A detector in a process of its own, which scores batches."""

    def __init__(self, args: argparse.Namespace) -> None:
        from engine.phases.test import Columns

        self._scorer = request_of(args).scorer
        self._columns = Columns(self._scorer.rule, args.credentials)
        self._scorer.backend.prepare()

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        """The rows of a batch."""
        from engine.scoring.loop import answered

        batch: Batch = _unpack(row["batch"])
        scorer = self._scorer
        answers = answered(scorer.backend, batch.records, batch.items, scorer.options)
        rows = [self._columns.row(answer.restated(scorer.rule.prevalence)) for answer in answers]
        return {"rows": _pack((batch.part, batch.place, batch.total, rows))}


def _pack(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _unpack(content: bytes) -> Any:
    return pickle.loads(content)  # noqa: S301 - from a process of our own


# --- here


def items(listed: Iterable[Source], files: PartFiles, decoders: int) -> list[Item]:
    """What tasks are to do with sources; all but archives in as many shares as there are
    decoders."""
    from engine.phases.stream import counted

    todo = []
    for count, source, notes in counted(listed, files):
        shares = 1 if source.archive else decoders
        todo += [Item(count, source, notes, (own, shares)) for own in range(shares)]
    return todo


def scored(
    ray: Any, args: argparse.Namespace, job: Job, todo: Sequence[Item]
) -> Iterator[tuple[Part, list[Row]]]:
    """Parts with their rows, as soon as they are whole."""
    from functools import partial

    batches = ray.data.from_items([{"item": _pack(item)} for item in todo],
                                  override_num_blocks=len(todo))  # fmt: skip
    # The memory also tells this step from the next: Ray makes one of two that ask for the same, and
    # would decode in the detectors' processes.
    batches = batches.map_batches(
        partial(decode, job), batch_size=1, num_cpus=args.cpus_per_decode, memory=MEMORY
    )
    pool = ray.data.ActorPoolStrategy(size=args.gpus or args.detectors)
    scores = batches.map(Detector, fn_constructor_args=(args,), compute=pool, **resources(args))
    waiting: defaultdict[tuple[int, int], dict[int, list[Row]]] = defaultdict(dict)
    finished: set[tuple[int, int]] = set()
    for row in scores.iter_rows():
        part, place, total, batch = _unpack(row["rows"])
        numbers = (part.source, part.piece)
        if numbers in finished:  # a process died after it had told, and another began again
            continue
        here = waiting[numbers]
        here[place] = batch  # once more, if one died before the part was whole
        if len(here) == total:
            del waiting[numbers]
            finished.add(numbers)
            yield part, [one for key in sorted(here) for one in here[key]]


def check_delivered(files: PartFiles, todo: Sequence[Item]) -> None:
    """Raises LayoutError when a part of a source has not come back from the cluster."""
    from datasets import LayoutError
    from engine.phases.stream import is_whole

    pieces = files.pieces()
    for source, name in {item.number: item.source.name for item in todo}.items():
        if not is_whole(files.notes(source, pieces.get(source, ()))):
            raise LayoutError(
                f"{name}: expected all its parts from the cluster; found some missing: --resume "
                "goes on"
            )


def resources(args: argparse.Namespace) -> dict[str, int]:
    """What Ray reserves for a detector."""
    return {"num_cpus": args.threads, "num_gpus": 1 if args.gpus else 0}


@contextmanager
def cluster(args: argparse.Namespace) -> Iterator[Any]:
    """A context with Ray, connected, unless who called had done so. Raises ConfigError: it is not
    installed, or too small."""
    from engine.config import ConfigError

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers of each run
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"{PROGRAM}: expected the package ray; found none: pip install 'ray[data]'"
        ) from error
    # Processes on other machines find the project where it lies here.
    more: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}}}
    if args.address:
        more |= {"address": args.address}
    else:
        more |= {"include_dashboard": False}
        # Of the loopback device, but not 127.0.0.1, which Ray replaces by the machine's address.
        more |= {"_node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}
    joined = ray.is_initialized()  # by who called
    if not joined:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **more)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Our own lines tell of each part, and of errors, which are raised here; its log file has all.
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
    try:
        there = ray.cluster_resources()
        cpus = (args.gpus or args.detectors) * args.threads + args.cpus_per_decode
        if there.get("CPU", 0) < cpus or there.get("GPU", 0) < args.gpus:
            raise ConfigError(
                f"--gpus, --detectors, --cpus_per_decode: expected {cpus} CPUs and {args.gpus} "
                f"GPUs; found {there.get('CPU', 0):g} and {there.get('GPU', 0):g}"
            )
        yield ray
    finally:
        if not joined:
            ray.shutdown()


def run(args: argparse.Namespace) -> int:
    """Scores what is missing. Returns how many pictures could not be read."""
    from engine.cli.stream_request import listing
    from engine.config import ConfigError
    from engine.fetching.sources import STDIN
    from engine.phases import stream
    from engine.phases.test import Columns
    from engine.scoring.answer import SCORE

    if STDIN in args.input:
        raise ConfigError(
            "SHARDS: expected paths or addresses; found -, which one process can read"
        )
    listed = listing(args)
    args.workers, args.threads = args.cpus_per_decode, args.threads or 1
    # Elsewhere the output folder is not there to be looked at.
    remote = argparse.Namespace(**vars(args) | {"resume": False, "output": None})
    with cluster(args) as ray:
        told = ray.remote(describe).options(**resources(args)).remote(remote)
        job, rule, provenance = ray.get(told)
        columns = Columns(rule, args.credentials, args.tag or SCORE)
        files = stream.part_files(args.output, args.stream, columns)
        stated = stream.stream_info(
            args.input, args.csv_root, args.split, args.stream, columns.score, job.size
        )
        with stream.writing(files, provenance, stated, args.resume, args.overwrite):
            decoders = int(ray.cluster_resources()["CPU"]) // args.cpus_per_decode
            todo = items(listed, files, decoders)
            for part, rows in scored(ray, remote, job, todo):
                stream.check_reached(part, stream.errors_of(rows))
                stream.write(files, part, rows)
            check_delivered(files, todo)
            return stream.finish(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command line."""
    from datasets import LayoutError
    from detectors._errors import OptionError, WeightsError
    from engine.config import ConfigError

    words = sys.argv[1:] if arguments is None else arguments
    args = parse_as_main(parser(), ["--stream", "parquet", *words])  # unless they say csv
    errors = (ConfigError, LayoutError, OptionError, WeightsError)

    def work() -> int:
        try:
            return UNSCORED if run(args) else 0
        except Exception as error:
            # What a process of the cluster complained of comes inside of an error of Ray, which is
            # of the same class, but has a traceback for its text.
            own: list[Exception] = [cause for cause in _causes(error) if isinstance(cause, errors)]
            raise (own or [error])[-1] from None

    return answer(PROGRAM, work, errors, goes_on="--resume goes on")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error of Ray came from, on the cluster."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__


if __name__ == "__main__":
    # By its name, so that Ray's processes import what this one sends them.
    from scripts.score_ray import main as named

    sys.exit(named())
