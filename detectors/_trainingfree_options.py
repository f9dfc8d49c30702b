"""The options of detection without training data.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ._options import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class TrainingFreeOptions:
    """The perturbation, the encoder whose features it moves, and where the threshold lies."""

    method: Literal["rigid", "noise", "blur", "minder", "warpad"] = "rigid"
    """What is done to a picture; see detectors/trainingfree.py."""
    network: Literal["vit_small_patch14_dinov2", "vit_large_patch14_dinov2"] = (
        "vit_small_patch14_dinov2"
    )
    """The encoder, by its name in timm."""
    noise: Annotated[float, Field(ge=1e-4, le=10)] | None = None
    """Deviation of the noise; null = the published one of the method."""
    draws: Annotated[int, Field(ge=1, le=16)] | None = None
    """Draws of the noise, over whose distances the mean is taken; null = the published number."""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the real pictures that the fitted threshold calls synthetic."""
    size: Literal["published", "tiny"] = "published"
    """The published encoder, or a tiny one, for tests."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers of noise where the method draws none."""
        if self.method in ("blur", "warpad") and (self.noise or self.draws):
            raise ValueError(
                f"expected neither trainingfree.noise nor trainingfree.draws with {self.method}, "
                "which draws none; found one"
            )
