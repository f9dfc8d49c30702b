"""Data sets: each module is one family with a pure function `records(root, split, ...)`.

Called by the requests of all phases and by the scripts. A family lists files, sorted by key; none
decodes a picture or imports torch, and what it expects but does not find is a LayoutError.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Protocol

from ._kinds import CHOICES, csv_roots, kind_of, known_kind, tell_left_out
from ._record import Label, LayoutError, Record, is_picture, walk_pictures

__all__ = [
    "CHOICES",
    "Contents",
    "Label",
    "LayoutError",
    "Record",
    "available",
    "benchmarks",
    "contents",
    "csv_roots",
    "is_picture",
    "kind_of",
    "known_kind",
    "load",
    "open_path",
    "walk_pictures",
]


def available() -> list[str]:
    """Names of the families, sorted: the public modules of this package."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def benchmarks() -> list[str]:
    """Names of the families that are benchmarks, sorted: their modules have LOCATIONS."""
    return [name for name in available() if hasattr(load(name), "LOCATIONS")]


def load(name: str) -> ModuleType:
    """The family's module. Raises LayoutError listing the choices when there is none."""
    if name not in available():
        raise LayoutError(f"no data set {name!r}; expected one of {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}")


class Contents(Protocol):
    """What a folder, a CSV or an archive holds. It is read once, and warns once."""

    def splits(self) -> set[str]:
        """What `records` can be asked for."""

    def records(self, split: str | None = None, labelled: bool = True) -> list[Record]:
        """As the function `records` of the family."""


def contents(path: Path, csv_root: Path | None = None) -> Contents:
    """What a folder, a CSV or an archive holds, whichever `path` is.

    Raises:
        LayoutError: it is none of these, or its family's reason.
    """
    path = Path(path)
    kind = known_kind(path)
    if kind in ("folder", "tar_shards", "parquet_file") and path.is_dir():
        tell_left_out(path, kind)
    read: Contents = load(kind).contents(path, *([csv_root] if kind == "csv_file" else []))
    return read


def open_path(
    path: Path, split: str | None = None, labelled: bool = True, csv_root: Path | None = None
) -> list[Record]:
    """Records of a folder, a CSV or an archive, whichever `path` is.

    Args:
        path: of the data set.
        split: one of `Contents.splits`; None takes everything.
        labelled: whether every picture must have a label.
        csv_root: where the paths in a CSV start from; None = from its own folder.

    Raises:
        LayoutError: as `contents` and its `records` do.
    """
    return contents(path, csv_root).records(split, labelled)
