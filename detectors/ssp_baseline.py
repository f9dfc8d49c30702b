"""The baseline of SSP's table (arXiv 2402.01123): a plain ResNet-50 on the whole picture.

The left number of each pair in that table. No weights of it were published; its training beyond the
network is not described, so the recipe is SSP's own (configs/ssp_baseline.yaml). It exists to be
compared with `ssp`, and shares neither patch nor noise filters with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet

from . import _transforms as T
from ._base import Detector, Transform
from ._faster import fold_norms
from ._ssp_baseline_options import SspBaselineOptions


@dataclass(frozen=True)
class WholePicture:
    """Picture -> (3, size, size), ImageNet-normalised; alike in training and scoring."""

    size: int

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        resized = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return T.normalise(T.to_tensor(resized), T.IMAGENET_MEAN, T.IMAGENET_STD)


class SspBaseline(Detector):
    """Input (B, 3, size, size); 23.5 M parameters as published."""

    title = "SSP's baseline"
    Options = SspBaselineOptions

    def __init__(self, options: SspBaselineOptions) -> None:
        super().__init__(options)
        self.network: nn.Module = resnet.ResNet(
            resnet.Bottleneck, list(options.layers), num_classes=1
        )
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:  # noqa: ARG002
        return WholePicture(self.options.size)

    def optimise(self) -> None:
        fold_norms(self.network)

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch).squeeze(1)

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's ResNet-50 of ImageNet, without its classifier."""
        return {f"network.{k}": v for k, v in published.items() if not k.startswith("fc.")}

    @classmethod
    def tiny(cls) -> SspBaselineOptions:
        return SspBaselineOptions(size=64, layers=(1, 1, 1, 1))
