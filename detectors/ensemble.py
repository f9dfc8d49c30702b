"""Several detectors as one: their calibrated probabilities averaged, or fused by a fitted layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import available, load
from ._base import Detector, OptionError, Transform, one_of
from ._fusion import Fusion

NAME = "ensemble"


@dataclass(frozen=True)
class EnsembleOptions:
    """`members`: names of detectors. `weights`: a file, folder or name of the manifest for each, in
    the same order; empty: each one's own. `fusion`: what training fits: `average`, a calibration of
    each member, whose probabilities are then averaged; `fitted`, also a weight for each. `size`: of
    the members' networks where they are built here, published or, for tests, tiny."""

    members: tuple[str, ...] = ("cospy", "spai", "ssp")
    weights: tuple[str, ...] = ()
    fusion: str = "average"
    size: str = "published"

    def __post_init__(self) -> None:
        one_of("ensemble.fusion", self.fusion, ("average", "fitted"))
        one_of("ensemble.size", self.size, ("published", "tiny"))
        choices = [name for name in available() if name != NAME]
        unknown = [name for name in self.members if name not in choices]
        if unknown or not self.members:
            raise OptionError(
                f"ensemble.members: expected some of {', '.join(choices)}; found {self.members}"
            )
        texts = all(isinstance(name, str) for name in self.weights)
        if not texts or len(self.weights) not in (0, len(self.members)):
            raise OptionError(
                f"ensemble.weights: expected a file or name for each of {len(self.members)} "
                f"members, or none; found {self.weights}"
            )


@dataclass(frozen=True)
class EachTransform:
    """Picture -> a list with each member's item."""

    transforms: tuple[Transform, ...]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> list[Any]:
        return [transform(image, rng) for transform in self.transforms]


class Ensemble(Detector):
    """The members, and what makes one logit of theirs. It starts as the average of their
    probabilities as they are."""

    title = "Ensemble"
    Options = EnsembleOptions

    def __init__(self, options: EnsembleOptions, members: Sequence[Detector] = ()) -> None:
        """`members`: detectors ready to use; without them each is built with its own defaults."""
        super().__init__(options)
        small = options.size == "tiny"
        kinds = [load(name) for name in options.members]
        built = members or [kind(kind.tiny() if small else kind.Options()) for kind in kinds]
        self.members = nn.ModuleList(built)
        self.fusion = Fusion(len(built), options.fusion)

    def transform(self, train: bool) -> Transform:
        return EachTransform(tuple(member.transform(train) for member in self._all()))

    def _all(self) -> list[Detector]:
        return list(self.members)  # type: ignore[arg-type]

    def collate(self, items: list[Any]) -> list[Any]:
        """A list with each member's batch."""
        parts = zip(*items, strict=True)
        return [m.collate(list(part)) for m, part in zip(self._all(), parts, strict=True)]

    def member_logits(self, batch: list[Any]) -> Tensor:
        """(B, members), float32."""
        logits = [member(part) for member, part in zip(self._all(), batch, strict=True)]
        return torch.stack([each.float() for each in logits], dim=1)

    def forward(self, batch: list[Any]) -> Tensor:
        return self.fusion(self.member_logits(batch))

    @classmethod
    def tiny(cls) -> EnsembleOptions:
        return EnsembleOptions(members=("default", "default"), size="tiny")
