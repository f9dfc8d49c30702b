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

    transforms: tuple[Transform, ...]  # of the members that are there

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> list[Any]:
        return [transform(image, rng) for transform in self.transforms]


class Ensemble(Detector):
    """The members, and what makes one logit of theirs. It starts as the average of their
    probabilities as they are."""

    title = "Ensemble"
    Options = EnsembleOptions
    options: EnsembleOptions

    def __init__(self, options: EnsembleOptions, members: Sequence[Detector | None] = ()) -> None:
        """`members`: detectors ready to use, None for one that is left out; without them each is
        built with its own defaults."""
        super().__init__(options)
        small = options.size == "tiny"
        kinds = [load(name) for name in options.members]
        built = members or [kind(kind.tiny() if small else kind.Options()) for kind in kinds]
        self.present = [index for index, member in enumerate(built) if member is not None]
        self.members = nn.ModuleList(member for member in built if member is not None)
        self.fusion = Fusion(len(built) + len(options.scores), options.fusion)

    def transform(self, train: bool) -> Transform:
        return EachTransform(tuple(member.transform(train) for member in self._all()))

    @classmethod
    def made_of(cls, options: EnsembleOptions) -> tuple[tuple[str, str | None], ...]:
        weights = options.weights or (None,) * len(options.members)
        return tuple(zip(options.members, weights, strict=True))

    @classmethod
    def score_files(cls, options: EnsembleOptions) -> tuple[str, ...]:
        return options.scores

    def _all(self) -> list[Detector]:
        return list(self.members)  # type: ignore[arg-type]

    def collate(self, items: list[Any]) -> list[Any]:
        """A list with each member's batch, and the logits of other programs, (B, files), if there
        are any."""
        count = len(self.present)
        parts = [list(part) for part in zip(*items, strict=True)]
        batches = [m.collate(part) for m, part in zip(self._all(), parts[:count], strict=True)]
        return [*batches, *(torch.stack(part) for part in parts[count:])]

    def member_logits(self, batch: list[Any]) -> Tensor:
        """(B, members and files), float32; NaN where one is left out, or says nothing of a
        picture."""
        count = len(self.present)
        logits = [m(part).float() for m, part in zip(self._all(), batch[:count], strict=True)]
        table = batch[count] if len(batch) > count else None
        shape = (len(logits[0] if logits else batch[count]), len(self.fusion.slope))
        columns = torch.full(shape, torch.nan, device=self.fusion.slope.device)
        for index, column in zip(self.present, logits, strict=True):
            columns[:, index] = column
        if table is not None:
            columns[:, len(self.options.members) :] = table
        return columns

    def forward(self, batch: list[Any]) -> Tensor:
        return self.fusion(self.member_logits(batch))

    @classmethod
    def tiny(cls) -> EnsembleOptions:
        return EnsembleOptions(members=("default", "default"), size="tiny")
