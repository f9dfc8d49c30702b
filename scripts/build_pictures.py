"""Rebuilds the pictures that the shipped detector was trained on, from clones of their sources.

    python scripts/build_pictures.py --clones clones --list > clone.sh && sh clone.sh
    python scripts/build_pictures.py --clones clones --output data/default

`data/default/manifest.csv` says where each picture lies; data/default/README.md explains its
columns and what of the rule is not known. Pictures are read from git's own objects, never from a
checked out tree, whose links may point anywhere. One that does not come out as it was is left out,
for training on another picture under its label would be an error that nobody sees.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from datasets import LayoutError  # noqa: E402
from datasets._csv import found_columns, read_csv  # noqa: E402
from datasets._images import UnreadablePicture, decode  # noqa: E402
from engine.runtime.files import other_content, write_file  # noqa: E402
from engine.runtime.progress import Progress  # noqa: E402
from scripts._shared import SAME_COMMAND, answer, new_parser, say, tell_left_out, write_table  # noqa: E402

PROGRAM, TABLE, MISSING = "build_pictures.py", "pictures.csv", "missing.csv"
MANIFEST = ROOT / "data" / "default" / "manifest.csv"
COLUMNS = (
    "image", "class", "split", "generator", "source", "path", "kind", "licence", "permissive",
    "width", "height", "scale", "rule", "sha256", "look",
)  # fmt: skip
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
# The cell of a sheet: #tile<column>,<row> or #r<row>c<column>.
TILE = re.compile(r"(?P<path>.+)#(?:tile(?P<x>\d+),(?P<y>\d+)|r(?P<row>\d+)c(?P<column>\d+))")
SHORT_SIDES = range(360, 701)  # px that shrunk pictures have
# Bits of a `look` that JPEG, another decoder or a cut a pixel off may change; of two pictures that
# have nothing in common about 32 of the 64 differ.
ALIKE_BITS = 10
Row = Mapping[str, str]


@dataclass(frozen=True)
class Rule:
    """The longest side in px that a picture was cut to, and the JPEG that it was saved as."""

    side: int
    quality: int
    subsampling: str


RULES = {"320": Rule(320, 95, "4:4:4"), "352": Rule(352, 90, "4:2:0")}


class Match(StrEnum):
    """How a picture compares with the one that the detector was trained on."""

    SAME = "the same bytes"
    ALIKE = "alike"
    OTHER = "another picture"


def read_manifest(path: Path) -> list[dict[str, str]]:
    """Rows of a manifest. Raises LayoutError for other columns, or a path that leaves its folder.

    The manifest may be a stranger's: its paths decide what is written where.
    """
    columns, rows = read_csv(path, "a manifest")
    if missing := [name for name in COLUMNS if name not in columns]:
        found = found_columns(columns)
        raise LayoutError(f"{path}: expected {', '.join(missing)}; found {found}")
    for row in rows:
        parts = row["image"].split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\\" in row["image"]:
            raise LayoutError(f"{path}: expected a path below its folder; found {row['image']!r}")
        if not REPOSITORY.fullmatch(row["source"]) or row["rule"] not in RULES:
            raise LayoutError(
                f"{path}: {row['image']}: expected a source owner/name and a rule of "
                f"{', '.join(RULES)}; found {row['source']!r}, {row['rule']!r}"
            )
    return rows


# --- from a clone to the original


def git(clone: Path, *words: str) -> bytes | None:
    """Output of a git command in a clone; None where it fails."""
    # Without a terminal a partial clone asks for no password when it fetches a picture.
    surroundings = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_LITERAL_PATHSPECS": "1"}
    done = subprocess.run(
        ["git", "-C", clone, *words], capture_output=True, check=False, env=surroundings
    )
    return done.stdout if done.returncode == 0 else None


def original(clone: Path, path: str) -> bytes:
    """A file as the clone's HEAD has it, or the last revision that had it.

    Raises:
        UnreadablePicture: neither, or a pointer of git-lfs.
    """
    content = git(clone, "cat-file", "blob", f"HEAD:{path}")
    if content is None:
        last = git(clone, "log", "--all", "-1", "--diff-filter=AM", "--format=%H", "--", path)
        commit = (last or b"").decode().strip()
        content = git(clone, "cat-file", "blob", f"{commit}:{path}") if commit else None
    if content is None:
        raise UnreadablePicture("not in the clone")
    if complaint := other_content(content[:512]):
        raise UnreadablePicture(complaint)
    return content


# --- from the original to the picture


def tile(sheet: Image.Image, match: re.Match[str], size: tuple[int, int]) -> Image.Image:
    """The middle (width, height) of a cell of a sheet of equal cells."""
    column, row = match["x"] or match["column"], match["y"] or match["row"]
    starts = []
    for cell, whole, side in zip((int(column), int(row)), sheet.size, size, strict=True):
        cells = max(1, round(whole / side))
        starts.append(round((cell + 0.5) * whole / cells - side / 2))
    left, top = starts
    right, bottom = left + size[0], top + size[1]
    if left < 0 or top < 0 or right > sheet.width or bottom > sheet.height:
        raise UnreadablePicture(f"a sheet of {sheet.width} x {sheet.height} px, without this tile")
    return sheet.crop((left, top, right, bottom))


def shrunk(image: Image.Image, scale: float) -> Image.Image:
    """A picture with sides times `scale`, which the manifest rounds to three decimals: of the
    short sides in whole px that round to it, the middle one."""
    short = min(image.size)
    sides = [side for side in SHORT_SIDES if round(side / short, 3) == scale]
    factor = (sides[len(sides) // 2] if sides else short * scale) / short
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def rebuilt(content: bytes, row: Row) -> bytes:
    """The picture of a row, as JPEG, from its original file.

    Raises:
        UnreadablePicture: the original is no picture, or of another size than it was.
    """
    image = decode(content)
    size = int(row["width"]), int(row["height"])
    if match := TILE.fullmatch(row["path"]):
        image = tile(image, match, size)
    if image.size != size:
        sizes = (f"{width} x {height}" for width, height in (size, image.size))
        raise UnreadablePicture("expected {} px; found {}".format(*sizes))
    rule, scale = RULES[row["rule"]], float(row["scale"])
    if scale < 1:
        image = shrunk(image, scale)
    width, height = (min(side, rule.side) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    buffer = io.BytesIO()
    # A comment of the original stays, as it did.
    image.crop((left, top, left + width, top + height)).save(
        buffer, "JPEG", quality=rule.quality, subsampling=rule.subsampling
    )
    return buffer.getvalue()


def look(content: bytes) -> int:
    """64 bits of a picture: whether brightness rises from each of 9 x 8 cells to the next."""
    grey = decode(content).convert("L").resize((9, 8), Image.Resampling.BOX)
    cells = np.asarray(grey).astype(int)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes())


def compared(content: bytes, row: Row) -> Match:
    """How a rebuilt picture compares with its row."""
    if hashlib.sha256(content).hexdigest().startswith(row["sha256"]):
        return Match.SAME
    # Decoders and encoders of other versions give other bytes of the same picture.
    differing = (look(content) ^ int(row["look"], 16)).bit_count()
    return Match.ALIKE if differing <= ALIKE_BITS else Match.OTHER


# --- all of them


def build(row: Row, clones: Path, output: Path) -> Match:
    """Writes a picture unless it is there, and says how it compares.

    Raises:
        UnreadablePicture: it cannot be rebuilt, or is another one.
    """
    target, clone = output / row["image"], clones / row["source"]
    here = target.is_file()
    if here:
        content = target.read_bytes()
    elif clone.is_dir():
        match = TILE.fullmatch(row["path"])
        content = rebuilt(original(clone, match["path"] if match else row["path"]), row)
    else:
        raise UnreadablePicture("no clone")
    state = compared(content, row)
    if state is Match.OTHER:
        raise UnreadablePicture(state.value)
    if not here:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, content)
    return state


def list_clones(rows: Iterable[Row], clones: Path) -> int:
    """Prints a command for each repository without a clone."""
    for name in sorted({row["source"] for row in rows}):
        if not (clones / name).is_dir():
            # Pictures come when they are asked for: most of what these hold is not needed.
            flags = "--filter=blob:none --no-checkout"
            place = shlex.quote(str(clones / name))
            print(f"git clone {flags} https://github.com/{name} {place}")
    return 0


def run(args: argparse.Namespace) -> int:
    """Builds what can be built. Returns 1 where pictures lack."""
    rows = read_manifest(args.manifest)
    if args.list:
        return list_clones(rows, args.clones)
    states: Counter[Match] = Counter()
    present: list[Row] = []
    reasons: dict[str, str] = {}
    with Progress(len(rows), "building") as progress:
        for row in rows:
            try:
                states[build(row, args.clones, args.output)] += 1
                present.append(row)
            except UnreadablePicture as error:
                reasons[row["image"]] = str(error)
            progress.advance(1)
    args.output.mkdir(parents=True, exist_ok=True)
    table = args.output / TABLE
    write_table(table, COLUMNS, ([row[name] for name in COLUMNS] for row in present))
    lacking = ((row["image"], row["source"], row["path"], reasons[row["image"]])
               for row in rows if row["image"] in reasons)  # fmt: skip
    write_table(args.output / MISSING, ("image", "source", "path", "reason"), lacking)
    tell_left_out(PROGRAM, reasons)
    counts = ", ".join(f"{number:,} {state.value}" for state, number in sorted(states.items()))
    say(PROGRAM, f"{len(present):,} of {len(rows):,} pictures: {counts or 'none'}")
    print(table)
    return 1 if reasons else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    status = f"0 done; 1 done, but some pictures lack, which {MISSING} lists; 2 wrong usage or data"
    p = new_parser(PROGRAM, __doc__, status)
    p.add_argument(
        "--clones",
        type=Path,
        required=True,
        help="a folder with a git clone of each repository, OWNER/NAME below it",
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--output", type=Path, help=f"a folder for the pictures and {TABLE}; the same one goes on"
    )
    what.add_argument(
        "--list", action="store_true", help="print the git commands that clone what is not there"
    )
    p.add_argument("--manifest", type=Path, default=MANIFEST,
                   help="what to build (data/default/manifest.csv)")  # fmt: skip
    args = p.parse_args(arguments)
    return answer(PROGRAM, lambda: run(args), (LayoutError,), goes_on=SAME_COMMAND)


if __name__ == "__main__":
    sys.exit(main())
