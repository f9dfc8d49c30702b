"""CO-SPY's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ._options import STRICT, Probability


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class CoSpyOptions:
    """The published variant, which of its networks judge, and how the semantic one learns."""

    train_dataset: Literal["sd-v1_4", "progan"] = "sd-v1_4"
    """This and the next two as on the published command line."""
    mode: Literal["branch", "fusion", "end2end"] = "fusion"
    branch: Literal["artifact", "semantic"] = "artifact"
    size: Literal["published", "tiny"] = "published"
    """The published networks, or tiny ones with the same parts, for tests."""
    feat_interp: bool = False
    """Whether the semantic branch learns from `interpolate`d features."""
    feat_interp_alpha: Annotated[float, Field(ge=0.01, le=1000)] = 0.2
    """Of smaller ones torch draws 0.5 alone, where it should draw 0 or 1."""
    feat_interp_ratio: Probability = 0.5

    @property
    def part(self) -> str:
        """What of the system is meant: semantic, artifact, fusion or end2end."""
        return self.branch if self.mode == "branch" else self.mode

    @property
    def tiny(self) -> bool:
        """Whether the networks are those for tests."""
        return self.size == "tiny"
