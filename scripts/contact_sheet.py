"""Draws a sheet of thumbnails per generator and per source of real pictures, and a page of them.

    python scripts/contact_sheet.py --benchmark genimage --output runs/sheets
    python scripts/contact_sheet.py --data set.csv --output runs/sheets --count 100 --seed 1

A sheet shows pictures from all over its part of the set, in the order of their names: the seed says
which. They are upright; --set data.decoding=published shows what detectors see on a benchmark. DIR
gets a JPEG per sheet, and index.html, which has all thumbnails in it and needs no other file.
Standard output has the path of the page, everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from datasets import Label, LayoutError, Record, open_path  # noqa: E402
from engine.cli import machine  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import listed, number  # noqa: E402
from engine.cli.parser import add_decoding, benchmarks  # noqa: E402
from engine.runtime.text import distinct  # noqa: E402
from scripts._shared import answer, new_parser, some, tell_left_out  # noqa: E402

if TYPE_CHECKING:
    from engine.config import DataOptions
    from engine.reporting.picture_scores import PictureScores
    from engine.reporting.thumbnails import Tile

PROGRAM = "contact_sheet.py"
UNREADABLE = 1
PAGE, SCORES = "index.html", "scores.png"
MEGAPIXELS = 64
LONGEST_SIDE = 65_500  # of a JPEG
KINDS = ("synthetic", "real", "unlabelled")


@dataclass(frozen=True, order=True)
class Group:
    """The pictures of one sheet: a generator's, a source's, or a folder's where no label is known.

    `kind` is an index of KINDS.
    """

    kind: int
    name: str

    @property
    def title(self) -> str:
        """For people."""
        return self.name or ("real" if KINDS[self.kind] == "real" else "pictures")

    def file_name(self) -> str:
        """A name that any file system takes, not yet unique."""
        prefix = ("fake", "real", "pictures")[self.kind]
        plain = re.sub(r"[^\w.@+-]+", "_", self.name, flags=re.ASCII).strip("._")[:80]
        return f"{prefix}_{plain}" if plain else prefix


def group_of(record: Record) -> Group:
    """The sheet that shows a picture."""
    if record.label is None:
        parts = PurePosixPath(record.key).parts
        return Group(KINDS.index("unlabelled"), parts[0] if len(parts) > 1 else "")
    if record.label == Label.FAKE:
        return Group(KINDS.index("synthetic"), record.generator)
    return Group(KINDS.index("real"), record.source)


def grouped(records: Sequence[Record]) -> dict[Group, list[Record]]:
    """Records by sheet: generators, sources of reals, folders, each sorted by name."""
    groups: defaultdict[Group, list[Record]] = defaultdict(list)
    for record in records:
        groups[group_of(record)].append(record)
    return dict(sorted(groups.items()))


def file_names(groups: Sequence[Group]) -> dict[Group, str]:
    """A file for each sheet, distinct also where the case of letters does not count."""
    stems = distinct([group.file_name() for group in groups])
    return {group: f"{stem}.jpg" for group, stem in zip(groups, stems, strict=True)}


def drawn(records: Sequence[Record], count: int, seed: int, name: str) -> list[Record]:
    """At most `count` of the records, in their order: one at random of each of `count` equal
    stretches, so that every part of a set is seen."""
    import numpy as np

    if len(records) <= count:
        return list(records)
    edges = [number * len(records) // count for number in range(count + 1)]
    salt = zlib.crc32(name.encode("utf-8", "surrogateescape"))
    indices = np.random.default_rng((seed, salt)).integers(edges[:-1], edges[1:])
    return [records[index] for index in indices]


# --- the page


@dataclass(frozen=True)
class Sheet:
    """One sheet of the page: `file` is its JPEG, `shown` its pictures with their thumbnails."""

    id: str
    title: str
    counts: str
    file: str
    shown: Sequence[tuple[Record, Tile]]


def page(name: str, groups: Sequence[Group], sheets: Iterator[Sheet], size: int) -> Iterator[str]:
    """The page, piece by piece.

    Args:
        name: what the pictures are of.
        groups: those of the sheets, in their order.
        sheets: gone through once, as the pieces are.
        size: of a thumbnail, in pixels.
    """
    from engine.reporting.document import page_pieces, style
    from engine.reporting.thumbnails import jpeg

    links: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for index, group in enumerate(groups):
        links[KINDS[group.kind]][f"sheet{index}"] = group.title
    styles = style("page.css") + style("contact_sheet.css", size=size)
    values: dict[str, Any] = {"links": links, "sheets": sheets, "jpeg": jpeg}
    return page_pieces("contact_sheet.j2", f"Pictures of {name}", styles, **values)


# --- the command line


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but some pictures could not be read; 2 wrong usage or data"
    p = new_parser(PROGRAM, __doc__, status)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data", type=Path, metavar="PATH",
        help="a folder, an archive, or a CSV with image[,class,split,generator,source]",
    )  # fmt: skip
    what.add_argument("--benchmark", choices=benchmarks(), metavar="NAME",
                      help=f"one of {', '.join(benchmarks())}")  # fmt: skip
    p.add_argument("--data_root", type=Path, metavar="DIR",
                   help="where the benchmark lies (its place below data/)")  # fmt: skip
    p.add_argument("--sources", type=listed, default=[], metavar="A,B",
                   help="only these of the benchmark's")  # fmt: skip
    p.add_argument("--csv_root", type=Path, metavar="DIR",
                   help="folder or LMDB that a CSV's paths start from (the CSV's own)")  # fmt: skip
    p.add_argument("--output", type=Path, required=True, metavar="DIR", help="for page and sheets")
    for flag, kind, default, text in (
        ("--count", number(int, 1, 1000), 40, "pictures a sheet (40)"),
        ("--columns", number(int, 1, 100), 8, "of a sheet (8)"),
        ("--size", number(int, 32, 1024), 160, "of a thumbnail, pixels (160)"),
        ("--seed", number(int, 0), 0, "of the choice (0)"),
    ):
        p.add_argument(flag, type=kind, default=default, metavar="N", help=text)
    p.add_argument(
        "--set", action="append", default=[], metavar="data.KEY=VALUE",
        help="an option of the data, as main.py has it: decoding=published, mscoco=DIR, split=NAME",
    )  # fmt: skip
    p.add_argument("--scores", nargs="+", type=Path, default=[], metavar="CSV",
                   help="scores of the pictures, as aesthetic ones: sheets are sorted by them and "
                   f"say them, {SCORES} has their distributions; a column image, path or the like, "
                   "and one of numbers")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace files that are there")
    add_decoding(p)
    return p


def check(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program for values that no data can change."""
    from engine.reporting.thumbnails import sheet_size

    if args.data and (args.data_root or args.sources):
        p.error("--data_root, --sources: expected --benchmark too; found --data")
    if args.benchmark and args.csv_root:
        p.error("--csv_root: expected --data too; found --benchmark")
    width, height = sheet_size(args.count, args.columns, args.size)
    if width * height > MEGAPIXELS * 10**6 or max(width, height) > LONGEST_SIDE:
        most = f"at most {MEGAPIXELS} megapixels and {LONGEST_SIDE} pixels a side"
        flags = "--count, --columns, --size"
        p.error(f"{flags}: expected a sheet of {most}; found {width} x {height}")
    if args.output.exists() and not args.output.is_dir():
        p.error(f"--output: expected a folder; found {args.output}")


def drawn_sheets(
    args: argparse.Namespace,
    groups: Mapping[Group, Sequence[Record]],
    decoding: str,
    unreadable: dict[str, str],
    scores: PictureScores,
) -> Iterator[Sheet]:
    """The sheets one after another, so that one's thumbnails are in memory at a time.

    Args:
        args: the command line; a JPEG of each sheet is written into its --output.
        groups: the pictures to choose from.
        decoding: how pictures are decoded.
        unreadable: takes what is wrong with the pictures that cannot be read, by key.
        scores: that pictures are sorted by; of none their order stays.
    """
    from engine.reporting.thumbnails import Tile, jpeg, sheet, thumbnails
    from engine.runtime.files import write_file
    from engine.runtime.progress import Progress

    chosen = {g: drawn(held, args.count, args.seed, g.name) for g, held in groups.items()}
    files = file_names(list(groups))
    with Progress(sum(map(len, chosen.values())), "drawing") as progress:
        for index, (group, unsorted) in enumerate(chosen.items()):
            records = scores.by_score(unsorted)
            workers = machine.workers(args, len(records), decoding)
            shown: list[tuple[Record, Tile]] = []
            for record, item in zip(records, thumbnails(records, args.size, workers), strict=True):
                score = scores.score(record)
                said = "" if score is None else f"{score:.3g}, "
                note = item.error or f"{said}{item.width} x {item.height}"
                shown.append((record, Tile(item.value, PurePosixPath(record.key).name, note)))
                progress.advance(1)
            picture = sheet([tile for _, tile in shown], args.columns, args.size)
            write_file(args.output / files[group], jpeg(picture))
            unreadable |= {record.key: tile.note for record, tile in shown if tile.image is None}
            counts = f"{KINDS[group.kind]}, {len(shown):,} of {len(groups[group]):,} pictures"
            yield Sheet(f"sheet{index}", group.title, counts, files[group], shown)


def write(
    args: argparse.Namespace, groups: Mapping[Group, Sequence[Record]], decoding: str
) -> dict[str, str]:
    """Faults of the pictures that cannot be read, by key; writes sheets and page."""
    from engine.reporting.picture_scores import PictureScores, distributions
    from engine.runtime.files import replacing, write_file

    unreadable: dict[str, str] = {}
    name = args.benchmark or args.data.resolve().name
    scores = PictureScores(args.scores)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.scores:
        named = {g.title: list(map(scores.score, held)) for g, held in groups.items()}
        known = {title: [v for v in values if v is not None] for title, values in named.items()}
        if not any(known.values()):
            raise LayoutError(f"--scores: expected scores of these pictures; found none of {name}")
        write_file(args.output / SCORES, distributions(known))
    with (
        replacing(args.output / PAGE) as path,
        path.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        sheets = drawn_sheets(args, groups, decoding, unreadable, scores)
        stream.writelines(page(name, list(groups), sheets, args.size))
    return unreadable


def records_of(args: argparse.Namespace, options: DataOptions) -> list[Record]:
    """The pictures that the command line names."""
    if args.data is not None:
        return open_path(args.data, options.split, labelled=False, csv_root=args.csv_root)
    from engine.evaluation import benchmark as benchmarks

    chosen = benchmarks.load(args.benchmark)
    locations = options.locations
    return benchmarks.records(chosen, args.data_root, options.split, locations, args.sources)


def run(args: argparse.Namespace) -> int:
    """The exit status of drawing what the command line asks for."""
    from datasets._limits import UPRIGHT
    from engine.config import data_options

    options = data_options(args.set)
    groups = grouped(records_of(args, options))
    files = file_names(list(groups)).values()
    present = [name for name in (PAGE, SCORES, *files) if (args.output / name).exists()]
    if present and not args.overwrite:
        what = f"{some(present)}: already there: use --overwrite or another --output"
        raise LayoutError(f"{args.output}: {what}")
    unreadable = write(args, groups, options.decoding or UPRIGHT)
    print(args.output / PAGE)
    tell_left_out(PROGRAM, unreadable, "could not be read")
    return UNREADABLE if unreadable else 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)
    from engine.config import ConfigError

    return answer(PROGRAM, lambda: run(args), (LayoutError, ConfigError, OSError))


if __name__ == "__main__":
    sys.exit(main())
