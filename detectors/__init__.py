"""Detectors: each public module holds one class that fulfils `_base.Detector`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ._flags import OwnFlags

if TYPE_CHECKING:
    from ._arrays import ArrayScoring
    from ._base import Detector

__all__ = ["arrays", "available", "combined", "flags", "load", "options"]


def available() -> list[str]:
    """Names of the detectors, sorted: the public modules of this package. Imports none of them."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


@cache
def flags() -> dict[str, OwnFlags]:
    """The flags that belong to single detectors, by the detector's name. Imports no torch."""
    modules = {name: f"{__name__}._{name}_flags" for name in available()}
    own = {name: module for name, module in modules.items() if find_spec(module)}
    return {name: importlib.import_module(module).FLAGS for name, module in own.items()}


@cache
def combined() -> tuple[str, ...]:
    """Names of the detectors that are made of others. Imports no torch."""
    return tuple(name for name, own in flags().items() if own.combines)


def options(name: str) -> type | None:
    """The class of a detector's options out of `_NAME_options.py`, without importing torch; None
    where a detector has no such module, and its own says what they are."""
    module = f"{__name__}._{name}_options"
    if name not in available() or not find_spec(module):
        return None
    classes = vars(importlib.import_module(module)).values()
    return next(
        value for value in classes if isinstance(value, type) and value.__module__ == module
    )


def arrays(name: str) -> ArrayScoring | None:
    """What scoring without torch takes of a detector, out of `_NAME_arrays.py`; None where it has
    no such module, and only PyTorch computes it."""
    module = f"{__name__}._{name}_arrays"
    if name not in available() or not find_spec(module):
        return None
    scoring: ArrayScoring = importlib.import_module(module).ARRAYS
    return scoring


def load(name: str) -> type[Detector]:
    """The detector's class. Raises OptionError listing the choices when there is none."""
    from ._base import Detector
    from ._errors import OptionError

    if name not in available():
        raise OptionError(f"no detector {name!r}; expected one of {', '.join(available())}")
    module = importlib.import_module(f"{__name__}.{name}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, Detector)
            and value.__module__ == module.__name__
        ):
            return value
    raise OptionError(f"detectors/{name}.py: expected a subclass of Detector; found none")
