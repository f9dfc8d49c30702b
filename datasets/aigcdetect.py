"""AIGCDetectionBenchMark: 16 generators, each with real pictures of its own.

Licence: see the set's own page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
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
from ._record import Record

LAYOUT = "test/<generator>/…/0_real/* and test/<generator>/…/1_fake/* (or test_set/)"
SPLITS: tuple[str, ...] = ()
LOCATIONS: tuple[str, ...] = ()
GENERATORS = (
    "ADM", "biggan", "cyclegan", "DALLE2", "gaugan", "Glide", "Midjourney", "progan",
    "stable_diffusion_v_1_4", "stable_diffusion_v_1_5", "stargan", "stylegan", "stylegan2", "VQDM",
    "whichfaceisreal", "wukong",
)  # fmt: skip


def _top(root: Path) -> Path:
    """The folder of the generators; test_set is what the published archive unpacks to."""
    return find(root, "test") or find(root, "test_set") or root


def _check_level(root: Path, folders: Mapping[str, Path]) -> None:
    """Raises LayoutError for a root that is above the benchmark's own folder."""
    if set(folders) & set(GENERATORS):
        return
    for folder in folders.values():
        inner = [subfolder.name for subfolder in subfolders(_top(folder), GENERATORS)]
        known = [name for name in inner if canonical(name, GENERATORS)]
        if len(known) > 1:
            raise unexpected(root, LAYOUT, f"these in {folder.name}/ ({', '.join(known)})")


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures below `root`/test/ or test_set/, or below `root` where there is neither.

    Source and generator are the top folder's name, in the spelling of the published results. A
    folder per class may lie between it and 0_real, 1_fake. `sources`: only these.

    Raises:
        LayoutError: pictures outside 0_real and 1_fake, a generator with none of a class or in two
            spellings, a root too high, or an unknown source, split or location.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    folders = once(
        ((canonical(f.name, GENERATORS) or f.name, f) for f in groups(_top(root), GENERATORS)), root
    )
    if not folders:
        raise unexpected(root, LAYOUT)
    _check_level(root, folders)
    check_sources(sources, folders)
    by_generator: dict[str, list[Record]] = {
        name: labelled(folder, root, LAYOUT, name, name)
        for name, folder in folders.items()
        if not sources or name in sources
    }
    for name, rows in by_generator.items():
        check_both(rows, folders[name], sorted(by_generator.keys() - {name}))
    return in_order(chain.from_iterable(by_generator.values()), root, LAYOUT)
