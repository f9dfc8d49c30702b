"""GenImage: 8 generators of ImageNet classes, each with real pictures of its own.

Its known bad files (empty and truncated PNG) are listed like all others: their rows carry the
error. Licence: see the set's own page.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._layout import (
    begin,
    canonical,
    check_both,
    check_sources,
    find,
    groups,
    in_order,
    labelled,
    once,
    subfolders,
    unexpected,
)
from ._paths import listed
from ._record import Record

LAYOUT = (
    "<subset>/{train,val}/{ai,nature}/*, the subsets named as in imagenet_ai_0508_adm or ADM, "
    "or one in the other"
)
SPLITS = ("train", "val")
LOCATIONS: tuple[str, ...] = ()
SUBSETS = {
    "adm": ("imagenet_ai_0508_adm",),
    "biggan": ("imagenet_ai_0419_biggan",),
    "glide": ("imagenet_glide",),
    "midjourney": ("imagenet_midjourney",),
    "sdv4": ("imagenet_ai_0419_sdv4", "stable_diffusion_v_1_4"),
    "sdv5": ("imagenet_ai_0424_sdv5", "stable_diffusion_v_1_5"),
    "vqdm": ("imagenet_ai_0419_vqdm",),
    "wukong": ("imagenet_ai_0424_wukong",),
}
SPELLINGS = [name for short, names in SUBSETS.items() for name in (short, *names)]
log = logging.getLogger(__name__)


def _subset(name: str) -> str | None:
    """The short name of a subset's folder."""
    return next((s for s, names in SUBSETS.items() if canonical(name, (s, *names))), None)


def _folders(root: Path) -> dict[str, Path]:
    """The folder with train/ and val/ of each subset that is there.

    Raises:
        LayoutError: two for one subset.
    """
    folders: list[tuple[str, Path]] = []
    for folder in groups(root, SPELLINGS):
        subset = _subset(folder.name)
        inner = [folder, *subfolders(folder, SPELLINGS)] if subset else []
        parent = next((p for p in inner if any(find(p, split) for split in SPLITS)), None)
        if subset is None or parent is None:
            log.warning("%s: expected a subset with %s; left out", folder, " or ".join(SPLITS))
        else:
            folders.append((subset, parent))
    return once(folders, root)


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures of a split, or of both; `ai` is synthetic, `nature` real.

    Source and generator are the subset's short name: adm, biggan, glide, midjourney, sdv4, sdv5,
    vqdm, wukong. `sources`: only these.

    Raises:
        LayoutError: no subset, one that is there twice or whose split has none of a class, pictures
            outside ai and nature, or an unknown source, split or location.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    folders = _folders(root)
    if not folders:
        raise unexpected(root, LAYOUT)
    check_sources(sources, folders)
    rows: list[Record] = []
    for subset, folder in folders.items():
        for name in (split,) if split else SPLITS:
            if sources and subset not in sources:
                continue
            if parent := find(folder, name):
                of_split = labelled(parent, root, LAYOUT, subset, subset)
                check_both(of_split, parent, sorted(set(sources or folders) - {subset}))
                rows += of_split
            else:
                log.warning("%s: expected %s/; found %s", folder, name, listed(folder))
    return in_order(rows, root, LAYOUT)
