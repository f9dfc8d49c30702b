"""AIGCDetectionBenchMark: 16 generators, each with real pictures of its own.

Licence: see the set's own page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ._layout import begin, canonical, check_sources, find, groups, in_order, labelled, unexpected
from ._record import Record

LAYOUT = "test/<generator>/…/0_real/* and test/<generator>/…/1_fake/*"
SPLITS: tuple[str, ...] = ()
PARTS: tuple[str, ...] = ()
GENERATORS = (
    "ADM", "biggan", "cyclegan", "DALLE2", "gaugan", "Glide", "Midjourney", "progan",
    "stable_diffusion_v_1_4", "stable_diffusion_v_1_5", "stargan", "stylegan", "stylegan2", "VQDM",
    "whichfaceisreal", "wukong",
)  # fmt: skip


def records(
    root: Path,
    split: str | None = None,
    parts: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures below `root`/test/, or below `root` where there is no test/.

    Source and generator are the top folder's name, in the spelling of the published results. A
    folder per class may lie between it and 0_real, 1_fake. `sources`: only these.

    Raises:
        LayoutError: pictures outside 0_real and 1_fake, none of a class, or an unknown source,
            split or part.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, parts, PARTS)
    folders = groups(find(root, "test") or root)
    if not folders:
        raise unexpected(root, LAYOUT)
    names = {folder: canonical(folder.name, GENERATORS) or folder.name for folder in folders}
    check_sources(sources, names.values())
    found: list[Record] = []
    for folder, name in names.items():
        if not sources or name in sources:
            found += labelled(folder, root, LAYOUT, name, name)
    return in_order(found, root, LAYOUT)
