"""Published networks as plain formulae on state dicts, in float64, for parity tests: nothing of
detectors/ is used. Keys are those of the published files and of open_clip and timm."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

State = dict[str, Tensor]
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# --- pictures


def centre(image: Image.Image, side: int) -> Image.Image:
    """The central square, black beyond the borders."""
    paper = Image.new("RGB", (max(side, image.width), max(side, image.height)))
    paper.paste(image, ((paper.width - image.width) // 2, (paper.height - image.height) // 2))
    left, top = round((paper.width - side) / 2), round((paper.height - side) / 2)
    return paper.crop((left, top, left + side, top + side))


def shorter(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """Shorter side to `side` px; the longer one is cut to whole px, not rounded."""
    width, height = image.size
    if width <= height:
        return image.resize((side, int(side * height / width)), how)
    return image.resize((int(side * width / height), side), how)


def normal(image: Image.Image, norm: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """(1, 3, H, W) float64."""
    pixels = np.asarray(image, dtype=np.float64) / 255
    scaled = (pixels - np.array(norm[0])) / np.array(norm[1])
    return torch.from_numpy(scaled.transpose(2, 0, 1)[None])


# --- convolutions


def bn(s: State, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        s[f"{name}.{part}"].double()[:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def conv(s: State, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, s[f"{name}.weight"].double(), stride=stride, padding=padding)


def bottleneck(s: State, name: str, x: Tensor, stride: int, padding: int) -> Tensor:
    """ResNet's, with the stride in its middle convolution; without padding the shortcut loses its
    last rows and columns."""
    y = bn(s, f"{name}.bn1", conv(s, f"{name}.conv1", x)).clamp(min=0)
    y = bn(s, f"{name}.bn2", conv(s, f"{name}.conv2", y, stride, padding)).clamp(min=0)
    y = bn(s, f"{name}.bn3", conv(s, f"{name}.conv3", y))
    if f"{name}.downsample.0.weight" in s:
        x = bn(s, f"{name}.downsample.1", conv(s, f"{name}.downsample.0", x, stride))
    return (y + x[..., : y.shape[2], : y.shape[3]]).clamp(min=0)


def stages(s: State, x: Tensor, strides: tuple[int, ...], padding: int) -> Tensor:
    """All blocks of layer1, layer2, ..., as many as the state dict has."""
    for number, first in enumerate(strides, start=1):
        index = 0
        while f"layer{number}.{index}.conv1.weight" in s:
            name = f"layer{number}.{index}"
            x = bottleneck(s, name, x, 1 if index else first, padding)
            index += 1
    return x


def linear(s: State, name: str, x: Tensor) -> Tensor:
    return x @ s[f"{name}.weight"].double().T + s[f"{name}.bias"].double()


def resnet(s: State, x: Tensor) -> Tensor:
    """torchvision's, with one output."""
    x = bn(s, "bn1", conv(s, "conv1", x, 2, 3)).clamp(min=0)
    x = stages(s, F.max_pool2d(x, 3, 2, 1), (1, 2, 2, 2), 1)
    return linear(s, "fc", x.mean(dim=(2, 3)))[:, 0]


def halves(x: Tensor) -> Tensor:
    """What is left of x when each 2 x 2 block is filled with its first value."""
    return x - x[..., ::2, ::2].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def npr(s: State, x: Tensor) -> Tensor:
    x = bn(s, "bn1", conv(s, "conv1", halves(x) * 2 / 3, 2, 1)).clamp(min=0)
    x = stages(s, F.max_pool2d(x, 3, 2, 1), (1, 2), 1)
    return linear(s, "fc1", x.mean(dim=(2, 3)))[:, 0]


def ladeda(s: State, x: Tensor) -> Tensor:
    x = bn(s, "bn1", conv(s, "conv2", conv(s, "conv1", halves(x) * 2 / 3))).clamp(min=0)
    x = stages(s, x, (2, 2, 2, 1), 0)
    return linear(s, "fc", x.mean(dim=(2, 3)))[:, 0]


def tiny_ladeda(s: State, x: Tensor) -> Tensor:
    p = F.pad(x, (1, 1, 1, 1))
    h, w = x.shape[2:]

    def at(row: int, column: int) -> Tensor:
        return p[..., row : row + h, column : column + w]

    x = 2 * at(2, 2) + at(1, 2) + at(2, 1) - 2 * at(0, 0) - at(0, 1) - at(1, 0)
    x = bn(s, "bn1", conv(s, "conv2", conv(s, "conv1", x))).clamp(min=0)
    x = bn(s, "layer1.0.bn1", conv(s, "layer1.0.conv1", x)).clamp(min=0)
    x = bn(s, "layer1.0.bn2", conv(s, "layer1.0.conv2", x, 2)).clamp(min=0)
    return linear(s, "fc", x.mean(dim=(2, 3)))[:, 0]


# --- transformers


def layer_norm(s: State, name: str, x: Tensor, epsilon: float) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt()
    return x * s[f"{name}.weight"].double() + s[f"{name}.bias"].double()


def attention(joint: Tensor, heads: int) -> Tensor:
    """Softmax attention of query, key and value, joined in the last dimension."""
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1)
    )
    weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def clip(s: State, x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """OpenAI's: the feature (B, F), the class token after each block, and the second norm of it
    (B, blocks, width)."""
    patch = s["conv1.weight"].shape[-1]
    x = F.conv2d(x, s["conv1.weight"].double(), stride=patch).flatten(2).transpose(1, 2)
    first = s["class_embedding"].double().expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + s["positional_embedding"].double()
    x = layer_norm(s, "ln_pre", x, 1e-5)
    tokens, normed = [], []
    for index in range(sum(key.endswith(".ln_1.weight") for key in s)):
        name = f"transformer.resblocks.{index}"
        joint = layer_norm(s, f"{name}.ln_1", x, 1e-5) @ s[f"{name}.attn.in_proj_weight"].double().T
        joint = joint + s[f"{name}.attn.in_proj_bias"].double()
        x = x + linear(s, f"{name}.attn.out_proj", attention(joint, heads))
        y = layer_norm(s, f"{name}.ln_2", x, 1e-5)
        normed.append(y[:, 0])
        y = linear(s, f"{name}.mlp.c_fc", y)
        x = x + linear(s, f"{name}.mlp.c_proj", y * torch.sigmoid(1.702 * y))
        tokens.append(x[:, 0])
    feature = layer_norm(s, "ln_post", x[:, 0], 1e-5) @ s["proj"].double()
    return feature, torch.stack(tokens, dim=1), torch.stack(normed, dim=1)


def vit(s: State, x: Tensor, heads: int, positions: Tensor | None = None) -> Tensor:
    """timm's or DINOv2's: the class token after the final norm, (B, width)."""
    patch = s["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(x, s["patch_embed.proj.weight"].double(), stride=patch)
    x = (x + s["patch_embed.proj.bias"].double()[:, None, None]).flatten(2).transpose(1, 2)
    x = torch.cat([s["cls_token"].double().expand(len(x), 1, -1), x], dim=1)
    x = x + (s["pos_embed"] if positions is None else positions).double()
    for index in range(sum(key.endswith(".norm1.weight") for key in s)):
        name = f"blocks.{index}"
        scales = [s.get(f"{name}.ls{k}.gamma", torch.ones(1)).double() for k in (1, 2)]
        joint = linear(s, f"{name}.attn.qkv", layer_norm(s, f"{name}.norm1", x, 1e-6))
        x = x + scales[0] * linear(s, f"{name}.attn.proj", attention(joint, heads))
        y = linear(s, f"{name}.mlp.fc1", layer_norm(s, f"{name}.norm2", x, 1e-6))
        y = y * (1 + torch.erf(y / 2**0.5)) / 2
        x = x + scales[1] * linear(s, f"{name}.mlp.fc2", y)
    return layer_norm(s, "norm", x, 1e-6)[:, 0]


def rine(s: State, tokens: Tensor) -> Tensor:
    """Logits of class tokens (B, blocks, width)."""

    def layers(name: str, x: Tensor) -> Tensor:
        for key in sorted(
            (k.removesuffix(".weight") for k in s if k.startswith(name) and k.endswith("weight")),
            key=lambda k: int(k.rpartition(".")[2]),
        ):
            x = linear(s, key, x)
            x = x if key == f"{name}.6" and name == "head" else x.clamp(min=0)
        return x

    weights = s["alpha"].double().exp()
    weights = weights / weights.sum(dim=1, keepdim=True)
    x = (weights * layers("proj1", tokens)).sum(dim=1)
    return layers("head", layers("proj2", x))[:, 0]


def haar_high(x: Tensor, levels: int = 2) -> Tensor:
    """The picture (..., H, W) without the lowest band of Haar's wavelet, by its steps: averages and
    differences of neighbours, level by level, and back with the last averages at zero."""
    if not levels:
        return torch.zeros_like(x)
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    low = haar_high((a + b + c + d) / 2, levels - 1)
    bands = ((a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2)
    result = torch.empty_like(x)
    for (row, column), signs in {
        (0, 0): (1, 1, 1), (0, 1): (-1, 1, -1), (1, 0): (1, -1, -1), (1, 1): (-1, -1, 1),
    }.items():  # fmt: skip
        parts = (sign * band for sign, band in zip(signs, bands, strict=True))
        result[..., row::2, column::2] = (low + sum(parts, torch.zeros(()))) / 2
    return result
