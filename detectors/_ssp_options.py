"""SSP's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from ._options import STRICT, Blocks, Probability, Side

PATCH = 32  # px
SIDE = 256  # px of a picture that is taken whole, or that is too small for a patch


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SspOptions:
    """The patches that are judged, augmentation, and the network; published: a ResNet-50."""

    patches: Annotated[int, Field(ge=1)] = 1
    """Average the logits of the N simplest patches (1 as published)."""
    patch_size: Annotated[int, Field(ge=2, le=SIDE)] = PATCH
    """Px."""
    crops: Annotated[int | None, Field(ge=1, le=SIDE**2)] = None
    """Random ones, among which the simplest are looked for (null = as many as fill 256 x 256, 64
    of 32 px)."""
    whole_picture: bool = False
    """The picture at 256 x 256, whatever its aspect, in the patch's place."""
    blur_prob: Probability = 0.0
    """Augmentation in training (0 as published)."""
    jpg_prob: Probability = 0.0
    """Augmentation in training (0 as published)."""
    layers: tuple[Blocks, Blocks, Blocks, Blocks] = (3, 4, 6, 3)
    """Blocks per stage."""
    size: Side = 256
    """Side in px of the upsampled patch."""

    def __post_init__(self) -> None:
        most = 1 if self.whole_picture else self.candidates
        if self.patches > most:
            raise ValueError(f"expected ssp.patches from 1 to {most}; found {self.patches}")

    @property
    def candidates(self) -> int:
        """The number of crops."""
        return (SIDE // self.patch_size) ** 2 if self.crops is None else self.crops
