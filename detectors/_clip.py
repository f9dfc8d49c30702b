"""Vision towers of CLIP and SigLIP, built by open_clip without their text towers or weights, and
their published key layouts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    `visual.`) or of the transformers library (`vision_model.`); empty when it is neither."""
    if any(key.startswith(TRANSFORMERS) for key in published):
        return _from_transformers(published)
    return {k.removeprefix(VISUAL): v for k, v in published.items() if k.startswith(VISUAL)}
