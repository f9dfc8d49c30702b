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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.cli.argument_parser import Parser  # noqa: E402
from engine.runtime.program import USAGE  # noqa: E402
from scripts._shared import SAME_COMMAND, answer, new_parser  # noqa: E402

if TYPE_CHECKING:
    from engine.weights.manifest import WeightEntry

PROGRAM = "fetch_weights.py"
HEADER = ("name", "there", "size", "licence", "where", "what", "path")


def parser() -> Parser:
    """The command line."""
    status = "0 done; 2 something is missing or wrong, one line each, and the same command goes on"
    p = new_parser(PROGRAM, __doc__, status)
    p.add_argument("names", nargs="*", metavar="NAME", help="what to bring; --list shows the names")
    p.add_argument("--all", action="store_true", help="everything that can be downloaded")
    p.add_argument("--list", action="store_true", help="what there is, and what is here already")
    p.add_argument("--from", dest="source", type=Path, metavar="PATH",
                   help="of one NAME: a file, zip or folder brought by hand; it is checked and "
                   "copied")  # fmt: skip
    p.add_argument("--verify", action="store_true",
                   help="bring nothing: compare the NAMEs, or all that is here, with the "
                   "manifest's sums and the files' own")  # fmt: skip
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


def status_of(names: Iterable[str], work: Callable[[str], Path]) -> int:
    """The exit status of work on several entries: 2 where one failed, of which a line says why.
    Prints where each is."""
    from detectors._errors import WeightsError
    from engine.runtime.program import complain

    status = 0
    for name in names:
        try:
            print(work(name), flush=True)
        except WeightsError as error:
            complain(PROGRAM, error)
            status = USAGE
    return status


def bring(names: Iterable[str], args: argparse.Namespace) -> int:
    """The exit status. Fetches each entry, or takes it from --from."""
    from engine.weights.fetch import fetch, place
    from engine.weights.manifest import entry_named

    def work(name: str) -> Path:
        if args.source:
            return place(name, args.source)
        # Only the hub has files to download again; what ships, or came by hand, is looked at.
        again = args.force and entry_named(name).hub is not None
        return fetch(name, again, recheck=True)

    return status_of(names, work)


def bring_all(args: argparse.Namespace) -> int:
    """The exit status. Fetches everything that can be downloaded; says what a person must bring."""
    from engine.weights.manifest import find, how_to_get, read_manifest

    entries = read_manifest()
    by_hand = [n for n, e in entries.items() if e.page and find(n) is None]
    status = bring([name for name in entries if name not in by_hand], args)
    for name in by_hand:
        print(f"by hand: {name}: {how_to_get(entries[name])}", file=sys.stderr)
    return status


def run(args: argparse.Namespace) -> int:
    """The exit status of what the command line asks for."""
    from engine.weights.fetch import recheck
    from engine.weights.manifest import entry_named, find, read_manifest

    if args.list:
        print("\n".join(table()))
        return 0
    for name in args.names:
        entry_named(name)
    if args.verify:
        here = (name for name in read_manifest() if find(name) is not None)
        return status_of(args.names or here, recheck)
    return bring_all(args) if args.all else bring(args.names, args)


def main(arguments: list[str] | None = None) -> int:
    """The exit status of a command line."""
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
    from engine.config import ConfigError

    return answer(PROGRAM, lambda: run(args), (ConfigError, OSError), goes_on=SAME_COMMAND)


if __name__ == "__main__":
    sys.exit(main())
