"""Co-Spy-Bench: pictures of 22 generators, each prompted with captions of five sources.

The reals of a source are what its captions describe. Those of mscoco (COCO val2017) and flickr
(Flickr30k) may live elsewhere: locations `mscoco` and `flickr`. Licence: see the set's own page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    matches,
    once,
    pictures,
    subfolders,
    unexpected,
)
from ._paths import listed
from ._record import LayoutError, Record

SOURCES = ("mscoco", "flickr", "cc3m", "textcaps", "sbu")
LAYOUT = (
    "synthetic/<mscoco, flickr, cc3m, textcaps or sbu>/<generator>/*.png with real pictures in "
    "mscoco2017/val2017/, flickr30k/, real_image_examples/{CC3M,TextCaps,SBU}/"
)
SPLITS: tuple[str, ...] = ()
LOCATIONS = ("mscoco", "flickr")
PLACES = {
    "mscoco": ("mscoco2017/val2017", "real/mscoco*/val2017", "real/mscoco*"),
    "flickr": ("flickr*", "real/flickr*"),
    "cc3m": ("real_image_examples/cc3m", "real/cc3m"),
    "textcaps": ("real_image_examples/textcaps", "real/textcaps"),
    "sbu": ("real_image_examples/sbu", "real/sbu"),
}
# The training set of CO-SPY holds the same COCO pictures: data/train/ beside data/test/.
SIBLING = "train/sd-v1_4/mscoco2017/val2017"
INNER = ("mscoco2017/val2017", "val2017")
log = logging.getLogger(__name__)


def _fakes_folders(root: Path) -> dict[str, Path]:
    """The folder of each source's fakes, below synthetic/ or directly below `root`."""
    base = find(root, "synthetic") or root
    folders: list[tuple[str, Path]] = []
    for folder in subfolders(base, SOURCES):
        if source := canonical(folder.name, SOURCES):
            folders.append((source, folder))
        elif base != root:
            log.warning("%s: expected one of %s; left out", folder, ", ".join(SOURCES))
    return once(folders, base)


def _reals(root: Path, source: str, locations: Mapping[str, str], fakes: Path) -> list[Record]:
    """The reals of a source: at its own location, in one of its places below `root`, or beside."""
    if source in locations:
        return elsewhere(source, locations[source], source, INNER if source == "mscoco" else ())
    for pattern in PLACES[source]:
        for folder in matches(root, pattern, exclude=[fakes]):
            if records := pictures(folder, root, REAL, source):
                return records
    sibling = root.absolute().parent.parent / SIBLING
    if source == "mscoco" and sibling.is_dir():
        return elsewhere(source, sibling, source)
    option = f", or --set data.{source}=DIR" if source in LOCATIONS else ""
    raise LayoutError(
        f"{root}: expected the real pictures of {source} in {' or '.join(PLACES[source])}{option}; "
        f"found {listed(root)}; expected {LAYOUT}"
    )


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists fakes and reals of each source that has fakes, sorted by key, so by file name.

    `generator` is the folder's name, as in `CompVis@stable-diffusion-v1-4`. `sources`: only these;
    the reals of the others need not be there.

    Raises:
        LayoutError: no fakes, no reals of a source, or an unknown source, split or location.
    """
    root, given = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    folders = _fakes_folders(root)
    if not folders:
        raise unexpected(root, LAYOUT)
    check_sources(sources, folders)
    rows: list[Record] = []
    for source, folder in folders.items():
        if sources and source not in sources:
            continue
        for generator in groups(folder):
            rows += pictures(generator, root, FAKE, source, generator.name)
        rows += _reals(root, source, given, folder)
    return in_order(rows, root, LAYOUT)
