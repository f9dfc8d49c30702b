"""The shipped detector's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ._options import STRICT, Probability, Side, within

CLIP_SIDE = 224  # px, what CLIP's positions were trained for
PATCH = 16  # px of the picture that are a token


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class DefaultOptions:
    """The parts that judge, what they see of a picture, and how training varies pictures."""

    branch: Literal["both", "semantic", "artifact"] = "both"
    """Both and their fusion, or one alone."""
    blocks: Annotated[int, Field(ge=1, le=12)] = 8
    """Of the encoder, the last so many of which are judged."""
    crop: Side = 224
    """Side in px of a view; with the encoder the one it was trained for."""
    views: Literal[1, 5] = 5
    """Crops per picture when scoring: the centre, or the corners too."""
    stem_stride: Literal[1, 2] = 2
    """Of the trunk's first convolution."""
    dropout: Probability = 0.2
    """Before the trunk's classifier."""
    size: Literal["published", "tiny"] = "published"
    """The published encoder, or a tiny one, for tests."""
    resize_prob: Probability = 0.5
    """Augmentation in training, the same for both classes, as all that follows."""
    resize: Annotated[tuple[float, float], within(1e-3, 16)] = (0.6, 1.3)
    """Factor."""
    blur_prob: Probability = 0.05
    colour_prob: Probability = 0.1
    encode_prob: Probability = 0.95
    """Of one encoding, WebP with `webp_prob` and else JPEG."""
    webp_prob: Probability = 0.25
    quality: Annotated[tuple[int, int], within(1, 100)] = (35, 95)
    """Of that encoding."""

    def __post_init__(self) -> None:
        """Raises ValueError where the encoder could not see views of this size."""
        if self.branch == "artifact":
            return
        if self.size == "published" and self.crop != CLIP_SIDE:
            raise ValueError(
                f"expected default.crop={CLIP_SIDE}, which the encoder sees (any with "
                f"default.branch=artifact); found {self.crop}"
            )
        if self.crop % PATCH:
            raise ValueError(f"expected default.crop a multiple of {PATCH}; found {self.crop}")
