"""Writes the CSV that the shipped detector is trained and measured on, from a picture manifest.

The manifest has the columns image, class, split, generator, source, source_path. Pictures of its
split `train` become `train` or, about 15 % of them, `heldout`: whole groups that share a prompt, a
seed or a subject go to one side, because pictures of one prompt resemble each other so much that a
random split would flatter. The manifest's split `val` (other generators, other sources of reals)
stays as it is.

    python scripts/make_default_csv.py pictures/manifest.csv runs/default.csv
"""

from __future__ import annotations

import argparse
import re
import sys
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import LayoutError  # noqa: E402
from datasets._csv import found_columns, read_csv  # noqa: E402
from engine.command_line import Parser  # noqa: E402
from engine.files import replacing  # noqa: E402
from engine.table import TableWriter  # noqa: E402
from scripts._answer import answer  # noqa: E402

PROGRAM = "make_default_csv.py"
HELD_OUT_PERCENT = 15
RECONSTRUCTION = "tae-flux2-reconstruction"
COLUMNS = ("image", "class", "split", "generator", "source")
MANIFEST_COLUMNS = (*COLUMNS, "source_path")


def group(row: Mapping[str, str]) -> str:
    """What must not be torn apart: a prompt's pictures, a seed's, a numbered series, a real
    picture and its reconstructions."""
    source, path = row["source"], row["source_path"]
    if row["generator"] == RECONSTRUCTION:
        return PurePosixPath(path).name
    if row["class"] == "0":
        if "exif-samples" in source:
            return source + re.sub(r"\d+", "", path)
        return PurePosixPath(row["image"]).name
    if source == "dcsan/imagen":
        return "prompt:" + PurePosixPath(path).parent.name
    if "#" in path:
        # Sheets of one artist each, on which one position has one seed.
        return "seed:" + path.split("#")[1]
    if source in ("faker-js/assets-person-portrait", "EnragedAntelope/Artists-SD35L"):
        return path
    return source + re.sub(r"\d+", "", path)


def split(row: Mapping[str, str]) -> str:
    """`train`, `heldout` or `val`."""
    if row["split"] != "train":
        return row["split"]
    held = zlib.crc32(group(row).encode()) % 100 < HELD_OUT_PERCENT
    return "heldout" if held else "train"


def run(args: argparse.Namespace) -> int:
    """Reads the manifest, writes the CSV, prints the counts. Raises LayoutError for a manifest
    that lacks a column."""
    columns, rows = read_csv(args.manifest, "a manifest")
    if missing := [name for name in MANIFEST_COLUMNS if name not in columns]:
        found = found_columns(columns)
        raise LayoutError(f"{args.manifest}: expected {', '.join(missing)}; found {found}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.output) as temporary, TableWriter(temporary, COLUMNS, [], False) as table:
        for row in rows:
            source = row["source"] if row["class"] == "0" else ""
            table.append([[row["image"], row["class"], split(row), row["generator"], source]])
    counts = Counter((split(row), "synthetic" if row["class"] == "1" else "real") for row in rows)
    for (name, kind), count in sorted(counts.items()):
        print(f"{name:8} {kind:9} {count:5}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    parser = Parser(prog=PROGRAM, description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("manifest", type=Path, help=f"a CSV with {', '.join(MANIFEST_COLUMNS)}")
    parser.add_argument("output", type=Path, help="the CSV to write")
    args = parser.parse_args(arguments)
    return answer(PROGRAM, lambda: run(args), (LayoutError,))


if __name__ == "__main__":
    sys.exit(main())
