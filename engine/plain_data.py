"""JSON and YAML as strangers may write them: read within limits of size, depth and aliases.

Every reader of such files and words goes through here, and gets data or a ValueError of one line:
a file that nests or repeats itself without end costs neither the memory nor the stack.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

MOST_JSON, MOST_YAML = 64 * 10**6, 10**6  # bytes; the largest of our YAML files has 17,000
DEEPEST, MOST_ALIASES = 50, 20


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits, which takes each key of a mapping once."""

    depth = aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As the composer has it. Raises ComposerError beyond the limits."""
        self.aliases += self.check_event(yaml.AliasEvent)
        self.depth += 1
        # Few aliases of aliases can stand for millions of values.
        if self.depth > DEEPEST or self.aliases > MOST_ALIASES:
            limits = f"at most {DEEPEST} levels and {MOST_ALIASES} aliases"
            raise yaml.composer.ComposerError(None, None, f"more than {limits}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """As the composer has it. Raises ComposerError for a key that is there twice, of which
        PyYAML would take the last."""
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            where = node.start_mark
            raise yaml.composer.ComposerError(None, None, f"the key {twice[0]!r} twice", where)
        return node


# PyYAML knows YAML 1.1 alone, where 1e-4 is a text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read(path: Path, most: int) -> str:
    """The text of a regular file. Raises OSError, or ValueError for one that is larger, or is no
    UTF-8."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: no regular file")  # a pipe would never end
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most:,} bytes")
    return content.decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """The data that a JSON text spells. Raises ValueError."""
    if len(text) > MOST_JSON:
        raise ValueError(f"more than {MOST_JSON:,} bytes")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists or objects in one another without end") from error


def read_json(path: Path) -> Any:
    """`parse_json` of a file. Raises OSError where it cannot be read."""
    return parse_json(_read(path, MOST_JSON))


def parse_yaml(text: str) -> Any:
    """The data that a YAML text spells. Raises ValueError."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # PyYAML's constructors of numbers, dates and truth values raise what they stumble over.
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def read_yaml(path: Path) -> Any:
    """`parse_yaml` of a file. Raises OSError where it cannot be read."""
    return parse_yaml(_read(path, MOST_YAML))
