"""argparse as this project asks by it: errors of one line, flags that know their phases.

`parser` builds the command line of main.py of it, and scripts theirs. Imports nothing heavy:
--help waits for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from datasets._paths import visible

from ..runtime.program import USAGE

EVERY = "train eval test"


def _each_with_its_flag(words: Sequence[str]) -> list[str]:
    """`--set a.b=1 c.d=2` -> `--set a.b=1 --set c.d=2`. With nargs="+" argparse would also take
    what follows them, such as a script's file."""
    spread: list[str] = []
    for word in words:
        after_value = len(spread) > 1 and spread[-2] == "--set"
        if after_value and "=" in word and not word.startswith("-"):
            spread.append("--set")
        spread.append(word)
    return spread


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line. `phases`: flag -> the phases that heed it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.phases: dict[str, tuple[str, ...]] = {}

    def flag(self, group: Any, name: str, phases: str = EVERY, **options: Any) -> None:
        """Adds a flag to a group; the phases that do not heed it refuse it."""
        # Stated here, beside what the flag means, and read by `rules`: no second list to forget.
        action = group.add_argument(name, **options)
        self.phases[action.dest] = tuple(phases.split())

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse has it; `--set` takes several values, pictures may stand between flags, where
        argparse takes those in one place only, and no word is empty: an empty path would be the
        current folder."""
        words = list(sys.argv[1:] if args is None else args)
        for index, word in enumerate(words):
            if not word or (word.startswith("--") and word.find("=") == len(word) - 1):
                before = (flag for flag in reversed(words[:index]) if flag.startswith("-"))
                flag = word[:-1] or next(before, "the first word")
                self.error(f"{flag}: expected a value; found an empty one")
        parsed, unknown = super().parse_known_args(_each_with_its_flag(words), namespace)
        if hasattr(parsed, "pictures") and not any(word.startswith("-") for word in unknown):
            parsed.pictures, unknown = [*parsed.pictures, *unknown], []
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        text = visible(" ".join(message.split()))
        self.exit(USAGE, f"{self.prog}: {text}; --help lists the flags\n")
