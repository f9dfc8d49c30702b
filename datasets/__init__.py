"""Data sets: each module is one family with a pure function `records(root, split, ...)`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from ._record import Label, LayoutError, Record, is_picture, walk_pictures

__all__ = [
    "Label",
    "LayoutError",
    "Record",
    "available",
    "is_picture",
    "load",
    "open_path",
    "walk_pictures",
]


def available() -> list[str]:
    """Names of the families, sorted: the public modules of this package."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def load(name: str) -> ModuleType:
    """The family's module. Raises LayoutError listing the choices when there is none."""
    if name not in available():
        raise LayoutError(f"no data set {name!r}; expected one of {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}")


def open_path(
    path: Path, split: str | None = None, labelled: bool = True, csv_root: Path | None = None
) -> list[Record]:
    """Records of a folder or a CSV, whichever `path` is. Raises LayoutError otherwise."""
    path = Path(path)
    if path.is_dir():
        return load("folder").records(path, split, labelled)
    if path.suffix.lower() == ".csv":
        return load("csv_file").records(path, split, labelled, csv_root)
    raise LayoutError(f"{path}: expected a folder or a .csv file; found neither")
