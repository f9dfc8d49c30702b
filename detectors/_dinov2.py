"""Vision transformers of DINOv2, built by timm without weights, and their published key layouts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 14  # px
TRAINED = 518  # px of a side that positions were trained for
OFFSET = 0.1  # that the published code adds to the grid's sides before it takes their ratio
# Name in timm: width, blocks, heads; `tiny` is for tests.
NETWORKS = {
    "vit_small_patch14_dinov2": (384, 12, 6),
    "vit_large_patch14_dinov2": (1024, 24, 16),
    "tiny": (48, 2, 3),
}
MASK = "mask_token"  # of its training; nothing that scores depends on it


def dinov2(name: str) -> nn.Module:
    """A network of `NETWORKS`, without a last layer; keys as timm and the published files have."""
    from timm.models.vision_transformer import VisionTransformer

    width, blocks, heads = NETWORKS[name]
    return VisionTransformer(
        img_size=TRAINED if name != "tiny" else 4 * PATCH,
        patch_size=PATCH,
        embed_dim=width,
        depth=blocks,
        num_heads=heads,
        init_values=1e-5,
        num_classes=0,
        dynamic_img_size=True,
    )


def class_token(network: Any, x: Tensor) -> Tensor:
    """Class token after the final norm, (B, width) in the network's precision, of x (B, 3, H, W),
    normalised as the network takes it, H and W multiples of 14."""
    grid = x.shape[2] // PATCH, x.shape[3] // PATCH
    x = network.patch_embed.proj(x).flatten(2).transpose(1, 2)
    x = torch.cat([network.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
    return network.norm(network.blocks(x + positions(network.pos_embed, grid)))[:, 0]


def positions(trained: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (1, 1 + h * w, width) of the class token and a grid (h, w) of patches, out of those
    of a square grid. As the published code resizes them: bicubic, with `OFFSET` in the ratio of the
    sides; timm's own way differs. Source: facebookresearch/dinov2, vision_transformer.py."""
    first, patches = trained[:, :1], trained[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if grid == (side, side):
        return trained
    square = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
    ratios = [(n + OFFSET) / side for n in grid]
    resized = F.interpolate(square, scale_factor=ratios, mode="bicubic")
    return torch.cat([first, resized.flatten(2).transpose(1, 2).to(first)], dim=1)


def own_keys(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a published file, of DINOv2's authors or of timm."""
    return {key: value for key, value in published.items() if key != MASK}
