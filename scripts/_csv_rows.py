"""Rows of a CSV of pictures: what can be named in one, and by which path.

make_csv.py gives every picture that it lists to a `Namer`, which says of those that cannot be a
row why. Only names and sizes are looked at; no picture is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Label, LayoutError

MISSING = "no such file"


@dataclass(frozen=True)
class Row:
    """A line of a CSV; `image` is a path with forward slashes."""

    image: str
    label: Label
    split: str
    generator: str = ""
    source: str = ""


def problem(path: Path, name: str) -> str:
    """Why a picture cannot be a row under `name`, in a few words; '' where it can."""
    try:
        name.encode()
        size = path.stat().st_size
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    if "\\" in name:
        return "a backslash in its name"  # which stands for a folder in a CSV from Windows
    return "" if size else "no bytes"


@dataclass
class Namer:
    """Names of pictures, paths from `base`; `left_out` has what cannot be a row, and why."""

    base: Path
    left_out: dict[str, str] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """The path from `base`. Raises LayoutError for a picture outside it."""
        if path.is_relative_to(self.base):
            return path.relative_to(self.base).as_posix()
        raise LayoutError(
            f"{path}: expected pictures inside {self.base}, where the paths in the CSV start: "
            "write it to a folder above them, or name one with --relative_to"
        )

    def take(self, paths: Sequence[Path]) -> dict[Path, str]:
        """The usable pictures in their order, each with its name."""
        from engine.runtime.progress import Progress

        names: dict[Path, str] = {}
        with Progress(len(paths), "checking files") as progress:
            for path in paths:
                name = self.name(path)
                if reason := problem(path, name):
                    self.left_out[name] = reason
                else:
                    names[path] = name
                progress.advance(1)
        return names
