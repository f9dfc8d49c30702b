"""Any folder of pictures, labelled by the names of its folders or not at all.

Layouts: `real/…` beside `fake/…` (also `0_real`/`1_fake`, `nature`/`ai`), at the top or once per
generator (`<generator>/0_real/…`, `<generator>/1_fake/…`), each optionally below `train/`, `val/`
or `test/`. A folder below `fake/` names the generator. Licence: that of the pictures' owner.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ._record import Label, LayoutError, Record, walk_folders

REAL_NAMES = frozenset({"real", "0_real", "nature"})
FAKE_NAMES = frozenset({"fake", "1_fake", "ai", "synthetic"})
SPLIT_NAMES = frozenset({"train", "val", "test"})
LAYOUT = (
    "real/… and fake/<generator>/… (or 0_real and 1_fake, nature and ai), "
    "optionally below train/, val/ or test/"
)


def _describe(key: PurePosixPath, skip: int) -> tuple[Label | None, str, str]:
    """Label, source and generator that the folders of `key` state, `skip` leading ones apart."""
    folders = key.parts[skip:-1]
    for depth, folder in enumerate(folders):
        name = folder.lower()
        if name in REAL_NAMES:
            return Label.REAL, "/".join(folders[:depth]), ""
        if name in FAKE_NAMES:
            source = "/".join(folders[:depth])
            below = folders[depth + 1] if depth + 1 < len(folders) else ""
            return Label.FAKE, source, below or source or "fake"
    return None, "", ""


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """Lists the pictures below `root`, sorted by key.

    Args:
        root: the folder.
        split: `train`, `val` or `test`, a folder directly below `root`; None takes everything.
        labelled: whether every picture must lie below a folder that names its label.

    Raises:
        LayoutError: `root` or its split is missing, holds no picture, or a label is required
            and not stated.
    """
    root = Path(root)
    start = root / split if split else root
    if not start.is_dir():
        found = (
            ", ".join(sorted(p.name for p in root.iterdir())[:8]) if root.is_dir() else "nothing"
        )
        raise LayoutError(
            f"{start}: expected a folder with {LAYOUT}; found {found} in its place or beside it"
        )
    rows: list[Record] = []
    for place, names in walk_folders(start):
        # What the folders state is found once for all their pictures, which may be a million.
        below = place.relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        key = PurePosixPath(below, names[0])
        below_split = bool(split) or key.parts[0] in SPLIT_NAMES
        label, source, generator = _describe(key, skip=1 if below_split else 0)
        if labelled and label is None:
            raise LayoutError(f"{root}: expected {LAYOUT}; found {str(key)!r} below neither")
        rows += [Record(prefix + name, place / name, label, source, generator) for name in names]
    if not rows:
        raise LayoutError(f"{start}: expected pictures in {LAYOUT}; found none (by extension)")
    return sorted(rows, key=lambda record: record.key)
