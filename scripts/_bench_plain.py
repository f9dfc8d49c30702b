"""The detectors' published formulae written down plainly, to compare the product's results and
times with. Nothing scores with them; each takes the weights of a detector that the product built.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets._images import open_picture
from detectors import _transforms as T
from detectors._spectral import Dropout
from detectors.spai import Spai
from detectors.ssp import Ssp

SIDE, RADIUS = 224, 16


# --- SPAI


def published_mask() -> Tensor:
    """(224, 224): 1 where the radius is below 16; the four central bins have radius 0."""
    half = torch.arange(SIDE // 2)
    axis = torch.cat([half.flip(0), half])
    return (axis[:, None] ** 2 + axis[None, :] ** 2 < RADIUS**2).float()


def split_by_fft(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, 224, 224) in [0, 1] -> its low and its high frequencies, in [0, 1]."""
    mask = published_mask()
    spectrum = torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1))

    def back(kept: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.ifftshift(kept, dim=(-2, -1))).real.clamp(0, 1)

    return back(spectrum * mask), back(spectrum * (1 - mask))


def attention(block: Any, x: Tensor) -> Tensor:
    """Softmax attention of a ViT block, (B, N, dim) -> (B, N, dim): a bias each of query and value,
    none of the key, put together anew each time."""
    layer = block.attn
    query_bias, _, value_bias = layer.qkv.bias.chunk(3)
    bias = torch.cat([query_bias, torch.zeros_like(query_bias), value_bias])
    qkv = F.linear(x, layer.qkv.weight, bias)
    batch, tokens, _ = x.shape
    query, key, value = qkv.reshape(batch, tokens, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = ((query * layer.head_dim**-0.5) @ key.transpose(-2, -1)).softmax(dim=-1)
    return layer.proj((weights @ value).transpose(1, 2).reshape(batch, tokens, -1))


def block_features(vit: Any, x: Tensor) -> Tensor:
    """(B, 3, 224, 224) in [0, 1] -> (B, depth, 196, dim): what every block gives."""
    x = T.normalise(x, T.IMAGENET_MEAN, T.IMAGENET_STD)
    x = vit.patch_embed.proj(x).flatten(2).transpose(1, 2)
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1) + vit.pos_embed
    found = []
    for block in vit.blocks:
        x = x + block.drop_path1(attention(block, block.norm1(x)))
        x = x + block.drop_path2(block.mlp(block.norm2(x)))
        found.append(x[:, 1:])
    return torch.stack(found, dim=1)


def patch_vectors(model: Spai, patches: Tensor) -> Tensor:
    """(B, 3, 224, 224) in [0, 1] -> (B, 6 * depth + width)."""
    with torch.no_grad():
        views = [block_features(model.vit, x) for x in (patches, *split_by_fft(patches))]
    projectors = model.restoration.projectors
    original, low, high = (
        torch.stack([layer(x[:, i]) for i, layer in enumerate(projectors)], dim=1) for x in views
    )
    pairs = ((original, low), (original, high), (low, high))
    cosines = [F.cosine_similarity(a, b, dim=-1) for a, b in pairs]
    similarities = [part for c in cosines for part in (c.mean(dim=-1), c.std(dim=-1))]
    pooled = torch.cat([original.mean(dim=2), original.std(dim=2)], dim=-1)
    return torch.cat([*similarities, model.restoration.original(pooled)], dim=1)


def spai(model: Spai, picture: Tensor) -> Tensor:
    """(3, H, W) uint8 with at least four patches -> logit (1,)."""
    columns = picture.float().div(255).unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
    patches = columns.permute(1, 2, 0, 3, 4).reshape(-1, 3, SIDE, SIDE)
    return model.aggregator(patch_vectors(model, patches))[0]


def spai_views(model: Spai, batch: Tensor) -> Tensor:
    """(B, 3, 224, 224 * V) uint8, V views of a picture side by side -> logits (B,), one view after
    the other as training does."""
    views = (batch.float() / 255).split(SIDE, dim=3)
    vectors = torch.stack([patch_vectors(model, view) for view in views], dim=1)
    return torch.cat([model.aggregator(each)[0] for each in vectors])


def with_public_dropout(model: Any) -> Any:
    """A `planar` copy whose dropout draws its masks as PyTorch does."""
    found = planar(model)
    for module in list(found.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, torch.nn.Dropout(child.p).train(child.training))
    return found


# --- SSP


def planar(model: Any) -> Any:
    """A copy whose convolutions work on (B, C, H, W) as it stands in memory."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)


def ssp_patches(model: Ssp, patches: Tensor) -> Tensor:
    """(B, 3, 32, 32) normalised -> logits (B,). `model` is `planar`."""
    x = F.interpolate(patches, (model.options.size,) * 2, mode="bilinear", align_corners=False)
    return model.network(F.conv2d(x, model.srm.kernel, padding=2).clamp(-3, 3)).squeeze(1)


def ssp(model: Ssp, paths: list[Path]) -> Tensor:
    """One picture after the other, (len(paths),) logits. `model` is `planar`."""
    transform = model.transform(train=False)
    logits = []
    for path in paths:
        item = transform(open_picture(path), np.random.default_rng(0))
        logits.append(ssp_patches(model, item).mean().reshape(1))
    return torch.cat(logits)


# --- CO-SPY


def with_public_attention(model: Any) -> Any:
    """A `planar` copy whose autoencoder multiplies its attention out, as diffusers first did."""
    from diffusers.models.attention_processor import AttnProcessor

    found = planar(model)
    found.artifact.vae.set_attn_processor(AttnProcessor())
    return found


def artifact(model: Any, batch: Tensor) -> Tensor:
    """The artifact branch of sd-v1_4 by the autoencoder's public methods, on the whole batch:
    (B, 3, 224, 224) uint8 -> logits (B,). `model` is `with_public_attention`."""
    branch = model.artifact
    x = batch.float() / 255
    latent = branch.vae.encode(x).latent_dist.mean
    residual = (x - branch.vae.decode(latent).sample) / 7 * 100
    return branch.fc(branch.trunk(residual)).squeeze(1)


def semantic_features(model: Any, batch: Tensor) -> Tensor:
    """What the frozen encoder makes of a batch, (B, 3, S, S) uint8 -> (B, F), in float32."""
    branch = model.semantic
    with torch.no_grad():
        return branch.encoder(T.normalise(batch.float() / 255, branch.mean, branch.std))
