"""RINE's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from ._options import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class RineOptions:
    """The published variant, and what it sees of a picture."""

    variant: Literal["1class", "2class", "4class", "ldm"] = "4class"
    """What it was trained on: that many classes of ProGAN, or latent diffusion."""
    crops: Literal[1, 10] = 1
    """The centre; or corners and centre, plain and mirrored, whose logits are averaged, as the
    paper tests the variant ldm."""
    size: Literal["published", "tiny"] = "published"
    """The published network, or a tiny one, for tests."""
