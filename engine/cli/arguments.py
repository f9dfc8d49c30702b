"""Types of the command line's values, for argparse: text -> a number, a share, a threshold, a name.

Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets._dates import date

MOST = 2**31 - 1
TAG = re.compile(r"[^\W_][\w.+=@-]{0,99}(?<!\.)")


def number(kind: type, low: float, high: float = MOST) -> Callable[[str], Any]:
    """For argparse: text -> a number of that kind from `low` to `high`; more than the default
    `high` is a slip that no memory and no time would do."""
    limits = f"{low} or more" if high == MOST else f"{low} to {high}"
    wanted = f"a {'whole ' if kind is int else ''}number, {limits}"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if low <= value <= high:
            return value
        raise argparse.ArgumentTypeError(f"expected {wanted}; found {text!r}")

    return parse


def threshold(text: str) -> Any:
    """For argparse: text -> a probability, or the `OwnThreshold` of a file of that name."""
    try:
        float(text)
    except ValueError:
        from ..config import ConfigError
        from ..scoring.own_threshold import read

        try:
            return read(Path(text))
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return number(float, 0, 1)(text)


def share(text: str) -> float:
    """For argparse: text -> a number between 0 and 1, but neither."""
    value = float(number(float, 0, 1)(text))
    if value in (0, 1):
        raise argparse.ArgumentTypeError(f"expected more than 0, less than 1; found {text!r}")
    return value


def month(text: str) -> str:
    """For argparse: text -> a year or a month, as it is spelt."""
    try:
        return date(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder_name(text: str) -> str:
    """For argparse: a name that can be a folder's and a column's on any system."""
    if TAG.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(
        "expected a name of at most 100 letters, digits and any of _.+=@- that begins with a "
        f"letter or a digit; found {text!r}"
    )


def listed(text: str) -> list[str]:
    """For argparse: the names in `a,b`, each once, in their order. Refuses text without any."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError(f"expected names with commas between; found {text!r}")
    return names
