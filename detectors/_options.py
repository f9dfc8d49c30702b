"""Vocabulary of the option classes: pydantic's dataclasses, with a range and a description per key.

The detectors' `Options` and the engine's configuration are written with it, and `one_line` says
what is wrong with a value. It imports neither torch nor the engine.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

# Strict: `true` is no 1, and 1 no text. What stands below a key describes it.
STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
SHOWN = 60  # characters of a wrong value that an error repeats

Count = Annotated[int, Field(ge=1, le=10**5)]  # more is a slip, and no memory holds it
Probability = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=32, le=4096)]  # px of what a network sees
Blocks = Annotated[int, Field(ge=1, le=100)]


def within(low: float, high: float) -> AfterValidator:
    """The rule of a range: a pair of numbers from `low` to `high`, the smaller first."""

    def check(pair: tuple[float, float]) -> tuple[float, float]:
        if not low <= pair[0] <= pair[1] <= high:
            raise ValueError(f"expected two numbers from {low} to {high}, the smaller first")
        return pair

    return AfterValidator(check)


def _class_in(hint: Any) -> type | None:
    """The dataclass that an annotation speaks of, alone or in a container; None without one."""
    if dataclasses.is_dataclass(hint):
        return typing.cast(type, hint)
    return next((kind for part in typing.get_args(hint) if (kind := _class_in(part))), None)


def _holder(kind: type, path: tuple[int | str, ...]) -> type:
    """The class, `kind` or one nested in it, that has the last key of a path."""
    for key in path[:-1]:
        hint = typing.get_type_hints(kind).get(str(key))  # none for a position, or a name in a map
        kind = _class_in(hint) or kind
    return kind


def shown(value: Any) -> str:
    """A wrong value as an error repeats it, at most `SHOWN` characters of it."""
    try:
        text = repr(value)
    except ValueError:  # Python spells out no thousands of digits
        text = "a number too long to show"
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def describe_options(options: Any) -> dict[str, Any]:
    """Options as a plain dict, in the order of their definition."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def one_line(error: ValidationError, kind: type, section: str) -> str:
    """The first fault of a validation as `section.key: what was expected; found what`.

    Args:
        error: what pydantic raised.
        kind: the class that was validated; its keys are listed where one is unknown.
        section: the name of what was validated, put before the key.

    Returns:
        One line, with the key's description where it has one.
    """
    fault = error.errors(include_url=False)[0]
    message, path = fault["msg"].removeprefix("Value error, "), fault["loc"]
    name = ".".join([section, *map(str, path)])
    keys = getattr(_holder(kind, path), "__pydantic_fields__", {})
    if fault["type"] == "unexpected_keyword_argument":
        return f"{name}: unknown key; known: {', '.join(keys)}"
    # A rule about several keys says itself what it found of them.
    told = fault["type"] == "missing" or (fault["type"] == "value_error" and not path)
    found = "" if told else f"; found {shown(fault['input'])}"
    about = next((keys[key].description for key in path if key in keys), None)
    return " ".join(f"{name}: {message}{found}{f' ({about})' if about else ''}".split())
