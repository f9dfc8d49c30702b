"""Brings published weight files to this machine, by their names in pretrained/manifest.yaml.

    python scripts/fetch_weights.py --list
    python scripts/fetch_weights.py cospy-progan clip-vit-l-14
    python scripts/fetch_weights.py spai --from ~/Downloads/spai.pth
    python scripts/fetch_weights.py --verify

Standard output has the path of each; everything else goes to standard error. Downloads go on where
they broke off. HF_HOME says where the hub's cache is, HF_ENDPOINT which mirror to ask.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.cli.parser import Parser  # noqa: E402
from engine.runtime.program import USAGE  # noqa: E402
from scripts._shared import answer  # noqa: E402

if TYPE_CHECKING:
    from engine.weights.manifest import WeightEntry

PROGRAM = "fetch_weights.py"
HEADER = ("name", "there", "size", "licence", "where", "what", "path")


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog=PROGRAM,
        description=(__doc__ or "").split("\n")[0],
        epilog="Exit status: 0 done; 2 something is missing or wrong, one line each; "
        "130 interrupted, the same command goes on.",
        allow_abbrev=False,
    )
    p.add_argument("names", nargs="*", metavar="NAME", help="what to bring; --list shows the names")
    p.add_argument("--all", action="store_true", help="everything that can be downloaded")
    p.add_argument("--list", action="store_true", help="what there is, and what is here already")
    p.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="of one NAME: a file, zip or folder brought by hand; it is checked and copied",
    )
    p.add_argument(
        "--verify",
        action="store_true",
        help="bring nothing: compare the NAMEs, or all that is here, with the manifest's sums and "
        "the files' own",
    )
    p.add_argument("--force", action="store_true", help="download what is here already, again")
    return p


def where(entry: WeightEntry) -> str:
    """The origin of an entry in a few words."""
    if entry.hub:
        return f"hub {entry.hub.repo}"
    return f"page {entry.page.url}" if entry.page else "ships"


def table() -> list[str]:
    """All entries, a line each under a header, in columns."""
    from engine.runtime.text import columns, size_text
    from engine.weights.manifest import find, read_manifest

    rows = [HEADER]
    for name, entry in read_manifest().items():
        path = find(name)
        rows.append(
            (
                name, "no" if path is None else "yes", size_text(entry.size),
                entry.licence or "not stated", where(entry), entry.title, str(path or "-"),
            )
        )  # fmt: skip
    return columns(rows)


def bring_all(force: bool) -> int:
    """Everything that can be downloaded; says what a person must bring. Returns the status."""
    from engine.weights.manifest import find, how_to_get, read_manifest

    entries = read_manifest()
    by_hand = [n for n, e in entries.items() if e.page and find(n) is None]
    status = bring([name for name in entries if name not in by_hand], force)
    for name in by_hand:
        print(f"by hand: {name}: {how_to_get(entries[name])}", file=sys.stderr)
    return status


def bring(names: list[str], force: bool, source: Path | None = None) -> int:
    """Fetches or places each, prints where it is. Returns the status."""
    from detectors._base import WeightsError
    from engine.weights.fetch import fetch, place
    from engine.weights.manifest import entry_named

    status = 0
    for name in names:
        try:
            again = force and entry_named(name).hub is not None
            print(place(name, source) if source else fetch(name, again, recheck=True), flush=True)
        except WeightsError as error:
            print(f"{PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
            status = USAGE
    return status


def verify(names: list[str]) -> int:
    """Looks at files that are here already, all of them without `names`, and prints where the sound
    ones are. Returns the status."""
    from detectors._base import WeightsError
    from engine.weights.fetch import recheck
    from engine.weights.manifest import find, read_manifest

    status = 0
    for name in names or [name for name in read_manifest() if find(name) is not None]:
        try:
            print(recheck(name), flush=True)
        except WeightsError as error:
            print(f"{PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
            status = USAGE
    return status


def run(args: argparse.Namespace) -> int:
    """What the command line asks for. Returns the exit status."""
    from engine.config import ConfigError
    from engine.weights.manifest import entry_named

    try:
        if args.list:
            print("\n".join(table()))
            return 0
        for name in args.names:
            entry_named(name)
        if args.verify:
            return verify(args.names)
        if args.all:
            return bring_all(args.force)
        return bring(args.names, args.force, args.source)
    except (ConfigError, OSError) as error:
        print(f"{PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    if args.verify and (args.all or args.list or args.source or args.force):
        p.error("--verify: expected it alone or with NAMEs; found another flag")
    if not args.verify and sum((bool(args.names), args.all, args.list)) != 1:
        p.error("expected NAMEs, --all or --list, one of them")
    if args.source and len(args.names) != 1:
        p.error(f"--from: expected one NAME; found {len(args.names)}")
    if args.source and args.force:
        p.error("--from, --force: expected one of them; found both")
    return answer(PROGRAM, lambda: run(args), goes_on=True)


if __name__ == "__main__":
    sys.exit(main())
