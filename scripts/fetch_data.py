"""Brings the pictures of a data set to this machine, into the folders that main.py looks in.

    python scripts/fetch_data.py --list
    python scripts/fetch_data.py cospy_bench --list
    python scripts/fetch_data.py cospy_bench --generators real,runwayml@stable-diffusion-v1-5
    python scripts/fetch_data.py genimage --extract ~/Downloads/imagenet_ai_0508_adm.zip
    python scripts/fetch_data.py --urls lexica.txt --output data/in_the_wild/Lexica

Standard output has the folders, everything else goes to standard error. Downloads and unpacking go
on where they stopped. HF_ENDPOINT says which mirror of the hub to ask, HF_HOME where its cache and
log-in are. configs/sources.yaml has where everything comes from and goes to.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.cli.argument_parser import Parser  # noqa: E402
from engine.cli.arguments import listed, number  # noqa: E402
from engine.runtime.program import USAGE  # noqa: E402
from engine.runtime.text import columns, size_text  # noqa: E402
from scripts._shared import SAME_COMMAND, answer, new_parser, say  # noqa: E402

if TYPE_CHECKING:
    from engine.fetching.catalogue import Family
    from engine.fetching.ledger import Ledger
    from engine.fetching.plan import Choice, FetchItem

PROGRAM = "fetch_data.py"
FAILED = 1
REAL = "real"
FAMILIES = ("family", "where", "title", "folder")
FILES = ("file", "parts", "size", "generator", "source", "there", "where", "folder")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def size(text: str) -> int:
    """Bytes of 500GB, 1.5T, 1000000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise argparse.ArgumentTypeError(f"expected a size such as 500GB; found {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def parser() -> Parser:
    """The command line."""
    status = "0 done; 1 done, but something could not be brought, or is to be brought by hand, one "
    status += "line each; 2 wrong usage, or nothing could be done, and the same command goes on"
    p = new_parser(PROGRAM, __doc__, status)
    p.add_argument("family", nargs="?", metavar="FAMILY", help="--list shows the names")
    p.add_argument("--list", action="store_true", help="what there is, and what is here already")
    p.add_argument("--generators", type=listed, metavar="A,B",
                   help="only these; `real` for real pictures")  # fmt: skip
    p.add_argument("--sources", type=listed, metavar="A,B", help="only these sources of captions")
    p.add_argument("--root", type=Path, metavar="DIR", help="another folder than the default one")
    p.add_argument("--extract", type=Path, nargs="+", metavar="PATH",
                   help="unpack archives that you downloaded, or folders of them; they "
                   "stay")  # fmt: skip
    p.add_argument("--keep_archives", action="store_true", help="do not delete what was downloaded")
    p.add_argument("--max_size", type=size, metavar="SIZE",
                   help="most that an archive may unpack to (500GB), or a picture of --urls may "
                   "have (20M)")  # fmt: skip
    p.add_argument("--dry_run", action="store_true", help="say what would be done, and do nothing")
    add_list(p)
    return p


def add_list(p: Parser) -> None:
    """The flags of lists of addresses."""
    group = p.add_argument_group("pictures by a list of their addresses")
    group.add_argument("--urls", metavar="LIST",
                       help="a file or its address: an address a line, or a caption, a tab and an "
                       "address, or a .csv; DIR/addresses.csv gets what became of "
                       "each")  # fmt: skip
    group.add_argument("--output", type=Path, metavar="DIR", help="where the pictures go")
    group.add_argument("--limit", type=number(int, 1), metavar="N",
                       help="only the first N lines of the list")  # fmt: skip
    group.add_argument("--pace", type=number(float, 0, 3600), default=0.5, metavar="SECONDS",
                       help="pause between two pictures of a host (%(default)s)")  # fmt: skip
    group.add_argument("--retry", action="store_true", help="ask for dead ones again, too")
    group.add_argument("--private", action="store_true",
                       help="also hosts of private networks, as your own")  # fmt: skip


def check_usage(p: Parser, args: argparse.Namespace) -> None:
    """Ends the program over flags that do not go together."""
    given = {name for name, value in vars(args).items() if value != p.get_default(name)}
    of_list = {"urls", "output", "limit", "pace", "retry", "private"}
    if args.urls:
        if others := sorted(given - of_list - {"max_size"}):
            p.error(f"--urls: expected without {', '.join(others)}")
        if args.output is None:
            p.error("--urls: expected --output DIR, too")
    elif alone := sorted(given & of_list):
        p.error(f"--{alone[0]}: expected --urls LIST, too")
    elif args.family is None and given != {"list"}:
        p.error("expected FAMILY, or --list alone")
    elif args.list and (args.extract or args.dry_run):
        p.error("--list: expected without --extract and --dry_run")


def run_list(args: argparse.Namespace) -> int:
    """The exit status of bringing the pictures of a list of addresses."""
    from engine.fetching.addresses import AWAY, DEAD, HERE, TABLE, Manners, bring_all, read_list
    from engine.fetching.ledger import locked

    manners = Manners(args.pace, args.private, args.max_size or Manners.max_size)
    addresses = read_list(args.urls, args.limit)
    with locked(args.output):
        counts = bring_all(addresses, args.output, manners, args.retry)
    print(args.output)
    pictures = f"{counts[HERE]} pictures, {counts[DEAD]} dead, {counts[AWAY]} of hosts that are"
    table = args.output / TABLE
    say(PROGRAM, f"{len(addresses)} addresses: {pictures} away: {table} names each")
    return status(counts[DEAD] + counts[AWAY], 0, counts[HERE] > 0)


def families() -> list[str]:
    """All families, a line each under a header."""
    from engine.fetching.catalogue import HAND, read_sources

    rows = [FAMILIES]
    for name, family in read_sources().items():
        origins = [str(origin) for origin in family.origins]
        if any(entry.origin.kind == HAND for entry in family.files):
            origins.append("by hand")
        rows.append((name, ", ".join(origins), family.title, shown(family.root)))
    return columns(rows)


def shown(path: Path) -> str:
    """A path, short where it is below the project."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def table(items: list[FetchItem], root: Path, ledger: Ledger, choice: Choice) -> list[str]:
    """Items, a line each under a header."""
    rows = [FILES]
    for item in items:
        rows.append(
            (
                item.name, str(len(item.labels())), size_text(item.size), item.generator or "-",
                ",".join(item.sources) or "-", ledger.state(item, choice.only(item.entry)),
                str(item.entry.origin), shown(root / item.into),
            )
        )  # fmt: skip
    return columns(rows)


def wanted_items(
    args: argparse.Namespace, family: Family, root: Path, choice: Choice
) -> tuple[list[FetchItem], int]:
    """Items that the command line is about, and the number of origins that did not list theirs."""
    from engine.fetching.plan import brought, choose, lying_there, offered

    if args.extract:
        return choose(family, brought(family, args.extract), choice), 0
    items, failures = offered(family, choice)
    for failure in failures:
        say(PROGRAM, failure)
    items += lying_there(family, root)
    return choose(family, items, choice, all_known=not failures), len(failures)


def bring_items(
    items: list[FetchItem], root: Path, ledger: Ledger, choice: Choice, args: argparse.Namespace
) -> int:
    """The number of items that could not be brought; prints the folders of the others."""
    from engine.fetching.download import FetchError, UnreachableError
    from engine.fetching.fetch import Options, bring

    options = Options(args.keep_archives, args.max_size)
    failed = skipped = 0
    away: set[str] = set()  # hosts of which nothing else is tried: each try would take minutes
    for item in items:
        if item.hosts & away:
            skipped += 1
            continue
        try:
            print(shown(bring(item, root, ledger, choice, options)), flush=True)
        except (FetchError, OSError) as error:
            say(PROGRAM, str(error))
            failed += 1
            away |= item.hosts if isinstance(error, UnreachableError) else set()
    if skipped:
        hosts = ", ".join(sorted(away))
        say(PROGRAM, f"{skipped} more not tried, because {hosts} did not answer")
    return failed + skipped


def hints(
    args: argparse.Namespace, family: Family, root: Path, ledger: Ledger, choice: Choice
) -> int:
    """The number of downloads that are left to a person, of which a line each tells."""
    from datasets._layout import canonical
    from engine.fetching.fetch import by_hand

    lines = by_hand(family, root, ledger, choice)
    notes = list(family.notes)
    has_reals = any(entry.generator == REAL for entry in family.files)
    if has_reals and args.generators and not canonical(REAL, args.generators):
        notes.append(f"the real pictures are left out, because --generators has no {REAL}")
    for line in (*lines, *(f"note: {note}" for note in notes)):
        say(PROGRAM, line)
    return len(lines)


def status(failed: int, left: int, some: bool) -> int:
    """The exit status. `some`: whether there is anything that did not fail."""
    if failed and not some:
        return USAGE
    return FAILED if failed or left else 0


def run_family(args: argparse.Namespace) -> int:
    """The exit status of what the command line asks for of a data set."""
    from engine.fetching.catalogue import HAND, family_named
    from engine.fetching.download import FetchError
    from engine.fetching.fetch import check_space
    from engine.fetching.ledger import YES, Ledger, locked, space
    from engine.fetching.plan import Choice

    family = family_named(args.family)
    names = (flag and frozenset(flag) for flag in (args.generators, args.sources))
    root, choice = args.root or family.root, Choice(*names)
    if (root.exists() or root.is_symlink()) and not root.is_dir():
        raise FetchError(f"{root}: expected a folder; found a file or a link that leads nowhere")
    items, unknown = wanted_items(args, family, root, choice)
    ledger = Ledger.read(root)
    todo = [i for i in items if args.extract or ledger.state(i, choice.only(i.entry)) != YES]
    if args.list or args.dry_run:
        if rows := todo if args.dry_run else items:
            print("\n".join(table(rows, root, ledger, choice)))
        if args.dry_run:
            disk = space(todo, ledger, args.keep_archives)
            print(f"needs {size_text(disk.need)}, free {size_text(disk.free)}")
        hints(args, family, root, ledger, choice)
        return status(unknown, 0, bool(items))
    if not items and not unknown and not any(entry.origin.kind == HAND for entry in family.files):
        raise FetchError(f"{family.name}: expected something to fetch; nothing fits all of that")
    failed = 0
    if todo:
        check_space(todo, ledger, args.keep_archives)
        with locked(root):
            failed = bring_items(todo, root, Ledger.read(root), choice, args)
    for item in items:
        if item not in todo:
            print(shown(root / item.into))
    left = 0 if args.extract else hints(args, family, root, Ledger.read(root), choice)
    return status(failed + unknown, left, failed < len(items))


def run(args: argparse.Namespace) -> int:
    """The exit status of what the command line asks for."""
    if args.urls:
        return run_list(args)
    if args.family:
        return run_family(args)
    print("\n".join(families()))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
    p = parser()
    args = p.parse_args(arguments)
    check_usage(p, args)
    from engine.config import ConfigError
    from engine.fetching.download import FetchError

    return answer(PROGRAM, lambda: run(args), (ConfigError, FetchError), goes_on=SAME_COMMAND)


if __name__ == "__main__":
    sys.exit(main())
