"""Writes CSV files in SPAI's form, image,class,split, from folders of pictures.

    python scripts/make_csv.py folder data/mine --output data/mine.csv --val_fraction 0.1
    python scripts/make_csv.py ldm data --coco data/COCO --lsun data/train/progan --output data
    python scripts/make_csv.py ldm data --coco data/COCO --reduced study --output data
    python scripts/make_csv.py synthbuster data/spai/synthbuster --raise data/spai/raise \
        --output data/spai

class is 1 for synthetic and 0 for real; generator and source are columns where they are known.
Paths start from the CSV's own folder, or from --relative_to, which main.py takes as --csv_root.
Only names and sizes are looked at: what a CSV cannot name and what has no bytes is left out, with
a warning. Standard output has the paths of the CSV files, standard error their counts.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import Label, LayoutError, Record, ldm, load, walk_pictures  # noqa: E402
from datasets._csv import found_columns, read_csv  # noqa: E402
from datasets._layout import unexpected  # noqa: E402
from datasets._paths import relative, split_depths, split_named, visible  # noqa: E402
from datasets._published_lists import published_rows  # noqa: E402
from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import number, share  # noqa: E402
from scripts._csv_rows import MISSING, Namer, Row  # noqa: E402
from scripts._shared import answer, new_parser, say, some, tell_left_out, write_rows  # noqa: E402

PROGRAM = "make_csv.py"
LEFT_OUT = 1
SPLITS = ("train", "val", "test")
LABELS = {"real": Label.REAL, "fake": Label.FAKE}
LDM_GENERATORS = 7
# Published reduced training sets, by the names of their lists in data/lists/.
REDUCED = {"study": "study_reduced"}
# SPAI's names of Synthbuster's folders.
SYNTHBUSTER = {
    "dalle2": "dalle2", "dalle3": "dalle3", "firefly": "firefly", "glide": "glide",
    "midjourney-v5": "mjv5", "stable-diffusion-1-3": "sd13", "stable-diffusion-1-4": "sd14",
    "stable-diffusion-2": "sd2", "stable-diffusion-xl": "sdxl",
}  # fmt: skip
# Synthbuster's list of prompts, which were written about pictures of RAISE-1k.
PROMPTS, PROMPTED = "prompts.csv", "image name (matching Raise-1k)"
TIFF = (".tif", ".tiff")
Tables = Mapping[Path, Sequence[Row]]
Files = Callable[[argparse.Namespace], list[Path]]


# --- any folder


def stated_splits(records: Sequence[Record]) -> list[str]:
    """The split of each picture that one of its folders names; `test` where none does. Raises
    LayoutError where only some of them are below a folder named after a split."""
    folders = [PurePosixPath(record.key).parts[:-1] for record in records]
    depths = split_depths(folders)
    if not depths:
        return ["test"] * len(records)
    for record, parts in zip(records, folders, strict=True):
        if parts not in depths:
            raise LayoutError(
                f"{record.key!r}: expected all pictures below {', '.join(SPLITS)}, or none; "
                "found some: use --split or --val_fraction"
            )
    return [split_named(parts[depths[parts]]) for parts in folders]


def drawn_splits(records: Sequence[Record], fraction: float, seed: int) -> list[str]:
    """`val` for about `fraction` of each generator and each source of reals, `train` for others."""
    from datasets._splits import hold_out

    # The draw hashes keys, so a seed in front of them makes it another one.
    salted = [replace(record, key=f"{seed}/{record.key}") for record in records]
    held = {record.path for record in hold_out(salted, fraction)[1]}
    return ["val" if record.path in held else "train" for record in records]


def folder_tables(args: argparse.Namespace, namer: Namer) -> Tables:
    """The table of any folder. Raises LayoutError where its pictures have no label or split."""
    listed = load("folder").records(args.folder.resolve(), labelled=args.label == "auto")
    names = namer.take([record.path for record in listed])
    records = [record for record in listed if record.path in names]
    if args.val_fraction is not None:
        splits = drawn_splits(records, args.val_fraction, args.seed or 0)
    else:
        splits = [args.split] * len(records) if args.split else stated_splits(records)
    rows = []
    for record, split in zip(records, splits, strict=True):
        label = Label(LABELS.get(args.label, record.label))
        generator = (args.generator or record.generator) if label == Label.FAKE else ""
        rows.append(Row(names[record.path], label, split, generator, record.source))
    return {args.output: rows}


# --- data sets


def ldm_files(args: argparse.Namespace) -> list[Path]:
    """The file of the rows: another one for each variant of the set."""
    variant = "ldm_reduced" if args.reduced else "ldm" if args.lsun else "ldm_coco"
    return [args.output / f"{variant}_train_val.csv"]


def listed_names(where: str, paths: Sequence[Path], namer: Namer) -> dict[Path, str]:
    """The usable ones of listed pictures, each with its name. Raises LayoutError where some of them
    do not exist."""
    names = namer.take(paths)
    if missing := [n for n in map(namer.name, paths) if namer.left_out.get(n) == MISSING]:
        raise LayoutError(
            f"{where}: expected the {len(paths):,} listed pictures; found {len(missing):,} "
            f"missing, first {missing[0]!r}"
        )
    return names


def ldm_rows(root: Path, split: str, parts: Mapping[str, str], namer: Namer) -> list[Row]:
    """Rows of all pictures of a split.

    Args:
        root: of the set.
        split: train or val.
        parts: folders of real pictures by the set that they are part of.
        namer: names the pictures.

    Raises:
        LayoutError: other than seven generators, a listed picture that is not there, or none.
    """
    groups: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
    for record in load("ldm").records(root, split, parts):
        source = "" if record.generator else record.key.split("/")[0]
        groups[record.generator, source].append(record.path)
    generators = [generator for generator, _ in groups if generator]
    if len(generators) != LDM_GENERATORS:
        wanted = f"{LDM_GENERATORS} folders of synthetic pictures in {split}/"
        raise unexpected(root, wanted, f"{len(generators)}: {some(generators)}")
    rows: list[Row] = []
    for (generator, source), paths in groups.items():
        where = f"{root}, {split}, {generator or source}"
        names = listed_names(where, paths, namer).values()
        if not names:
            raise LayoutError(f"{where}: expected pictures; found none")
        label = Label.FAKE if generator else Label.REAL
        rows += [Row(image, label, split, generator, source) for image in names]
    return rows


def reduced_rows(name: str, root: Path, coco: Path, namer: Namer) -> list[Row]:
    """Rows of just the pictures of a published reduced set.

    Args:
        name: of the set, a key of REDUCED.
        root: of the whole set.
        coco: where its real pictures are.
        namer: names the pictures.

    Raises:
        LayoutError: one of them is not there.
    """
    start = root / ldm.NAME if (root / ldm.NAME).is_dir() else root
    reals = ldm.real_folder("coco", coco)
    rows: dict[Path, Row] = {}
    for image, value, split in published_rows(REDUCED[name]):
        *_, folder, file = image.split("/")
        if value == "1":
            fakes = ldm.split_folder(start, split) or start / split
            rows[fakes / folder / file] = Row(image, Label.FAKE, split, generator=folder)
        else:
            rows[reals / file] = Row(image, Label.REAL, split, source="coco")
    names = listed_names(f"{start}, {coco}", list(rows), namer)
    return [replace(rows[path], image=image) for path, image in names.items()]


def ldm_tables(args: argparse.Namespace, namer: Namer) -> Tables:
    """The table of the latent diffusion training set. Raises LayoutError where it is not whole, or
    a real picture is listed for both splits."""
    pools = {"coco": args.coco, "lsun": args.lsun}
    parts = {name: str(pool.resolve()) for name, pool in pools.items() if pool}
    root = args.root.resolve()
    if args.reduced:
        rows = reduced_rows(args.reduced, root, args.coco.resolve(), namer)
        return dict.fromkeys(ldm_files(args), rows)
    rows = [row for split in ldm.SPLITS for row in ldm_rows(root, split, parts, namer)]
    twice = [name for name, count in Counter(row.image for row in rows).items() if count > 1]
    if twice:
        raise LayoutError(
            f"{root}: expected each real picture in train or val; found {len(twice):,} listed for "
            f"both, first {twice[0]!r}"
        )
    return dict.fromkeys(ldm_files(args), rows)


def prompted_names(file: Path) -> list[str]:
    """Names of the pictures of RAISE-1k that Synthbuster's prompts describe, each once. Raises
    LayoutError for no such file, no such column or no name in it, or a path in a name's place."""
    what = "Synthbuster's list of prompts, which names pictures of RAISE-1k"
    columns, rows = read_csv(file, what)
    if PROMPTED not in columns:
        raise unexpected(file, f"a column {PROMPTED!r}", found_columns(columns))
    names = [name for name in dict.fromkeys(row[PROMPTED].strip() for row in rows) if name]
    if not names:
        raise unexpected(file, f"names in the column {PROMPTED!r}", "none")
    for name in names:
        if "/" in relative(name, file):
            raise unexpected(file, "names of pictures", repr(name))
    return names


def prompted_pictures(file: Path, folder: Path) -> list[Path]:
    """The TIFFs below `folder` that the prompts in `file` describe; of a missing one, the path
    where it was expected. Raises LayoutError where none is named or there, or one is there twice.
    """
    names = prompted_names(file)
    wanted = {name.casefold() for name in names}
    files: dict[str, Path] = {}
    for path in walk_pictures(folder):
        stem = path.stem.casefold()
        if path.suffix.lower() not in TIFF or stem not in wanted:
            continue
        if stem in files:
            both = f"{files[stem]} and {path}"
            raise LayoutError(f"{folder}: expected one {path.stem}; found {both}")
        files[stem] = path
    if not files:
        raise unexpected(folder, f"the TIFFs of RAISE-1k that {file} names, as {names[0]}.tif")
    return [files.get(name.casefold(), folder / f"{name}.tif") for name in names]


def synthbuster_root(args: argparse.Namespace) -> Path:
    """The folder of its generators."""
    inner: Path = args.root / "synthbuster"
    return inner if inner.is_dir() else args.root


def synthbuster_files(args: argparse.Namespace) -> dict[Path, tuple[Path, Label]]:
    """Folder and label of the pictures of each CSV."""
    root = synthbuster_root(args)
    sources = {f"fake_{name}": (root / at, Label.FAKE) for at, name in SYNTHBUSTER.items()}
    sources |= {f"real_{name}": (folder, Label.REAL) for name, folder in reals(args)}
    return {args.output / f"{name}.csv": source for name, source in sources.items()}


def reals(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Name and folder of each source of real pictures."""
    return args.reals + ([("raise", args.raise_1k)] if args.raise_1k else [])


def synthbuster_tables(args: argparse.Namespace, namer: Namer) -> Tables:
    """A table per generator and per folder of real pictures. Of RAISE, only what was described to
    the generators: each of its pictures has a counterpart by all of them. Raises LayoutError where
    a folder is missing or has no pictures."""
    tables = {}
    for file, (folder, label) in synthbuster_files(args).items():
        if not folder.is_dir() and label == Label.REAL:
            raise unexpected(folder, "a folder of real pictures")
        if not folder.is_dir():
            raise unexpected(folder.parent, f"the folders {', '.join(SYNTHBUSTER)}")
        if args.raise_1k and file.name == "real_raise.csv":
            paths = prompted_pictures(synthbuster_root(args) / PROMPTS, folder.resolve())
        else:
            paths = list(walk_pictures(folder.resolve()))
        names = namer.take(paths)
        if not names:
            raise unexpected(folder, "pictures")
        tables[file] = [Row(name, label, "test") for name in names.values()]
    return tables


# --- the command line


def named_folder(text: str) -> tuple[str, Path]:
    """For argparse: NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if not folder or not re.fullmatch(r"[\w.-]+", name):
        raise argparse.ArgumentTypeError(
            f"expected NAME=FOLDER, the name of letters, digits and ._-; found {text!r}"
        )
    return name, Path(folder)


def add_folder(p: Parser) -> None:
    """The flags of the command `folder`."""
    p.add_argument("folder", type=Path, metavar="FOLDER", help="the pictures")
    p.add_argument("--output", type=Path, metavar="FILE", required=True, help="the .csv file")
    p.add_argument("--label", choices=("auto", *LABELS), default="auto",
                   help="of all pictures; auto: as folders are named (%(default)s)")  # fmt: skip
    how = p.add_mutually_exclusive_group()
    how.add_argument("--split", metavar="NAME", help="of all pictures (their folder, else test)")
    how.add_argument("--val_fraction", type=share, metavar="X",
                     help="draw this part of each generator and each source of reals as val, the "
                     "rest is train")  # fmt: skip
    p.add_argument("--seed", type=number(int, 0), metavar="N", help="of --val_fraction's draw (0)")
    p.add_argument("--generator", metavar="NAME", help="of all fakes (their folder)")


def add_ldm(p: Parser) -> None:
    """The flags of the command `ldm`."""
    p.add_argument("root", type=Path, metavar="ROOT", help="where the set is")
    p.add_argument("--output", type=Path, metavar="DIR", required=True, help="the CSV's folder")
    p.add_argument("--coco", type=Path, metavar="DIR", required=True,
                   help="COCO, which has train2017/")  # fmt: skip
    which = p.add_mutually_exclusive_group()
    which.add_argument("--lsun", type=Path, metavar="DIR",
                       help="CNNDet, which has train/<category>/0_real/; left out: no pictures of "
                       "LSUN")  # fmt: skip
    which.add_argument("--reduced", choices=sorted(REDUCED),
                       help="only the pictures of a published reduced set; study: 17,997 real, "
                       "17,997 synthetic")  # fmt: skip


def add_synthbuster(p: Parser) -> None:
    """The flags of the command `synthbuster`."""
    p.add_argument("root", type=Path, metavar="ROOT", help="where its folders are")
    p.add_argument("--output", type=Path, metavar="DIR", required=True, help="for the CSVs")
    p.add_argument("--reals", type=named_folder, nargs="+", default=[], metavar="NAME=FOLDER",
                   help="folders of real pictures, each for a real_NAME.csv")  # fmt: skip
    p.add_argument("--raise", dest="raise_1k", type=Path, metavar="DIR",
                   help="RAISE-1k: its TIFFs named in prompts.csv, for real_raise.csv")  # fmt: skip


# Help, flags, files that are written, and their tables.
COMMANDS: dict[str, tuple[str, Callable[[Parser], None], Files, Callable[..., Tables]]] = {
    "folder": ("any folder of pictures", add_folder, lambda args: [args.output], folder_tables),
    "ldm": ("SPAI's latent diffusion training set", add_ldm, ldm_files, ldm_tables),
    "synthbuster": ("a CSV per generator of Synthbuster", add_synthbuster,
                    lambda args: list(synthbuster_files(args)), synthbuster_tables),
}  # fmt: skip


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but some pictures were left out; 2 wrong usage or data"
    p = new_parser(PROGRAM, __doc__, status)
    commands = p.add_subparsers(dest="command", required=True)
    for name, (text, add, *_) in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        add(command)
        command.add_argument("--relative_to", type=Path, metavar="DIR",
                             help="the folder that paths start from (the CSV's own)")  # fmt: skip
        command.add_argument("--overwrite", action="store_true", help="replace files of that name")
    return p


def check(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program for values that no picture can change."""
    if args.relative_to and not args.relative_to.is_dir():
        p.error(f"--relative_to: expected a folder; found {args.relative_to}")
    if args.command == "folder":
        if args.output.suffix.lower() != ".csv":
            p.error(f"--output: expected a name that ends in .csv; found {args.output}")
        if args.seed is not None and args.val_fraction is None:
            p.error("--seed: expected --val_fraction too; found none")
        if args.generator and args.label == "real":
            p.error("--generator: expected fakes; found --label real")
        for flag, text in (("--split", args.split), ("--generator", args.generator)):
            if text is not None and not (text and text.isprintable()):
                p.error(f"{flag}: expected a printable name; found {text!r}")
    elif args.output.exists() and not args.output.is_dir():
        p.error(f"--output: expected a folder; found {args.output}")
    if args.command == "synthbuster":
        twice = [n for n, count in Counter(n for n, _ in reals(args)).items() if count > 1]
        if twice:
            p.error(f"--reals: expected each name once; found {', '.join(twice)} twice")


def write(tables: Tables) -> None:
    """Writes the tables, rows sorted, columns that are empty throughout left out; all or none."""
    from engine.runtime.files import replacing

    with ExitStack() as waiting:
        for path, unsorted in tables.items():
            rows = sorted(unsorted, key=lambda row: row.image)
            known = [k for k in ("generator", "source") if any(getattr(row, k) for row in rows)]
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = waiting.enter_context(replacing(path))
            cells = ([row.image, int(row.label), row.split, *(getattr(row, k) for k in known)]
                     for row in rows)  # fmt: skip
            write_rows(temporary, ["image", "class", "split", *known], cells)


def report(tables: Tables, left_out: Mapping[str, str]) -> None:
    """Paths on standard output; counts, and what was left out, on standard error."""
    for path, rows in tables.items():
        counts = Counter((row.split, row.label) for row in rows)
        parts = [f"{split} {counts[split, Label.REAL]} real, {counts[split, Label.FAKE]} synthetic"
                 for split in sorted({split for split, _ in counts})]  # fmt: skip
        say(PROGRAM, f"{visible(path.name)}: {'; '.join(parts)}")
        print(path)
    tell_left_out(PROGRAM, left_out)


def run(args: argparse.Namespace) -> int:
    """The exit status of a command, whose CSV files are written."""
    _, _, files_of, make_tables = COMMANDS[args.command]
    files = files_of(args)
    if (present := [str(file) for file in files if file.exists()]) and not args.overwrite:
        raise LayoutError(f"{some(present)}: already there: use --overwrite or another --output")
    namer = Namer((args.relative_to or files[0].parent).resolve())
    tables = make_tables(args, namer)
    if empty := [path for path, rows in tables.items() if not rows]:
        raise LayoutError(f"{empty[0]}: expected pictures; all {len(namer.left_out)} are left out")
    write(tables)
    report(tables, namer.left_out)
    return LEFT_OUT if namer.left_out else 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)
    return answer(PROGRAM, lambda: run(args), (LayoutError, OSError))


if __name__ == "__main__":
    sys.exit(main())
