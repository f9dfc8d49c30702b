"""Augments a split of a CSV's pictures once and for all, as SPAI does before it validates.

    python scripts/augment_csv.py data/ldm_train_val.csv --output data/ldm_val_augmented
    python scripts/augment_csv.py set.csv --output runs/val --views 4 --seed 1 --csv_root data
    python scripts/augment_csv.py set.csv --output runs/val --set spai.aug_blur=0 spai.aug_webp=0.5

Every picture of the split becomes one 224 x 224 view, or several, decoded and augmented as SPAI's
training does (configs/spai.yaml; data.decoding and spai.aug_... by --config and --set), so that
every epoch is judged by the same varied pictures. DIR gets a PNG of each view and augmented.csv:
rows of the split, one a view, and all rows of other splits as they were, so that training can take
it in place of the CSV. Its paths start from DIR where there are no other rows,
and else from the nearest folder that holds both DIR and the pictures: a line on standard error says
which, for main.py's --csv_root. Same seed, same files, whatever the number of workers.
--format original keeps each picture's name and format, as the published tool does: where real and
synthetic pictures come in different formats, these then tell the classes apart.
Standard output has the path of augmented.csv.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import Label, LayoutError, Record, csv_file  # noqa: E402
from datasets._paths import split_named, visible  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number  # noqa: E402
from engine.cli.parser import add_decoding  # noqa: E402
from scripts import _views  # noqa: E402
from scripts._shared import add_again, answer, new_parser, say, tell_left_out, write_table  # noqa: E402
from scripts._views import ORIGINAL, PNG, VIEW, file_name  # noqa: E402

if TYPE_CHECKING:
    from engine.config import Config

PROGRAM = "augment_csv.py"
UNREADABLE = 1
TABLE, BAD_FILES = "augmented.csv", "bad_files.csv"
MOST_VIEWS = 100
BATCH = 8


# --- the CSV


@dataclass(frozen=True)
class Listing:
    """A CSV: its columns and rows, the key of each row's picture, the folder that keys start from,
    and the pictures of the split that is augmented, by key."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    keys: Sequence[str]
    base: Path
    chosen: Mapping[str, Record]
    split: str

    def is_chosen(self, row: Mapping[str, str]) -> bool:
        """Whether a row is of the split that is augmented."""
        return split_named(row["split"]) == split_named(self.split)

    @property
    def others(self) -> int:
        """The number of rows of other splits."""
        return len(self.rows) - len(self.chosen)


def read(args: argparse.Namespace) -> Listing:
    """The CSV that the command line names. Raises LayoutError for no such file, one that lacks a
    column or rows of the split, a row without a class or with a path that leads out, or pictures in
    an LMDB or in --output itself."""
    chosen = csv_file.records(args.input, args.split, csv_root=args.csv_root)
    if chosen[0].member:
        raise LayoutError(f"--csv_root {args.csv_root}: expected a folder; found an LMDB")
    columns, rows = csv_file.read_rows(args.input)
    folder = args.csv_root or args.input.parent
    keys = [csv_file.path_in(row["image"], args.input, folder) for row in rows]
    base = folder.resolve()
    folders = {(base / PurePosixPath(key)).parent for key in keys}
    output = args.output.resolve()
    # --overwrite would delete, and a second run augment, what the CSV names.
    if args.input.resolve() == output / TABLE or output in {f.resolve() for f in folders}:
        other = f"another folder than that of the pictures in {args.input}"
        raise LayoutError(f"--output {args.output}: expected {other}")
    return Listing(columns, rows, keys, base, {record.key: record for record in chosen}, args.split)


def check_apart(listing: Listing, output: Path) -> None:
    """Refusal of an output where views by the names of their pictures would take the place of
    these, or cannot lie. Raises LayoutError."""

    resolved = cache(Path.resolve)  # a million pictures lie in few folders
    paths = [listing.base / key for key in listing.keys]
    pictures = {(resolved(path.parent), path.name) for path in paths}
    for key in listing.chosen:
        view = output / key
        if PurePosixPath(key).is_absolute():
            raise LayoutError(
                f"--format {ORIGINAL}: expected pictures below {listing.base}; found {key}: name a "
                "folder above by --csv_root"
            )
        if (resolved(view.parent), view.name) in pictures:
            raise LayoutError(f"--output {output}: expected another folder; found {key} in it")


def start_of_paths(listing: Listing, output: Path) -> Path:
    """The folder that the paths of augmented.csv start from. Raises LayoutError where rows of other
    splits are kept, and their pictures are on another drive."""
    if not listing.others:
        return output
    for folder in (output, *output.parents):
        if listing.base.is_relative_to(folder):
            return folder
    raise LayoutError(f"--output {output}: expected a folder on the drive of {listing.base}")


def prefix(folder: Path, start: Path) -> str:
    """Beginning of the paths of a folder's pictures, from `start`. Raises LayoutError where a
    CSV cannot have such a path."""
    name = folder.relative_to(start).as_posix()
    # A backslash stands for a folder in a CSV from Windows.
    if "\\" in name or name != name.encode(errors="replace").decode():
        wanted = "a path in UTF-8 without backslashes, as a CSV needs"
        raise LayoutError(f"{visible(str(folder))}: expected {wanted}")
    return "" if name == "." else f"{name}/"


def table(
    listing: Listing, args: argparse.Namespace, bad: Mapping[str, str], own: str, others: str
) -> Iterator[list[str]]:
    """The rows of augmented.csv: the input's in its order, of the split one for each view.

    Args:
        listing: the CSV that was augmented.
        args: the command line.
        bad: what is wrong with the pictures that have no views, by key.
        own: what the paths of views begin with.
        others: what the paths of pictures of other splits begin with.
    """
    for key, row in zip(listing.keys, listing.rows, strict=True):
        if not listing.is_chosen(row):
            images = [key if PurePosixPath(key).is_absolute() else others + key]
        elif key in bad:
            continue
        else:
            record = listing.chosen[key]
            images = [own + file_name(record, view, args.format) for view in range(args.views)]
        for image in images:
            yield [image if name == "image" else row[name] for name in listing.columns]


# --- the pictures


def written(listing: Listing, args: argparse.Namespace) -> list[str]:
    """Names of the views in DIR, whole or begun; by --format original of those of the CSV."""
    if args.format == ORIGINAL:
        return [key for key in listing.chosen if (args.output / key).is_file()]
    return sorted(path.name for path in args.output.glob("*") if VIEW.fullmatch(path.name))


def write_views(listing: Listing, args: argparse.Namespace, config: Config) -> dict[str, str]:
    """Faults of the pictures that could not be read, or whose format is not written, by key. Writes
    all views that are not there yet, each drawn by the generator that
    `default_rng((seed, view, crc32(key)))` is.

    Args:
        listing: the CSV, whose chosen pictures are augmented.
        args: the command line.
        config: has the numbers of the augmentation, and how pictures are decoded.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    from datasets._images import Draw, PictureDataset
    from engine.cli.machine import workers
    from engine.runtime.files import write_file
    from engine.runtime.progress import Progress
    from engine.runtime.workers import Pool

    original = args.format == ORIGINAL
    bad = {key: reason for key in listing.chosen if original and (reason := _views.unwritable(key))}
    records = [record for record in listing.chosen.values() if record.key not in bad]
    done = frozenset(written(listing, args))
    missing = [  # (picture, view), a picture's one after the other
        (index, view)
        for index, record in enumerate(records)
        for view in range(args.views)
        if file_name(record, view, args.format) not in done
    ]
    decoding = decoding_of(config)
    crew = workers(args, len(missing), decoding)
    # PNGs are encoded by the processes that decode; in other formats this one must know the name.
    transform = partial(_views.view_of if original else _views.png_view, options=config.options)
    pictures = PictureDataset(
        records, transform, seed=args.seed, limits=crew.limits, decoding=decoding
    )
    pool = Pool(pictures, crew)
    draws = [Draw(index, view) for index, view in missing]
    batches = (draws[first : first + BATCH] for first in range(0, len(draws), BATCH))
    total, drawn = args.views * len(records), iter(missing)
    with Progress(total, "augmenting", initial=total - len(missing)) as progress:
        for items in pool.batches(batches):
            for item, (index, view) in zip(items, islice(drawn, len(items)), strict=True):
                if item.value is None:
                    bad[records[index].key] = item.error
                else:
                    name = file_name(records[index], view, args.format)
                    path = args.output / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_file(path, _views.encoded(item.value, name) if original else item.value)
            progress.advance(len(items))
    pool.close()
    return bad


# --- the command line


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but some pictures could not be read and are left out: see "
    p = new_parser(PROGRAM, __doc__, f"{status}DIR/{BAD_FILES}; 2 wrong usage or data", whole=True)
    p.add_argument("input", type=Path, metavar="INPUT", help="a CSV with image,class,split")
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="for PNGs and CSV")
    p.add_argument("--split", default="val", metavar="NAME", help="to augment (%(default)s)")
    p.add_argument("--csv_root", type=Path, metavar="DIR",
                   help="folder that the paths in INPUT start from (INPUT's own)")  # fmt: skip
    p.add_argument("--views", type=number(int, 1, MOST_VIEWS), default=1, metavar="N",
                   help="of each picture (1)")  # fmt: skip
    p.add_argument("--seed", type=number(int, 0), default=0, metavar="N",
                   help="of the augmentation (0)")  # fmt: skip
    p.add_argument("--format", choices=(PNG, ORIGINAL), default=PNG,
                   help="of the views: PNG, named by class and picture, or each picture's own name "
                   "and format (%(default)s)")  # fmt: skip
    p.add_argument("--config", type=Path, metavar="FILE",
                   help="YAML on top of configs/spai.yaml, whose spai.aug_... are the numbers of "
                   "the augmentation")  # fmt: skip
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="such a number, as spai.aug_blur=0.2, or data.decoding (one or more, "
                   "repeatable)")  # fmt: skip
    add_decoding(p)
    add_again(p)
    return p


def check(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program for values that no data can change."""
    if not args.split.strip():
        p.error("--split: expected a name; found none")
    if args.format == ORIGINAL and args.views > 1:
        p.error(f"--views: expected 1 with --format {ORIGINAL}; found {args.views}")
    for text in args.set:
        if not text.startswith(("spai.aug_", "data.decoding=")):
            p.error(f"--set: expected spai.aug_...=VALUE or data.decoding=NAME; found {text!r}")
    if args.csv_root and not args.csv_root.is_dir():
        p.error(f"--csv_root: expected a folder; found {args.csv_root}")


def report(
    listing: Listing, start: Path, args: argparse.Namespace, bad: Mapping[str, str], decoding: str
) -> None:
    """Prints the path of augmented.csv; counts and what was left out go to standard error.

    Args:
        listing: the CSV that was augmented.
        start: the folder that the paths of augmented.csv start from.
        args: the command line.
        bad: what is wrong with the pictures without views, by key.
        decoding: how pictures were decoded.
    """
    kept = [record for key, record in listing.chosen.items() if key not in bad]
    counts = Counter(record.label for record in kept)
    done = f"{listing.split} {counts[Label.REAL]} real, {counts[Label.FAKE]} synthetic augmented"
    done += f", decoded as data.decoding={decoding}"
    if listing.others:
        done += f"; {listing.others:,} rows of other splits kept"
    if start != args.output:
        done += f"; paths start from {start}: give it as --csv_root"
    say(PROGRAM, visible(done))
    if args.format == ORIGINAL:
        say(PROGRAM, _views.formats_told(kept))
    tell_left_out(PROGRAM, bad, "could not be read")
    print(args.output / TABLE)


def configuration(args: argparse.Namespace) -> Config:
    """SPAI's configuration, with that of the command line on top. Raises ConfigError."""
    from engine.config import CONFIGS, parse_override, read_yaml, resolve

    files = [CONFIGS / "spai.yaml", *([args.config] if args.config else [])]
    layers = [(str(file), read_yaml(file)) for file in files]
    return resolve("spai", [*layers, *(("--set", parse_override(text)) for text in args.set)])


def decoding_of(config: Config) -> str:
    """Way that pictures are decoded: as in the training that is validated by the views."""
    return config.data.decoding or config.data.train_decoding


def check_own(output: Path, names: Sequence[str], overwrite: bool) -> None:
    """Refusal of an output whose pictures no run of this tool wrote, which --overwrite would
    delete: by --format original they are named as anybody's.

    Args:
        output: the folder.
        names: of the pictures of the CSV that are in it.
        overwrite: whether they would be deleted.

    Raises:
        LayoutError: there are such pictures.
    """
    from engine.plain_data import read_json
    from engine.runtime.run_folder import RUN

    try:
        ours = read_json(output / RUN).get("format") == ORIGINAL
    except (OSError, ValueError, AttributeError):
        ours = False
    if names and overwrite and not ours:
        raise LayoutError(
            f"--output {output}: expected a folder that --format {ORIGINAL} wrote; found "
            f"{names[0]} of another origin: name another --output"
        )


def clear_begun(listing: Listing, args: argparse.Namespace, views: Sequence[str]) -> None:
    """Deletes the views that a killed run left half-written."""
    from engine.runtime.files import clear_leftovers

    for name in views:
        if (match := VIEW.fullmatch(name)) and match["part"]:
            (args.output / name).unlink(missing_ok=True)
    if args.format == ORIGINAL:
        names = {PurePosixPath(key).name for key in listing.chosen}
        for folder in {(args.output / key).parent for key in listing.chosen}:
            clear_leftovers(folder, names)


def identity(listing: Listing, args: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Facts that a run must have in common with the one that it goes on with."""
    from engine.scoring.scorer import listing_digest

    numbers = {k: v for k, v in asdict(config.options).items() if k.startswith("aug_")}
    given = {name: getattr(args, name) for name in ("seed", "views", "split", "format")}
    digest = listing_digest(list(listing.chosen.values()))
    decoding = decoding_of(config)
    return {**given, "decoding": decoding, "augmentation": numbers, "listing": digest}


def run(args: argparse.Namespace) -> int:
    """The exit status of a command line. Augments what it names."""
    from engine.runtime.run_folder import RUN, begin, open_output

    config = configuration(args)
    listing = read(args)
    args.output = args.output.resolve()
    if args.format == ORIGINAL:
        check_apart(listing, args.output)
        check_own(args.output, written(listing, args), args.overwrite)
    start = start_of_paths(listing, args.output)
    own = prefix(args.output, start)
    others = prefix(listing.base, start) if listing.others else ""
    views = written(listing, args)
    owned = [RUN, TABLE, BAD_FILES, *views]
    with open_output(args.output, owned, args.resume, args.overwrite):
        clear_begun(listing, args, views)
        same = identity(listing, args, config)
        info = {"command": sys.argv, **same}
        begin(args.output, info, args.resume, list(same), views[0] if views else TABLE)
        bad = write_views(listing, args, config)
        (args.output / BAD_FILES).unlink(missing_ok=True)
        if bad:
            write_table(args.output / BAD_FILES, ["key", "error"], map(list, sorted(bad.items())))
        if len(bad) == len(listing.chosen):
            raise LayoutError(
                f"{args.input}: expected readable pictures; found none of {len(bad):,}: see "
                f"{args.output / BAD_FILES}"
            )
        rows = table(listing, args, bad, own, others)
        write_table(args.output / TABLE, listing.columns, rows)
    report(listing, start, args, bad, same["decoding"])
    return UNREADABLE if bad else 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)
    from detectors._errors import OptionError
    from engine.config import ConfigError

    return answer(PROGRAM, lambda: run(args), (LayoutError, ConfigError, OptionError, OSError))


if __name__ == "__main__":
    sys.exit(main())
