"""Writes sets of pictures after what they may go through: posts, memes, filters, encoders.

    python scripts/derive.py data/test.csv --apply post --output data/test_post
    python scripts/derive.py fake_sd3.csv real_coco.csv --apply meme+jpeg:75 --output data/memes
    python scripts/derive.py data/pictures --like_study filter --output data/filtered

INPUTs are CSV files, folders with real/ and fake/, pictures' folders or archives. DIR gets for each
a folder of its name with the pictures and a CSV beside it: the columns of a CSV as they were, or
image, class, generator, source; and `original` (the picture it was), `degradation`, `seed`. A PNG
here gives the very score that its original has under --degrade with the same steps and seed. One
format for all by --format, for where real and synthetic pictures come in different ones, a detector
can tell the classes by these; `original` keeps each picture's own. --like_study writes as the study
on SPAI did, and says what its formats tell. --apply superres:2 takes the network whose weights
--set degrade.superres=FILE names, of any architecture that spandrel knows. Goes on with --resume.
Standard output has the CSVs.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import datasets  # noqa: E402
from datasets import LayoutError, Record, csv_file  # noqa: E402
from detectors._errors import WeightsError  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import add_decoding  # noqa: E402
from engine.config import ConfigError  # noqa: E402
from engine.runtime.text import distinct  # noqa: E402
from engine.scoring import degradations, superres  # noqa: E402
from scripts._shared import (  # noqa: E402
    add_again,
    answer,
    new_parser,
    say,
    take_network,
    tell_left_out,
    write_table,
)
from scripts._views import FORMATS, SAVING, unwritable  # noqa: E402

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

PROGRAM = "derive.py"
BAD_FILES = "bad_files.csv"
ADDED = ("original", "degradation", "seed")
FOLDER_COLUMNS = ("image", "class", "generator", "source")
BATCH = 8
ORIGINAL = "original"
ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


@dataclass(frozen=True)
class Preset:
    """How the study on SPAI made one of its sets. `tells`: what its formats give away."""

    steps: str
    form: str
    tells: str


STUDY = {
    "filter": Preset(
        "instagram:random", "jpeg:75",
        "all are JPEG 75, but real pictures were JPEG before, and synthetic ones mostly PNG",
    ),
    "meme": Preset(
        "meme", "png", "all are PNG, but only real pictures carry traces of an earlier JPEG"
    ),
    "screenshot": Preset(
        "post", "png", "all are PNG, but only real pictures carry traces of an earlier JPEG"
    ),
    "superres": Preset(
        "enlarge:2", ORIGINAL,
        "each keeps its format: in the study synthetic ones were PNG and real ones JPEG, which "
        "gives the answer away; without weights of a network, bicubic enlargement stands for it",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A format of files: Pillow's name, and what its encoder takes. `kind` None: each picture's."""

    kind: str | None
    saving: Mapping[str, Any]

    @property
    def spelling(self) -> str:
        """As --format has it."""
        if self.kind is None:
            return ORIGINAL
        quality = self.saving.get("quality")
        return self.kind.lower() + (f":{quality}" if quality is not None else "")


def form(text: str) -> Form:
    """For argparse: `png`, `jpeg:Q`, `webp:Q` or `original`."""
    kind, _, quality = text.partition(":")
    if text == "png":
        return Form("PNG", SAVING["PNG"])
    if text == ORIGINAL:
        return Form(None, {})
    digits = quality.isascii() and quality.isdigit()
    if kind in ("jpeg", "webp") and digits and 1 <= int(quality) <= 100:
        return Form(kind.upper(), {"quality": int(quality)})
    raise argparse.ArgumentTypeError(f"expected png, jpeg:1-100, webp:1-100 or original; {text!r}")


@dataclass(frozen=True)
class Source:
    """One INPUT: the name of what is made of it, its pictures, and the columns and row, by key, of
    its CSV."""

    name: str
    records: Sequence[Record]
    columns: Sequence[str]
    rows: dict[str, dict[str, str]]


def sources(args: argparse.Namespace) -> list[Source]:
    """What the command line names. Raises LayoutError where there are no pictures."""
    inputs = []
    roots = datasets.csv_roots(args.input, args.csv_root)
    names = distinct([(p.name if p.is_dir() else p.stem).lstrip(".") or "set" for p in args.input])
    for path, root, name in zip(args.input, roots, names, strict=True):
        records = datasets.contents(path, root).records(args.split, labelled=False)
        if datasets.kind_of(path) == "csv_file":
            columns, lines = csv_file.read_rows(path)
            folder = root or path.parent
            rows = {csv_file.path_in(row["image"], path, folder): row for row in lines}
            columns = [column for column in columns if column not in ADDED]
        else:
            columns, rows = list(FOLDER_COLUMNS), {}
        inputs.append(Source(name, records, columns, rows))
    return inputs


def files(source: Source, chosen: Form) -> dict[str, str]:
    """The path below DIR of what is made of each picture, by key: with the ending of the format, or
    behind the whole earlier name where any two would else be one file."""
    keys = {record.key: PurePosixPath(record.key.lstrip("/")) for record in source.records}
    if chosen.kind is None:
        return {key: f"{source.name}/{path}" for key, path in keys.items()}
    ending = ENDINGS[chosen.kind]
    short = {key: f"{source.name}/{path.with_suffix(ending)}" for key, path in keys.items()}
    if len(set(short.values())) == len(short):
        return short
    return {key: f"{source.name}/{path}{ending}" for key, path in keys.items()}


def encoded(
    image: Image.Image, _: np.random.Generator, kind: str, saving: Mapping[str, Any]
) -> bytes:
    """The content of a file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return buffer.getvalue()


def by_format(
    source: Source, chosen: Form, bad: dict[str, str]
) -> Iterator[tuple[str, list[Record]]]:
    """Pillow's names of the formats to write, each with its pictures; those whose own format is
    not written are noted as bad."""
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in source.records:
        if chosen.kind is None and (reason := unwritable(record.key)):
            bad[record.key] = reason
        else:
            ending = PurePosixPath(record.key).suffix.lower()
            groups[chosen.kind or FORMATS[ending]].append(record)
    yield from groups.items()


def derive(source: Source, args: argparse.Namespace) -> dict[str, str]:
    """What is wrong with the pictures that could not be read or written, by key. Writes those that
    are not there yet.

    Args:
        source: the pictures.
        args: the command line.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    from datasets._images import PictureDataset
    from engine.cli.machine import workers
    from engine.runtime.files import write_file
    from engine.runtime.progress import Progress
    from engine.runtime.workers import Pool

    names, bad = files(source, args.format), dict[str, str]()
    chain = degradations.parse(args.apply, "--apply")
    for kind, records in by_format(source, args.format, bad):
        missing = [r for r in records if not (args.output / names[r.key]).is_file()]
        crew = workers(args, len(missing))
        saving = args.format.saving or (SAVING[kind] if kind == "PNG" else {})
        transform = partial(encoded, kind=kind, saving=saving)
        # Asked for by number, as scoring asks: a degradation then draws what it draws there.
        pictures = PictureDataset(missing, transform, chain, args.seed, limits=crew.limits)
        pool = Pool(pictures, crew)
        order = range(len(missing))
        batches = (list(order[first : first + BATCH]) for first in order[::BATCH])
        done = len(records) - len(missing)
        with Progress(len(records), source.name, initial=done) as progress:
            for items in pool.batches(batches):
                for item in items:
                    key = missing[item.index].key
                    if item.value is None:
                        bad[key] = item.error
                    else:
                        path = args.output / names[key]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        write_file(path, item.value)
                progress.advance(len(items))
        pool.close()
    return bad


def table(source: Source, args: argparse.Namespace, bad: dict[str, str]) -> Iterator[list[str]]:
    """The rows of a source's CSV, one for each picture that was written."""
    names = files(source, args.format)
    for record in source.records:
        if record.key in bad:
            continue
        label = "" if record.label is None else str(int(record.label))
        row = source.rows.get(record.key) or {
            "class": label, "generator": record.generator, "source": record.source,
        }  # fmt: skip
        values = {**row, "image": names[record.key]}
        yield [
            *(values[column] for column in source.columns),
            record.key,
            args.apply,
            str(args.seed),
        ]


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but some pictures could not be read and are left out: see "
    p = new_parser(PROGRAM, __doc__, f"{status}DIR/{BAD_FILES}; 2 wrong usage or data", whole=True)
    p.add_argument("input", type=Path, nargs="+", metavar="INPUT", help="CSV, folder or archive")
    p.add_argument("--apply", metavar="STEPS", help="as --degrade takes one: jpeg:75, meme+jpeg:75")
    p.add_argument("--like_study", "--like-study", choices=STUDY,
                   help="the steps and format of one of the study's sets")  # fmt: skip
    p.add_argument("--format", type=form, metavar="FORMAT",
                   help="png, jpeg:Q, webp:Q or original (png)")  # fmt: skip
    p.add_argument("--seed", type=number(int, 0, 2**63), default=0, metavar="N",
                   help="of what the steps choose (0)")  # fmt: skip
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="for pictures, CSVs")
    p.add_argument("--split", metavar="NAME", help="only pictures of this split (all)")
    p.add_argument("--csv_root", type=Path, action="append", default=[], metavar="DIR",
                   help="folder, or LMDB, that the paths in a CSV start from; repeatable, as for "
                   "main.py")  # fmt: skip
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help=f"{superres.OPTION}=FILE: weights of superres:2 or superres:4")  # fmt: skip
    add_decoding(p)
    add_again(p)
    return p


def check(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program for flags that do not go together; fills in what a preset says."""
    args.network, others = take_network(args.set)
    if others:
        p.error(f"--set: expected {superres.OPTION}=FILE; found {others[0]!r}")
    if bool(args.apply) == bool(args.like_study):
        p.error("expected --apply STEPS or --like_study NAME, one of the two")
    if args.like_study:
        preset = STUDY[args.like_study]
        if args.format is not None:
            p.error(f"--format: expected none with --like_study, which writes {preset.form}")
        args.apply, args.format = preset.steps, form(preset.form)
        if args.like_study == "superres" and args.network:
            args.apply = "superres:2"
        say(PROGRAM, f"as the study writes {args.like_study}: {preset.tells}")
    args.format = args.format or form("png")


def run(args: argparse.Namespace) -> int:
    """The exit status of a command line. Derives what it names.

    Raises:
        LayoutError: an input without readable pictures, or with pictures in --output.
        ConfigError: steps that are none, or an output that holds another run.
    """
    from engine.cli.machine import check_apart
    from engine.runtime.run_folder import RUN, begin, open_output
    from engine.scoring.scorer import listing_digest

    chain = degradations.parse(args.apply, "--apply")
    args.apply = chain.name if chain else degradations.NONE
    chosen = sources(args)
    args.output = args.output.resolve()
    check_apart(args.output, args.input)
    tables = [f"{source.name}.csv" for source in chosen]
    if taken := {(args.output / t) for t in tables} & {path.resolve() for path in args.input}:
        raise LayoutError(f"--output: expected another folder than that of {taken.pop()}")
    pictures = [name for source in chosen for name in files(source, args.format).values()]
    # --resume would take an original for what was made of it, --overwrite would delete it.
    originals = {record.path.resolve() for source in chosen for record in source.records}
    if taken := originals.intersection(args.output / name for name in pictures):
        raise LayoutError(f"--output: expected a folder without the originals; found {min(taken)}")
    identity = {
        "apply": args.apply, "format": args.format.spelling, "seed": args.seed,
        "listing": {source.name: listing_digest(list(source.records)) for source in chosen},
    }  # fmt: skip
    bad: dict[str, str] = {}
    owned = [RUN, BAD_FILES, *tables, *pictures]
    with open_output(args.output, owned, args.resume, args.overwrite):
        info = {"command": sys.argv, **identity}
        begin(args.output, info, args.resume, list(identity), tables[0])
        for source, name in zip(chosen, tables, strict=True):
            own = derive(source, args)
            if len(own) == len(source.records):
                reason = next(iter(own.values()))
                raise LayoutError(
                    f"{source.name}: expected readable pictures; found none: {reason}"
                )
            rows = table(source, args, own)
            write_table(args.output / name, [*source.columns, *ADDED], rows)
            bad |= {f"{source.name}/{key}": error for key, error in own.items()}
            print(args.output / name, flush=True)
        (args.output / BAD_FILES).unlink(missing_ok=True)
        if bad:
            write_table(args.output / BAD_FILES, ["key", "error"], map(list, sorted(bad.items())))
    tell_left_out(PROGRAM, bad, "could not be derived")
    return 1 if bad else 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)

    def work() -> int:
        with superres.standing(args.network):
            return run(args)

    errors = (LayoutError, ConfigError, WeightsError)
    return answer(PROGRAM, work, errors, goes_on="--resume goes on")


if __name__ == "__main__":
    sys.exit(main())
