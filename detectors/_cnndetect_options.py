"""CNNDetection's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from ._options import STRICT, Blocks


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class CnnDetectOptions:
    """What the network sees of a picture, and its depth; the published one is a ResNet-50."""

    crop: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Side in px of the centre that is seen, 224 in the paper's tests; null = the whole picture, as
    its authors recommend, of sides over 4,096 px the middle."""
    layers: tuple[Blocks, Blocks, Blocks, Blocks] = (3, 4, 6, 3)
    """Blocks per stage."""
