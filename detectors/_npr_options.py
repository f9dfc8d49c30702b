"""NPR's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from ._options import STRICT, Side


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class NprOptions:
    """What the network sees of a picture, and how wide it is."""

    side: Side = 256
    """px that the whole picture is resized to, without regard to its aspect."""
    width: Annotated[int, Field(ge=1, le=512)] = 64
    """Channels of the first layer; published 64."""

    def __post_init__(self) -> None:
        """Raises ValueError for a side that cannot be halved."""
        if self.side % 2:
            raise ValueError(f"expected npr.side to be even; found {self.side}")
