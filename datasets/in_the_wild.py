"""CO-SPY in the wild: synthetic pictures collected from five places, and no real ones.

Without reals there is a detection rate, but neither AP nor AUROC. Licence: see the set's own page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._layout import FAKE, begin, canonical, check_sources, groups, in_order, once, pictures
from ._record import Record

PLACES = ("Civitai", "DALL-E 3", "instavibe", "Lexica", "Midjourney-v6")
LAYOUT = f"folders {', '.join(PLACES)} (any of them) with pictures, all synthetic"
SPLITS: tuple[str, ...] = ()
LOCATIONS: tuple[str, ...] = ()
log = logging.getLogger(__name__)


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures, all of them fakes; `generator` is the folder's name as it stands.

    Raises:
        LayoutError: no folder of that kind with pictures, one in two spellings, or a source, split
            or location, of which there are none.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    check_sources(sources, ())
    folders: list[tuple[str, Path]] = []
    for folder in groups(root, PLACES):
        if name := canonical(folder.name, PLACES):
            folders.append((name, folder))
        else:
            log.warning("%s: expected one of %s; left out", folder, ", ".join(PLACES))
    rows: list[Record] = []
    for folder in once(folders, root).values():
        rows += pictures(folder, root, FAKE, "", folder.name)
    return in_order(rows, root, LAYOUT, needed=[FAKE])
