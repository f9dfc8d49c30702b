"""CNNDetection (Wang et al., CVPR 2020, arXiv 1912.11035): a ResNet-50 trained on ProGAN alone,
with blur and JPEG as augmentation; the floor that every later table shows.

Published files: blur_jpg_prob0.5.pth and blur_jpg_prob0.1.pth, named after the share of augmented
pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from . import _transforms as T
from ._base import Detector, Part, Transform
from ._cnndetect_options import CnnDetectOptions
from ._errors import OptionError
from ._faster import fold_norms
from ._square import BLUR_AND_JPEG, Square

OWN = "network."


class CnnDetect(Detector):
    """Input (B, 3, H, W), or a list of pictures (3, H, W) of several sizes, ImageNet-normalised;
    23.5 M parameters."""

    title = "CNNDetection"
    Options = CnnDetectOptions
    options: CnnDetectOptions

    def __init__(self, options: CnnDetectOptions) -> None:
        super().__init__(options)
        self.network: nn.Module = resnet.ResNet(
            resnet.Bottleneck, list(options.layers), num_classes=1
        )
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:
        """Not resized in scoring. Training: 256 x 256, augmented, a random crop, of 224 px where
        scoring sees the whole."""
        return Square(
            256 if train else None, self.options.crop, T.IMAGENET_MEAN, T.IMAGENET_STD,
            stretch=True, train=train, distortion=BLUR_AND_JPEG,
        )  # fmt: skip

    def collate(self, items: list[Any]) -> Any:
        """Stacked where all have one size, else a list."""
        return torch.stack(items) if len({item.shape for item in items}) == 1 else items

    def optimise(self) -> None:
        fold_norms(self.network)

    def forward(self, batch: Any) -> Tensor:
        if isinstance(batch, Tensor):
            return self.network(batch).squeeze(1)
        return torch.cat([self.network(picture[None]) for picture in batch]).squeeze(1)

    def parts(self) -> dict[str, Part]:
        if self.options.crop is None:
            raise OptionError(
                f"{self.title}: expected cnndetect.crop=224 or another side, for exported networks "
                "take pictures of one size; found null"
            )
        return super().parts()

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's names."""
        return {k if k.startswith(OWN) else OWN + k: v for k, v in published.items()}

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k.removeprefix(OWN): v for k, v in state.items()}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's ResNet-50 of ImageNet, without its classifier."""
        return {OWN + k: v for k, v in published.items() if not k.startswith("fc.")}

    @classmethod
    def tiny(cls) -> CnnDetectOptions:
        return CnnDetectOptions(crop=64, layers=(1, 1, 1, 1))
