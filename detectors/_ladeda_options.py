"""LaDeDa's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from ._options import STRICT, Side


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class LaDeDaOptions:
    """The published network, and what it sees of a picture."""

    network: Literal["ladeda", "tiny"] = "ladeda"
    """LaDeDa, or Tiny-LaDeDa, distilled from it."""
    side: Side = 256
    """px that the whole picture is resized to, without regard to its aspect."""

    def __post_init__(self) -> None:
        """Raises ValueError for a side that cannot be halved."""
        if self.side % 2:
            raise ValueError(f"expected ladeda.side to be even; found {self.side}")
