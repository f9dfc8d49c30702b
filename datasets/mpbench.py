"""MPBench, the validation set of Sentry-Image: synthetic pictures; the reals are the user's.

It is laid out as Fake2M is; label 0 means synthetic in its lists. Licence: see the set's own page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import fake2m
from ._layout import begin, check_sources
from ._record import Record

LAYOUT = fake2m.layout_of("val")
SPLITS = ("val",)
LOCATIONS = fake2m.LOCATIONS


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists the pictures of ImageData/val/ and the user's reals, as `fake2m.records` does.

    Raises:
        LayoutError: no pictures, a list that is wrong or leads out of the data, or a source, an
            unknown split or an unknown location.
    """
    root, given = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    check_sources(sources, ())
    return fake2m.records_of("val", root, given)
