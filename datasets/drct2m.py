"""DRCT-2M: COCO pictures and what 16 diffusion models made of their captions.

CO-SPY's training set sd-v1_4 is the same with one generator. The reals may live elsewhere, at the
location `mscoco`. Licence: see the set's own page.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np

from ._layout import (
    FAKE,
    REAL,
    begin,
    canonical,
    check_sources,
    elsewhere,
    find,
    groups,
    in_order,
    once,
    pictures,
    subfolders,
    unexpected,
)
from ._paths import listed
from ._record import Record

LAYOUT = (
    "<generator>/{train2017,val2017}/* and mscoco2017/{train2017,val2017}/*.jpg, both optionally "
    "below images/ (or the reals by --set data.mscoco=DIR)"
)
SPLITS = ("train", "val", "drct_train", "drct_val", "test")
LOCATIONS = ("mscoco",)
TRAIN, VAL = "train2017", "val2017"
FOLDERS = {"train": TRAIN, "val": VAL, "drct_train": TRAIN, "drct_val": TRAIN, "test": VAL}
GENERATORS = (
    "ldm-text2im-large-256", "stable-diffusion-v1-4", "stable-diffusion-v1-5",
    "stable-diffusion-2-1", "stable-diffusion-xl-base-1.0", "stable-diffusion-xl-refiner-1.0",
    "sd-turbo", "sdxl-turbo", "lcm-lora-sdv1-5", "lcm-lora-sdxl", "sd-controlnet-canny",
    "sd21-controlnet-canny", "controlnet-canny-sdxl-1.0", "stable-diffusion-inpainting",
    "stable-diffusion-2-inpainting", "stable-diffusion-xl-1.0-inpainting-0.1",
)  # fmt: skip
COCO = ("mscoco2017", "mscoco")
HOLD_OUT_SEED = 2017
HOLD_OUT = 0.1
log = logging.getLogger(__name__)


def _bases(root: Path) -> list[Path]:
    images = find(root, "images")
    return [root, images] if images else [root]


def _generators(root: Path) -> Iterator[tuple[str, Path]]:
    """Name and folder of each generator; an archive may have put it in one more of its name."""
    known = (*GENERATORS, *COCO, "images")
    for base in _bases(root):
        for folder in groups(base, known):
            if folder.name.lower() in (*COCO, "images"):
                continue
            inner = [folder, *subfolders(folder, known)]
            parent = next((p for p in inner if (p / TRAIN).is_dir() or (p / VAL).is_dir()), None)
            if parent:
                yield canonical(folder.name, GENERATORS) or folder.name, parent
            else:
                log.warning("%s: expected %s/ or %s/; left out", folder, TRAIN, VAL)


def _reals(root: Path, locations: Mapping[str, str], year: str) -> list[Record]:
    """COCO's pictures of train2017 or val2017."""
    if "mscoco" not in locations:
        places = [find(base, name) for base in _bases(root) for name in COCO]
        coco, base, prefix = next((path for path in places if path), None), root, ""
    elif (coco := Path(locations["mscoco"])).is_dir():
        coco = base = find(coco, "mscoco2017") or coco
        prefix = "mscoco/"
    else:
        return [r for r in elsewhere("mscoco", coco) if f"/{year}/" in r.key]
    if coco is None:
        raise unexpected(root, LAYOUT)
    if not (coco / year).is_dir():
        raise unexpected(coco, f"{year}/ with the real pictures of {LAYOUT}")
    return pictures(coco / year, base, REAL, prefix=prefix)


def _hold_out(records: Sequence[Record], held: bool) -> list[Record]:
    """The tenth of every generator and of the reals that is held out, or the rest.

    Which pictures, the first of a permutation of their order by key decide: that of
    `np.random.RandomState(HOLD_OUT_SEED)`, whose stream NumPy keeps for good. The same COCO
    pictures are held out everywhere, as long as every generator has one of each.
    """
    by_generator: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=attrgetter("key")):
        by_generator[record.generator].append(record)
    chosen: list[Record] = []
    for group in by_generator.values():
        order = np.random.RandomState(HOLD_OUT_SEED).permutation(len(group))
        count = round(HOLD_OUT * len(group))
        chosen += [group[i] for i in (order[:count] if held else order[count:])]
    return chosen


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists fakes and reals; every fake is measured against all reals (source '').

    `generator` is the folder's name in DRCT's own spelling, with hyphens. Splits: `train` and `val`
    are train2017 and val2017, as CO-SPY takes them; `drct_train` and `drct_val` are nine tenths and
    a tenth of train2017, `test` is val2017, as DRCT takes them: no picture of `test` is then seen
    in training. None takes both folders.

    Raises:
        LayoutError: no fakes, no reals, a generator in two spellings, or an unknown source, split
            or location.
    """
    root, given = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    check_sources(sources, ())
    generators = once(_generators(root), root)
    rows: list[Record] = []
    for year in (FOLDERS[split],) if split else (TRAIN, VAL):
        for name, folder in generators.items():
            if (folder / year).is_dir():
                rows += pictures(folder / year, root, FAKE, "", name)
            else:
                log.warning("%s: expected %s/; found %s", folder, year, listed(folder))
        rows += _reals(root, given, year)
    if split in ("drct_train", "drct_val"):
        rows = _hold_out(rows, held=split == "drct_val")
    return in_order(rows, root, LAYOUT)
