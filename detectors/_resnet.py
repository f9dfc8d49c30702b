"""The residual and the trunk that NPR and CO-SPY's artifact branches share: what halving and
doubling takes from a picture, and a ResNet-50 cut after layer2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, conv1x1


def neighbour_residual(x: Tensor) -> Tensor:
    """x - up(down(x)), nearest by 1/2 and 2, times 2/3. (B, 3, H, W), H and W even; zero at the
    top left pixel of each 2x2 block. Source: NPR, networks/resnet.py; the same in CO-SPY's
    published artifact encoder, variant progan."""
    down = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    up = F.interpolate(down, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
    return (x - up) * (2 / 3)


def _stage(inputs: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    outputs = planes * Bottleneck.expansion
    downsample = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    first = Bottleneck(inputs, planes, stride, downsample)
    return nn.Sequential(first, *(Bottleneck(outputs, planes) for _ in range(blocks - 1)))


class ArtifactTrunk(nn.Module):
    """(B, 3, H, W) residual -> (B, 8 * width) feature; 512-d at the published width 64.

    CO-SPY, published artifact encoder: a 3x3 stem with stride 2 and no bias instead of 7x7, then
    layer1 (3 bottlenecks), layer2 (4 bottlenecks, stride 2) and global average pooling.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, blocks=3, stride=1)
        self.layer2 = _stage(width * 4, width * 2, blocks=4, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return torch.flatten(self.layer2(self.layer1(x)).mean(dim=(2, 3)), 1)
