"""DDA's options.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from ._options import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class DdaOptions:
    """The published network, or a tiny one."""

    size: Literal["published", "tiny"] = "published"
    """The published network, or a tiny one, for tests."""
