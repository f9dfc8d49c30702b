"""CNNDet (ForenSynths): ProGAN pictures of 20 LSUN classes and the reals that ProGAN learned from.

Licence: see the set's own page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ._layout import begin, check_sources, find, in_order, labelled, unexpected
from ._record import Record

LAYOUT = (
    "train/<class>/0_real/*, train/<class>/1_fake/* and the same below val/ "
    "(or progan_train/, progan_val/)"
)
SPLITS = ("train", "val")
LOCATIONS: tuple[str, ...] = ()
GENERATOR = "progan"


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures of a split; None takes those that are there.

    Source '': every fake is measured against all reals.

    Raises:
        LayoutError: no such split, pictures outside 0_real and 1_fake, none of a class, or a
            source or location, of which there are none.
    """
    root, _ = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    check_sources(sources, ())
    rows: list[Record] = []
    for name in (split,) if split else SPLITS:
        folder = find(root, name) or find(root, f"progan_{name}")
        if folder:
            rows += labelled(folder, root, LAYOUT, "", GENERATOR)
        elif split:
            raise unexpected(root, LAYOUT)
    return in_order(rows, root, LAYOUT)
