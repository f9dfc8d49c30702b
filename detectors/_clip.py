"""Vision towers of CLIP and SigLIP, built by open_clip without their text towers or weights, and
their published key layouts."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._packed import is_packed, unpack

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
B16_PATCH = 16  # px
VISUAL = "visual."
TRANSFORMERS = "vision_model."
KEYS = (VISUAL, TRANSFORMERS, "visual_projection.")
RENAMED = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def siglip_so400m(tiny: bool) -> nn.Module:
    """(B, 3, 384, 384), mean and deviation 0.5 -> (B, 1152), not normalised: open_clip's
    ViT-SO400M-14-SigLIP-384. `tiny`: 64 features, for tests."""
    from open_clip.timm_model import TimmModel

    name, width = ("test_vit", 64) if tiny else ("vit_so400m_patch14_siglip_384", 1152)
    return TimmModel(name, embed_dim=width, image_size=384, pool="map", proj="none")


def clip_vit_l14(tiny: bool) -> nn.Module:
    """(B, 3, 224, 224), CLIP's mean and deviation -> (B, 768), not normalised: OpenAI's ViT-L/14,
    which uses QuickGELU. `tiny`: 64 features, for tests."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    layers, width, features, patch = (2, 64, 64, 28) if tiny else (24, 1024, 768, 14)
    return VisionTransformer(
        image_size=224,
        patch_size=patch,
        width=width,
        layers=layers,
        heads=width // 64,
        mlp_ratio=4.0,
        output_dim=features,
        act_layer=QuickGELU,
    )


def clip_vit_b16(tiny: bool, size: int = 224) -> nn.Module:
    """(B, 3, size, size), CLIP's mean and deviation -> (B, 512), not normalised: OpenAI's ViT-B/16,
    which uses QuickGELU. `tiny`: 64 wide and 3 layers deep, for tests."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    width = b16_width(tiny)
    return VisionTransformer(
        image_size=size,
        patch_size=B16_PATCH,
        width=width,
        layers=b16_depth(tiny),
        heads=width // 64,
        mlp_ratio=4.0,
        output_dim=32 if tiny else 512,
        act_layer=QuickGELU,
    )


def b16_width(tiny: bool) -> int:
    """Numbers in a token of `clip_vit_b16`."""
    return 64 if tiny else 768


def b16_depth(tiny: bool) -> int:
    """Blocks of `clip_vit_b16`."""
    return 3 if tiny else 12


def _embedded(encoder: Any, x: Tensor) -> Tensor:
    """Tokens (B, T, width) that the first block gets: the class token and one for each patch."""
    x = encoder.conv1(x).flatten(2).transpose(1, 2)
    first = encoder.class_embedding.to(x).expand(x.shape[0], 1, -1)
    return encoder.ln_pre(torch.cat([first, x], dim=1) + encoder.positional_embedding.to(x))


def class_tokens(encoder: Any, x: Tensor, blocks: int) -> Tensor:
    """Class tokens after each of the last `blocks` blocks of an open_clip vision transformer,
    (B, blocks, width) in the encoder's precision, before the final norm; x (B, 3, H, W) as the
    encoder takes it. Middle blocks tell more of a picture's making than the last one does (RINE,
    arXiv 2402.19091)."""
    x = _embedded(encoder, x)
    tokens = []
    for block in encoder.transformer.resblocks:
        x = block(x)
        tokens.append(x[:, 0])
    return torch.stack(tokens[-blocks:], dim=1)


def patch_evidence(encoder: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What each patch adds to a linear layer's logit through attention, (B, h, w) float32.

    A class token is a sum: its start, and what attention and MLP of each block add. What attention
    adds is a sum over tokens, too, so that the share of a patch is exact; what MLPs make of it
    later is not counted (Gandelsman et al., arXiv 2310.05916).

    Args:
        x: (B, 3, H, W), as the encoder takes it.
        weight: (blocks, width), the layer's weights of the class tokens of the last blocks.
    """
    blocks = encoder.transformer.resblocks
    # A block's addition stays in all later class tokens: it meets the sum of their weights.
    sums = weight.flip(0).cumsum(0).flip(0)
    first = len(blocks) - len(weight)
    x = _embedded(encoder, x)
    evidence = torch.zeros(x.shape[:2], device=x.device)
    for place, block in enumerate(blocks):
        seen = attention_evidence(block, x, sums[max(0, place - first)])
        evidence = evidence + seen.float()
        x = block(x)
    side = math.isqrt(x.shape[1] - 1)
    return evidence[:, 1:].unflatten(1, (side, side))


def attention_evidence(block: Any, x: Tensor, direction: Tensor) -> Tensor:
    """(B, T): what attention to each of the tokens x (B, T, width) adds to the class token of a
    block, along a direction (width,). Their sum and that of the output's bias is all it adds."""
    attention = block.attn
    heads = attention.num_heads
    projected = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    )
    scores = query[:, :, :1] @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    along = (direction.to(x) @ attention.out_proj.weight).view(heads, 1, -1)
    return (scores.softmax(dim=-1)[:, :, 0] * (value * along).sum(dim=-1)).sum(dim=1)


def _from_transformers(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Key layout of the transformers library -> open_clip's; query, key and value become one."""
    found: dict[str, Tensor] = {}
    for key, value in published.items():
        if not key.startswith(TRANSFORMERS) or key.endswith("embeddings.position_ids"):
            continue
        name = key.removeprefix(TRANSFORMERS)
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        found[name] = value
    for name in [name for name in found if ".self_attn.q_proj." in name]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in found for part in parts):
            joined = name.replace("self_attn.q_proj.", "attn.in_proj_")
            found[joined] = torch.cat([found.pop(part) for part in parts])
    if "visual_projection.weight" in published:
        found["proj"] = published["visual_projection.weight"].T
    return found


def vision_keys(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower's state dict from a published CLIP or SigLIP file, of open_clip (keys
    `visual.`), packed or not, or of the transformers library (`vision_model.`); empty when it is
    neither."""
    if is_packed(published):
        arrays = unpack({key: value.numpy() for key, value in published.items()})
        published = {key: torch.from_numpy(value) for key, value in arrays.items()}
    if any(key.startswith(TRANSFORMERS) for key in published):
        return _from_transformers(published)
    return {k.removeprefix(VISUAL): v for k, v in published.items() if k.startswith(VISUAL)}


def mlp_inputs(encoder: Any, x: Tensor) -> Tensor:
    """Class tokens as the MLP of each block gets them, after its second norm, (B, blocks, width) in
    the encoder's precision; x (B, 3, H, W) as the encoder takes it. What RINE's published code
    takes of each block (src/models.py)."""
    x = _embedded(encoder, x)
    tokens = []
    for block in encoder.transformer.resblocks:
        x = x + block.attention(q_x=block.ln_1(x))
        normed = block.ln_2(x)
        tokens.append(normed[:, 0])
        x = x + block.mlp(normed)
    return torch.stack(tokens, dim=1)
