"""Several detectors as one: their calibrated probabilities averaged, or fused by a fitted layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import load
from ._base import Detector, Transform
from ._ensemble_options import EnsembleOptions
from ._fusion import Fusion


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

    @classmethod
    def made_of(cls, options: EnsembleOptions) -> tuple[tuple[str, str | None], ...]:
        weights = options.weights or (None,) * len(options.members)
        return tuple(zip(options.members, weights, strict=True))

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
