"""The latent diffusion training set of DMID, which SPAI was trained on.

It has the synthetic pictures and lists of the real ones, which live elsewhere: locations `coco`
(COCO with train2017/) and `lsun` (the training pictures of CNNDet). Licence: see the set's own
page.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ._layout import (
    FAKE,
    REAL,
    begin,
    check_sources,
    find,
    groups,
    in_order,
    is_file,
    pictures,
    unexpected,
)
from ._paths import relative
from ._record import LayoutError, Record

NAME = "latent_diffusion_trainingset"
LAYOUT = (
    f"{NAME}/{{train,val}}/<generator>/*.png (or valid/) with real_coco.txt and real_lsun.txt in "
    "train/ and val/, and --set data.coco=DIR data.lsun=DIR (or one of them) for what these list"
)
SPLITS = ("train", "val")
LOCATIONS = ("coco", "lsun")
# Where the pictures of a location lie below the folder that was named, unless in that itself.
INNER = {
    "coco": ("mscoco2017/train2017", "train2017"),
    "lsun": ("train", "progan_train"),
}
log = logging.getLogger(__name__)


def _below(location: str, line: str) -> str:
    """Where a listed picture lies: `<class>_<file>` of LSUN as `<class>/0_real/<file>`."""
    if location == "coco":
        return line
    name, _, file = line.partition("_")
    return f"{name}/0_real/{file}"


def real_folder(location: str, place: Path) -> Path:
    """The folder of a location's pictures: a known one below `place`, else `place` itself."""
    return next((place / inner for inner in INNER[location] if (place / inner).is_dir()), place)


def _reals(folder: Path, location: str, place: Path) -> Iterator[Record]:
    """What a split's list of reals names, each once, whether or not it is on disk.

    Raises:
        LayoutError: no such list or place, a name that leads out of it, or nothing there.
    """
    file = folder / f"real_{location}.txt"
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise unexpected(folder, LAYOUT, f"no list {file.name}: {reason}") from error
    base = real_folder(location, place)
    wanted = dict.fromkeys(line.strip() for line in lines if line.strip())
    names = [relative(_below(location, line), file) for line in wanted]
    if names and not any(is_file(base / name) for name in names):
        raise unexpected(base, f"the pictures that {file} lists, as {names[0]!r}")
    for name in names:
        yield Record(f"{location}/{name}", base / name, REAL)


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split in the set's folder; `valid` is another name of val's."""
    return find(root, split) or (find(root, "valid") if split == "val" else None)


def records(
    root: Path,
    split: str | None = None,
    locations: Mapping[str, str] | None = None,
    sources: Sequence[str] = (),
) -> list[Record]:
    """Lists fakes and reals of a split, or of both; all fakes against all reals (source '').

    `generator` is the folder's name. Reals are those of the locations that were named, one or both:
    a set without LSUN is SPAI's reduced one. Keys of reals are `<location>/<path within>`.

    Raises:
        LayoutError: no fakes, no location named, a list or what it lists is missing, a picture is
            listed for both splits, or an unknown source, split or location.
    """
    root, given = begin(root, LAYOUT, split, SPLITS, locations, LOCATIONS)
    check_sources(sources, ())
    if not given:
        raise LayoutError(f"{root}: expected {LAYOUT}; found neither data.coco nor data.lsun")
    start = find(root, NAME) or root
    rows: list[Record] = []
    for name in (split,) if split else SPLITS:
        folder = split_folder(start, name)
        if folder is None:
            raise unexpected(start, LAYOUT)
        for generator in groups(folder):
            # Copies of the listed real pictures may lie beside the fakes.
            if not generator.name.lower().startswith("real"):
                rows += pictures(generator, root, FAKE, "", generator.name)
        for location in LOCATIONS:
            if location in given:
                rows += _reals(folder, location, Path(given[location]))
            else:
                log.warning("%s: without data.%s, its real pictures are left out", folder, location)
    return in_order(rows, root, LAYOUT)
