"""LaDeDa and Tiny-LaDeDa (Cavia et al., 2024, arXiv 2406.09398): a score for each patch of 9 x 9
pixels, whose mean is the picture's.

LaDeDa is a ResNet-50 with nearly all of its 3 x 3 convolutions made 1 x 1, on NPR's residual;
Tiny-LaDeDa has four convolutions, on a diagonal gradient. Published files: WildRF_*.pth and
ForenSynth_*.pth of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from . import _overlay
from . import _transforms as T
from ._base import Detector
from ._faster import fold_norms
from ._ladeda_options import LaDeDaOptions
from ._resnet import neighbour_residual
from ._square import Square

# Sobel's gradient along the falling diagonal: what Tiny-LaDeDa sees.
DIAGONAL = ((-2.0, -1.0, 0.0), (-1.0, 0.0, 1.0), (0.0, 1.0, 2.0))
WIDTHS, BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)
STRIDES = (2, 2, 2, 1)
KERNELS = (3, 3, 1, 1)  # of the first block of each stage; all others see single pixels
EXPANSION = 4


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, bias=False)


class Bottleneck(nn.Module):
    """ResNet's bottleneck without padding: what the convolution loses at the right and lower border
    the shortcut loses too."""

    def __init__(self, inputs: int, planes: int, kernel: int, stride: int, first: bool) -> None:
        super().__init__()
        outputs = planes * EXPANSION
        self.conv1, self.bn1 = _conv(inputs, planes, 1), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv(planes, planes, kernel, stride), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = _conv(planes, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = None
        if first:
            shortcut = _conv(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return (y + shortcut[:, :, : y.shape[2], : y.shape[3]]).relu()


class TinyBlock(nn.Module):
    """Two convolutions without padding, the second 3 x 3 with stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(width, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, 2), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()


class PatchNetwork(nn.Module):
    """(B, 3, H, W), filtered -> patch logits (B, h, w); names of layers as published."""

    def __init__(self, tiny: bool) -> None:
        super().__init__()
        width = 8 if tiny else WIDTHS[0]
        self.conv1, self.conv2 = _conv(3, width, 1), _conv(width, width, 3)
        self.bn1 = nn.BatchNorm2d(width, momentum=0.001)
        if tiny:
            self.stages = ["layer1"]
            self.layer1 = nn.Sequential(TinyBlock(width))
            self.fc = nn.Linear(width, 1)
            return
        self.stages = [f"layer{number}" for number in range(1, 5)]
        stages = zip(self.stages, WIDTHS, BLOCKS, KERNELS, STRIDES, strict=True)
        for name, planes, blocks, kernel, stride in stages:
            first = Bottleneck(width, planes, kernel, stride, first=True)
            width = planes * EXPANSION
            rest = [Bottleneck(width, planes, 1, 1, first=False) for _ in range(blocks - 1)]
            self.add_module(name, nn.Sequential(first, *rest))
        self.fc = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv2(self.conv1(x))).relu()
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.permute(0, 2, 3, 1)).squeeze(3)


class LaDeDa(Detector):
    """Input (B, 3, side, side), ImageNet-normalised; 13.6 M parameters, Tiny-LaDeDa 1,297."""

    title = "LaDeDa"
    Options = LaDeDaOptions
    CHOICE = ("network",)
    options: LaDeDaOptions

    def __init__(self, options: LaDeDaOptions) -> None:
        super().__init__(options)
        self.network = PatchNetwork(options.network == "tiny")
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Square:
        """Stretched to a square; training crops 7/8 of it, at random."""
        side = self.options.side
        crop = side // 16 * 14 if train else None
        return Square(side, crop, T.IMAGENET_MEAN, T.IMAGENET_STD, stretch=True, train=train)

    def optimise(self) -> None:
        fold_norms(self.network)

    def patch_logits(self, batch: Tensor) -> Tensor:
        """(B, h, w), one for each patch of 9 x 9 pixels, 8 apart (Tiny-LaDeDa: 7 x 7, 2 apart)."""
        if self.options.network == "ladeda":
            return self.network(neighbour_residual(batch))
        kernel = torch.tensor(DIAGONAL, dtype=batch.dtype, device=batch.device)
        gradient = F.conv2d(batch, kernel.expand(3, 1, 3, 3), groups=3, padding=1)
        return self.network(gradient)

    def forward(self, batch: Tensor) -> Tensor:
        return self.patch_logits(batch).mean(dim=(1, 2))

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the logit of each patch, (h, w)."""
        logits = self.patch_logits(batch)
        return logits.mean(dim=(1, 2)), list(logits.float().cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The square that the network saw, and the logits of its patches on it."""
        most = float(relevance.abs().max())
        return _overlay.heat(
            self.transform(train=False).seen(image), relevance.numpy(),
            "logit of each patch: yellow = synthetic, violet = real", -most, most,
        )  # fmt: skip

    @classmethod
    def entry(cls, options: LaDeDaOptions) -> str:
        return "tiny-ladeda" if options.network == "tiny" else "ladeda"

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        own = "network."
        return {k if k.startswith(own) else own + k: v for k, v in published.items()}

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k.removeprefix("network."): v for k, v in state.items()}

    @classmethod
    def tiny(cls) -> LaDeDaOptions:
        return LaDeDaOptions(network="tiny", side=64)
