"""The few-shot detector's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ._options import STRICT, Count


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class FewShotOptions:
    """The features that prototypes lie among, and how many there are of each class."""

    blocks: Annotated[int, Field(ge=1, le=12)] = 8
    """Of the encoder, the last so many of which give the features."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Weight of the nearest prototypes over the others: of cosine similarity, before softmax."""
    real: Count = 1
    """Prototypes of real pictures, one for each source; fitting counts them."""
    fake: Count = 1
    """Prototypes of synthetic pictures, one for each generator; fitting counts them."""
    size: Literal["published", "tiny"] = "published"
    """The published encoder, or a tiny one, for tests."""
