"""The options of SSP's baseline.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

import pydantic

from ._options import STRICT, Blocks, Side


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SspBaselineOptions:
    """The size of what the network sees and its depth; the published one is a ResNet-50."""

    size: Side = 256
    """Side in px that the whole picture is resized to, without regard to its aspect."""
    layers: tuple[Blocks, Blocks, Blocks, Blocks] = (3, 4, 6, 3)
    """Blocks per stage."""
