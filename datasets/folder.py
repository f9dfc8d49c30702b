"""Any folder of pictures, labelled by the names of its folders or not at all.

Layouts: `real/…` beside `fake/…` (also `0_real`/`1_fake`, `nature`/`ai`), at the top or once per
generator (`<generator>/0_real/…`, `<generator>/1_fake/…`), each optionally below `train/`, `val/`
(or `valid/`, `validation/`) or `test/`, in any case, at the top or in the folder of a generator. A
folder below `fake/` names the generator. Licence: that of the pictures' owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ._paths import is_split, listed, split_depths, split_named
from ._record import Label, LayoutError, Record, walk_folders

REAL_NAMES = frozenset({"real", "0_real", "nature"})
FAKE_NAMES = frozenset({"fake", "1_fake", "ai", "synthetic"})
LAYOUT = (
    "real/… and fake/<generator>/… (or 0_real and 1_fake, nature and ai), "
    "optionally below train/, val/ or test/"
)


def describe(folders: tuple[str, ...]) -> tuple[Label | None, str, str]:
    """Label, source and generator that a picture's folders state, those of splits left out."""
    for depth, folder in enumerate(folders):
        name = folder.lower()
        if name in REAL_NAMES:
            return Label.REAL, "/".join(folders[:depth]), ""
        if name in FAKE_NAMES:
            source = "/".join(folders[:depth])
            below = folders[depth + 1] if depth + 1 < len(folders) else ""
            return Label.FAKE, source, below or source or "fake"
    return None, "", ""


class Folders:
    """What the folders of a data set state: split, label, source, generator."""

    def __init__(self, folders: Iterable[tuple[str, ...]]) -> None:
        self._depths = split_depths(folders)

    def split(self, folder: tuple[str, ...]) -> str:
        """The split that a folder's path names, or else its first part."""
        return split_named(folder[self._depths.get(folder, 0)]) if folder else ""

    def below(self, folder: tuple[str, ...], split: str | None) -> tuple[str, ...]:
        """The folder's path without its split; `split`: the one that was asked for."""
        top = 0 if split and folder and split_named(folder[0]) == split_named(split) else None
        depth = self._depths.get(folder, top)
        return folder if depth is None else folder[:depth] + folder[depth + 1 :]

    def splits(self) -> set[str]:
        """The splits that are named, in whatever words."""
        return {self.split(folder) for folder in self._depths}


class Contents:
    """What one walk through a folder found."""

    def __init__(self, root: Path) -> None:
        self._root = root
        walk = walk_folders(root) if root.is_dir() else ()
        # By their parts from `root`, the folders that hold pictures, with the pictures' names.
        self._walked = {path.relative_to(root).parts: (path, names) for path, names in walk}
        self._folders = Folders(self._walked)

    def splits(self) -> set[str]:
        """What can be asked for as a split."""
        others = {parts[0] for parts in self._walked if parts and not is_split(parts[0])}
        return self._folders.splits() | others

    def records(self, split: str | None = None, labelled: bool = True) -> list[Record]:
        """As `records` of this module."""
        root, walked = self._root, self._walked
        if split:
            wanted, of = split_named(split), self._folders.split
            walked = {parts: what for parts, what in walked.items() if of(parts) == wanted}
        if not walked:
            layout = f"pictures in {LAYOUT}" if labelled else "pictures"
            path = root / split if split else root
            none = " (no picture, by extension)" if root.is_dir() else ""
            raise LayoutError(f"{path}: expected {layout}; found {listed(root)}{none}")
        rows: list[Record] = []
        for parts, (path, names) in walked.items():
            # What the folders state is found once for all their pictures, which may be a million.
            prefix = "".join(f"{part}/" for part in parts)
            label, source, generator = describe(self._folders.below(parts, split))
            if labelled and label is None:
                raise LayoutError(
                    f"{root}: expected {LAYOUT}; found {prefix + names[0]!r} below neither"
                )
            rows += [Record(prefix + n, path / n, label, source, generator) for n in names]
        return sorted(rows, key=lambda record: record.key)


def contents(root: Path) -> Contents:
    """What `records` chooses from, read once. Raises LayoutError: an unreadable folder."""
    return Contents(Path(root))


def records(root: Path, split: str | None = None, labelled: bool = True) -> list[Record]:
    """Lists the pictures below `root`, sorted by key.

    Args:
        root: the folder.
        split: `train`, `val` or `test`, as folders name it at the top or below each generator, or
            any folder directly below `root`; None takes everything.
        labelled: whether every picture must lie below a folder that names its label.

    Raises:
        LayoutError: `root` or its split is missing, holds no picture, or a label is required
            and not stated.
    """
    return contents(root).records(split, labelled)
