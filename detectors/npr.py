"""NPR (Tan et al., CVPR 2024, arXiv 2312.10461): neighbouring pixel relationships, what halving and
doubling a picture does not restore, and half a ResNet-50 on it.

The residual and the trunk are those that CO-SPY's artifact branch took over from it. Published
file: NPR.pth.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from . import _overlay
from . import _transforms as T
from ._base import Detector
from ._faster import fold_norms
from ._npr_options import NprOptions
from ._resnet import ArtifactTrunk, neighbour_residual
from ._square import Square

TRUNK = "trunk."
LAYER = "fc1."  # the published name of the last layer


class Npr(Detector):
    """Input (B, 3, side, side), ImageNet-normalised; 1.4 M parameters."""

    title = "NPR"
    Options = NprOptions
    options: NprOptions

    def __init__(self, options: NprOptions) -> None:
        super().__init__(options)
        self.trunk = ArtifactTrunk(options.width)
        self.fc = nn.Linear(8 * options.width, 1)
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Square:
        """Stretched to a square; training crops 7/8 of it, at random."""
        side = self.options.side
        crop = side // 16 * 14 if train else None
        return Square(side, crop, T.IMAGENET_MEAN, T.IMAGENET_STD, stretch=True, train=train)

    def optimise(self) -> None:
        fold_norms(self.trunk)

    def forward(self, batch: Tensor) -> Tensor:
        return self.fc(self.trunk(neighbour_residual(batch))).squeeze(1)

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the residual's magnitude (side, side), mean over channels."""
        residual = neighbour_residual(batch)
        logits = self.fc(self.trunk(residual)).squeeze(1)
        return logits, list(residual.abs().mean(dim=1).float().cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The square that the network saw, and the residual on it."""
        caption = "what halving and doubling does not restore: |residual|, mean of R, G, B"
        return _overlay.heat(self.transform(train=False).seen(image), relevance.numpy(), caption)

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        if any(key.startswith(TRUNK) for key in published):
            return published
        return {
            f"fc.{k.removeprefix(LAYER)}" if k.startswith(LAYER) else TRUNK + k: v
            for k, v in published.items()
        }

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            LAYER + k.removeprefix("fc.") if k.startswith("fc.") else k.removeprefix(TRUNK): v
            for k, v in state.items()
        }

    @classmethod
    def tiny(cls) -> NprOptions:
        return NprOptions(side=64, width=8)
