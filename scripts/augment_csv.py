"""Augments a split of a CSV's pictures once and for all, as SPAI does before it validates.

    python scripts/augment_csv.py data/ldm_train_val.csv --output data/ldm_val_augmented
    python scripts/augment_csv.py set.csv --output runs/val --views 4 --seed 1 --csv_root data

Every picture of the split becomes one 224 x 224 view, or several, by the augmentation that SPAI is
trained with, so that every epoch is judged by the same varied pictures. DIR gets a PNG of each view
and augmented.csv: rows of the split, one a view, and all rows of other splits as they were, so that
training can take it in place of the CSV. Its paths start from DIR where there are no other rows,
and else from the nearest folder that holds both DIR and the pictures: a line on standard error says
which, for main.py's --csv_root. Same seed, same files, whatever the number of workers. Pictures are
decoded as SPAI's training does it, unless --set data.decoding=upright turns them as EXIF says.
Standard output has the path of augmented.csv.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import Label, LayoutError, Record, csv_file  # noqa: E402
from datasets._limits import DECODINGS, PUBLISHED  # noqa: E402
from datasets._paths import split_named, visible  # noqa: E402
from engine.command_line import Parser, add_decoding  # noqa: E402
from scripts._answer import answer  # noqa: E402
from scripts._csv_rows import some  # noqa: E402

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

PROGRAM = "augment_csv.py"
UNREADABLE = 1
TABLE, BAD_FILES = "augmented.csv", "bad_files.csv"
MOST_VIEWS = 100
BATCH = 8
LONGEST = 120  # bytes of a picture's path that its views' names repeat
CLASSES = {Label.REAL: "real", Label.FAKE: "fake"}
# Of a view, or of one that a killed run left half-written.
VIEW = re.compile(r"\.?(real|fake)_(.*_)?[0-9a-f]{16}_\d+\.png(?P<part>\.\d+\.part)?", re.DOTALL)


def view_name(record: Record, view: int) -> str:
    """The file of a view: class, what any file system takes of the picture's path, a hash of that
    path, which tells it from all others, and the number of the view."""
    plain = re.sub(r"[^\w.@+-]+", "_", str(PurePosixPath(record.key).with_suffix("")))
    # The end of the path is what tells most.
    plain = plain.encode()[-LONGEST:].decode(errors="ignore").strip("._")
    name = hashlib.blake2b(record.key.encode(), digest_size=8).hexdigest()
    label = CLASSES[Label(record.label or 0)]
    return "_".join(filter(None, (label, plain, name, str(view)))) + ".png"


def png_view(image: Image.Image, rng: np.random.Generator) -> bytes:
    """The content of a view's file."""
    from detectors.spai import SpaiOptions, ViewsTransform

    buffer = io.BytesIO()
    # Four times as fast as the default, and a seventh larger.
    ViewsTransform(SpaiOptions()).view(image, rng).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


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
    """The CSV that the command line names.

    Raises:
        LayoutError: no such file, it lacks a column or rows of the split, a row has no class or a
            path that leads out, or the pictures are in an LMDB or in --output itself.
    """
    found = csv_file.records(args.input, args.split, csv_root=args.csv_root)
    if found[0].member:
        raise LayoutError(f"--csv_root {args.csv_root}: expected a folder; found an LMDB")
    columns, rows = csv_file.read_rows(args.input)
    folder = args.csv_root or args.input.parent
    keys = [csv_file.path_in(row["image"], args.input, folder) for row in rows]
    base = folder.resolve()
    folders = {(base / PurePosixPath(key)).parent for key in keys}
    output = args.output.resolve()
    # --overwrite would delete, and a second run augment, what the CSV names.
    if args.input.resolve() == output / TABLE or output in {f.resolve() for f in folders}:
        raise LayoutError(
            f"--output {args.output}: expected another folder than that of the pictures in "
            f"{args.input}"
        )
    return Listing(columns, rows, keys, base, {r.key: r for r in found}, args.split)


def start_of_paths(listing: Listing, output: Path) -> Path:
    """The folder that the paths of augmented.csv start from.

    Raises:
        LayoutError: rows of other splits are kept, and their pictures are on another drive.
    """
    if not listing.others:
        return output
    for folder in (output, *output.parents):
        if listing.base.is_relative_to(folder):
            return folder
    raise LayoutError(f"--output {output}: expected a folder on the drive of {listing.base}")


def prefix(folder: Path, start: Path) -> str:
    """What the paths of a folder's pictures begin with, from `start`.

    Raises:
        LayoutError: a CSV cannot have such a path.
    """
    name = folder.relative_to(start).as_posix()
    # A backslash stands for a folder in a CSV from Windows.
    if "\\" in name or name != name.encode(errors="replace").decode():
        raise LayoutError(
            f"{visible(str(folder))}: expected a path in UTF-8 without backslashes, as a CSV needs"
        )
    return "" if name == "." else f"{name}/"


def table(
    listing: Listing, views: int, bad: Mapping[str, str], own: str, others: str
) -> Iterator[list[str]]:
    """The rows of augmented.csv: the input's in its order, of the split one for each view. `own`
    and `others` are the prefixes of views and of the pictures of other splits."""
    for key, row in zip(listing.keys, listing.rows, strict=True):
        if not listing.is_chosen(row):
            images = [key if PurePosixPath(key).is_absolute() else others + key]
        elif key in bad:
            continue
        else:
            images = [own + view_name(listing.chosen[key], view) for view in range(views)]
        for image in images:
            yield [image if name == "image" else row[name] for name in listing.columns]


# --- the pictures


def missing_views(listing: Listing, views: int, there: Container[str]) -> list[tuple[int, int]]:
    """(picture, view) of the views that are still to be made, a picture's one after the other."""
    return [
        (place, view)
        for place, record in enumerate(listing.chosen.values())
        for view in range(views)
        if view_name(record, view) not in there
    ]


def write_views(listing: Listing, args: argparse.Namespace, decoding: str) -> dict[str, str]:
    """Writes all views that are not there yet, each by the generator that
    `default_rng((seed, view, crc32(key)))` is. Returns what is wrong with the pictures that could
    not be read, by key.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    from datasets._images import Draw, PictureDataset
    from engine.decoding import Pool
    from engine.files import write_file
    from engine.flags import workers
    from engine.progress import Progress

    records = list(listing.chosen.values())
    missing = missing_views(listing, args.views, frozenset(views_in(args.output)))
    crew = workers(args, len(missing), decoding)
    pictures = PictureDataset(
        records, png_view, seed=args.seed, limits=crew.limits, decoding=decoding
    )
    pool = Pool(pictures, crew)
    draws = [Draw(place, view) for place, view in missing]
    batches = (draws[first : first + BATCH] for first in range(0, len(draws), BATCH))
    bad: dict[str, str] = {}
    total, made = args.views * len(records), iter(missing)
    with Progress(total, "augmenting", initial=total - len(missing)) as progress:
        for items in pool.batches(batches):
            for item, (place, view) in zip(items, islice(made, len(items)), strict=True):
                if item.value is None:
                    bad[records[place].key] = item.error
                else:
                    name = view_name(records[place], view)
                    write_file(args.output / name, item.value)
            progress.advance(len(items))
    pool.close()
    return bad


def views_in(folder: Path) -> list[str]:
    """Names of views in a folder, half-written ones included."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if VIEW.fullmatch(path.name))


# --- the command line


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog=PROGRAM,
        description=__doc__,
        epilog="Exit status: 0 done; 1 done, but some pictures could not be read and are left\n"
        "out: see DIR/bad_files.csv; 2 wrong usage or data; 130 interrupted.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("input", type=Path, metavar="INPUT", help="a CSV with image,class,split")
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="for PNGs and CSV")
    p.add_argument("--split", default="val", metavar="NAME", help="to augment (%(default)s)")
    p.add_argument("--csv_root", type=Path, metavar="DIR",
                   help="folder that the paths in INPUT start from (INPUT's own)")  # fmt: skip
    p.add_argument("--views", type=int, default=1, metavar="N", help="of each picture (1)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the augmentation (0)")
    p.add_argument(
        "--set", action="append", default=[], metavar="data.decoding=VALUE",
        help=f"how pictures are decoded: {' or '.join(DECODINGS)} ({PUBLISHED})",
    )  # fmt: skip
    add_decoding(p)
    again = p.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run")
    return p


def check(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program for values that no data can change."""
    if not 1 <= args.views <= MOST_VIEWS:
        p.error(f"--views: expected 1 to {MOST_VIEWS}; found {args.views}")
    if args.seed < 0:
        p.error(f"--seed: expected 0 or more; found {args.seed}")
    if not args.split.strip():
        p.error("--split: expected a name; found none")
    if args.csv_root and not args.csv_root.is_dir():
        p.error(f"--csv_root: expected a folder; found {args.csv_root}")


def write_table(path: Path, columns: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    """Writes a CSV, whole or not at all."""
    from engine.files import replacing
    from engine.table import TableWriter

    with replacing(path) as temporary, TableWriter(temporary, columns, [], False) as writer:
        for row in rows:
            writer.append([row])


def report(
    listing: Listing, start: Path, output: Path, bad: Mapping[str, str], decoding: str
) -> None:
    """Path on standard output; counts, how pictures were decoded, where paths start, and what was
    left out, on standard error."""
    counts = Counter(record.label for key, record in listing.chosen.items() if key not in bad)
    done = f"{listing.split} {counts[Label.REAL]} real, {counts[Label.FAKE]} synthetic augmented"
    done += f", decoded as data.decoding={decoding}"
    if listing.others:
        done += f"; {listing.others:,} rows of other splits kept"
    if start != output:
        done += f"; paths start from {start}: give it as --csv_root"
    print(f"{PROGRAM}: {visible(done)}", file=sys.stderr)
    if bad:
        names = some(f"{visible(key)} ({reason})" for key, reason in bad.items())
        print(f"{PROGRAM}: {len(bad):,} pictures could not be read: {names}", file=sys.stderr)
    print(output / TABLE)


def run(args: argparse.Namespace) -> int:
    """Augments what the command line names. Returns the exit status."""
    from engine.config import data_options
    from engine.listing import listing_digest
    from engine.run import RUN, begin, open_output

    decoding = data_options(args.set).decoding or PUBLISHED
    listing = read(args)
    args.output = args.output.resolve()
    start = start_of_paths(listing, args.output)
    own = prefix(args.output, start)
    others = prefix(listing.base, start) if listing.others else ""
    views = views_in(args.output)
    owned = [RUN, TABLE, BAD_FILES, *views]
    with open_output(args.output, owned, args.resume, args.overwrite):
        for name in views:
            if (match := VIEW.fullmatch(name)) and match["part"]:
                (args.output / name).unlink(missing_ok=True)
        same = {
            "seed": args.seed,
            "views": args.views,
            "split": args.split,
            "decoding": decoding,
            "listing": listing_digest(list(listing.chosen.values())),
        }
        info = {"command": sys.argv, **same}
        begin(args.output, info, args.resume, list(same), views[0] if views else TABLE)
        bad = write_views(listing, args, decoding)
        (args.output / BAD_FILES).unlink(missing_ok=True)
        if bad:
            write_table(args.output / BAD_FILES, ["key", "error"], map(list, sorted(bad.items())))
        if len(bad) == len(listing.chosen):
            raise LayoutError(
                f"{args.input}: expected readable pictures; found none of {len(bad):,}: see "
                f"{args.output / BAD_FILES}"
            )
        rows = table(listing, args.views, bad, own, others)
        write_table(args.output / TABLE, listing.columns, rows)
    report(listing, start, args.output, bad, decoding)
    return UNREADABLE if bad else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)
    from engine.config import ConfigError

    return answer(PROGRAM, lambda: run(args), (LayoutError, ConfigError, OSError))


if __name__ == "__main__":
    sys.exit(main())
