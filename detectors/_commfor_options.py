"""Community Forensics' options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from ._options import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class CommForOptions:
    """The published network."""

    side: Literal[384, 224, 64] = 384
    """px that it sees; 384 and 224 are published, 64 is a tiny network for tests."""
