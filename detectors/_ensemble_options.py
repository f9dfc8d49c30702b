"""The options of several detectors as one.

Read by the configuration without importing torch, so that a slip in a key is answered at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator

from . import available
from ._options import STRICT

NAME = "ensemble"


def _known(members: tuple[str, ...]) -> tuple[str, ...]:
    """Names of detectors, as they are. Raises ValueError listing the choices for any other."""
    choices = [name for name in available() if name != NAME]
    if not members or not set(members) <= set(choices):
        raise ValueError(f"expected some of {', '.join(choices)}")
    return members


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class EnsembleOptions:
    """The members, their weights, and how their logits become one."""

    members: Annotated[tuple[str, ...], AfterValidator(_known)] = ("cospy", "spai", "ssp")
    """Names of detectors."""
    weights: tuple[str, ...] = ()
    """A file, folder or name of the manifest for each member, in the same order; empty: each
    one's own."""
    scores: tuple[str, ...] = ()
    """CSV files with other programs' scores of the same pictures, each one a member after the
    detectors; in phases eval and train."""
    missing: Literal["refuse", "leave_out"] = "refuse"
    """What is done about a member whose weights are not here; in phases eval and test."""
    fusion: Literal["average", "fitted"] = "average"
    """What training fits: average, a calibration of each member, whose probabilities are then
    averaged; fitted, also a weight for each."""
    size: Literal["published", "tiny"] = "published"
    """Of the members' networks where they are built here; tiny is for tests."""

    def __post_init__(self) -> None:
        if len(self.weights) not in (0, len(self.members)):
            raise ValueError(
                f"expected ensemble.weights to name a file for each of {len(self.members)} "
                f"members, or none; found {self.weights}"
            )
