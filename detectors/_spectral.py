"""SPAI's networks: what a masked-frequency ViT makes of a patch and of its low and high
frequencies, and the attention that weighs the patches. SPAI (arXiv 2411.19417), section 3."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from . import _transforms as T

PATCH = 224
RADIUS = 16
SIMILARITIES = 6  # mean and deviation of three pairs of views


def in_float32(x: Tensor) -> torch.autocast:
    """Autocast switched off: what is summed over many values needs more than 8 or 11 bits."""
    # The meta device, where shapes alone are computed, has none.
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


# --- frequencies


def distance(frequency: Tensor) -> Tensor:
    """Distance from the centre of the spectrum as SPAI counts it: 0 for frequencies 0 and -1."""
    return torch.where(frequency < 0, -frequency - 1, frequency)


def low_pass(frequency: Tensor) -> Tensor:
    """(K,) integer frequencies -> (K, K) float mask of those that count as low on both axes."""
    d = distance(frequency)
    return (d[:, None] ** 2 + d[None, :] ** 2 < RADIUS**2).float()


def frequency_mask() -> Tensor:
    """(224, 224) mask of the centred spectrum, as published files hold it."""
    return low_pass(torch.arange(PATCH) - PATCH // 2)


def split_frequencies(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, 224, 224) in [0, 1] -> its low and its high frequencies, both clamped to [0, 1].

    The real part of FFT, mask and inverse FFT as products with real matrices: only 32 frequencies
    of each axis pass, and there are no complex numbers, which ONNX lacks.
    """
    with in_float32(x):
        frequency = torch.arange(-RADIUS, RADIUS, device=x.device)
        position = torch.arange(PATCH, device=x.device)
        # Whole turns are taken off as integers: cosines of large angles would be inexact.
        turns = (frequency[:, None] * position).remainder(PATCH)
        angle = turns.float() * (2 * math.pi / PATCH)
        basis = torch.cat([angle.cos(), -angle.sin()])
        product = basis @ x.float() @ basis.T
        (cc, cs), (sc, ss) = (half.chunk(2, dim=-1) for half in product.chunk(2, dim=-2))
        mask = low_pass(frequency) / PATCH**2
        real, imaginary = mask * (cc - ss), mask * (cs + sc)
        upper, lower = torch.cat([real, imaginary], -1), torch.cat([imaginary, -real], -1)
        low = basis.T @ torch.cat([upper, lower], -2) @ basis
        return low.clamp(0, 1), (x - low).clamp(0, 1)


# --- networks


def make_vit(
    dim: int, depth: int, heads: int, drop_path: float, final_norm: bool = False
) -> nn.Module:
    """The masked-frequency ViT-B/16 without a head."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        PATCH,
        embed_dim=dim,
        depth=depth,
        num_heads=heads,
        drop_path_rate=drop_path,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=0,
        global_pool="",
        final_norm=final_norm,
    )


class Dropout(nn.Dropout):
    """Dropout whose masks the CPU draws 64 bits at a time, four values of 16 bits: PyTorch draws
    one number per value on one core, a third of a training step. Probabilities are rounded to
    1 / 65536."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.p and x.device.type == "cpu"):
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        drawn = bits.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (drawn >= round(self.p * 2**16) - 2**15).to(x.dtype)
        return x * kept.mul_(1 / (1 - self.p))


class Projector(nn.Module):
    """(..., inputs) -> (..., outputs): two layers, then normalised. The published estimator has it
    in two forms: of tokens it normalises what comes in; of pooled features (`pooled`) it does not,
    but activates what goes out."""

    def __init__(self, inputs: int, outputs: int, dropout: float, pooled: bool) -> None:
        super().__init__()
        self.norm1 = nn.Identity() if pooled else nn.LayerNorm(inputs)
        self.projector = nn.Sequential(
            Dropout(dropout),
            nn.Linear(inputs, outputs),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(outputs, outputs),
            nn.GELU() if pooled else nn.Identity(),
            Dropout(dropout),
        )
        self.norm2 = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.projector(self.norm1(x)).float())


class OriginalFeatures(nn.Module):
    """(B, depth, 2 * width) pooled features of the unfiltered patch -> (B, width): the spectral
    context vector."""

    def __init__(self, depth: int, width: int, dropout: float) -> None:
        super().__init__()
        self.proj1 = Projector(2 * width, width, dropout, pooled=True)
        self.alpha = nn.Parameter(0.02 * torch.randn(1, depth, width))
        self.proj2 = Projector(width, width, dropout, pooled=True)

    def forward(self, pooled: Tensor) -> Tensor:
        weighted = self.alpha.softmax(dim=1) * self.proj1(pooled)
        return self.proj2(weighted.sum(dim=1))


def token_statistics(views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(3, B, N, D) views of N tokens -> (B, N, 3, 3) inner products between the views, and over the
    tokens of the first view (B, D) mean and (B, D) norm of the deviations from it."""
    tokens = views.permute(1, 2, 0, 3)
    mean = views[0].mean(dim=1)
    spread = torch.linalg.vector_norm(views[0] - mean[:, None], dim=1)
    return tokens @ tokens.mT, mean, spread


class TokenStatistics(torch.autograd.Function):
    """`token_statistics` with its derivative: autograd's own takes longer, in ten temporaries as
    large as the views."""

    @staticmethod
    def forward(ctx: Any, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        products, mean, spread = token_statistics(views)
        ctx.save_for_backward(views, mean, spread)
        return products, mean, spread

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, products: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """Gradients of the three -> gradient of the views."""
        views, centre, norm = ctx.saved_tensors
        found = torch.empty_like(views)
        # Into the order of the views at once: a copy would take longer than the product.
        tokens, out = (x.flatten(1, 2).transpose(0, 1) for x in (views, found))
        torch.bmm((products + products.mT).flatten(0, 1), tokens, out=out)
        scale = torch.where(norm > 0, spread / norm, 0)[:, None]
        found[0].addcmul_(views[0], scale)
        found[0].add_(mean[:, None] / views.shape[2] - centre[:, None] * scale)
        return found


class Restoration(nn.Module):
    """The spectral restoration estimator: statistics of every block's features -> patch vector."""

    def __init__(self, dim: int, depth: int, width: int, dropout: float) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(
            Projector(dim, width, dropout, pooled=False) for _ in range(depth)
        )
        self.original = OriginalFeatures(depth, width, dropout)

    def block(self, index: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of a block.

        Args:
            index: of the block.
            tokens: (3B, N, dim) its features of B patches: unfiltered, low, then high frequencies.

        Returns:
            (B, 6) mean and deviation over tokens of the cosines between the views, and
            (B, 2 * width) mean and deviation over tokens of the unfiltered view.
        """
        projected = self.projectors[index](tokens)
        with in_float32(projected):
            views = projected.unflatten(0, (3, -1))
            measure = TokenStatistics.apply if views.requires_grad else token_statistics
            products, mean, spread = measure(views)
            norms = products.diagonal(dim1=-2, dim2=-1).clamp_min(1e-16).sqrt()
            pairs = ((0, 1), (0, 2), (1, 2))  # unfiltered, low, high
            found = [products[..., a, b] / (norms[..., a] * norms[..., b]) for a, b in pairs]
            cosines = torch.stack(found, dim=1)
            similarities = torch.stack([cosines.mean(dim=2), cosines.std(dim=2)], dim=2)
            deviation = spread / math.sqrt(views.shape[2] - 1)
            return similarities.flatten(1), torch.cat([mean, deviation], dim=1)

    def forward(self, similarities: list[Tensor], pooled: list[Tensor]) -> Tensor:
        """What `block` gave for each block -> (B, 6 * depth + width) patch vectors."""
        with in_float32(pooled[0]):
            context = self.original(torch.stack(pooled, dim=1))
            return torch.cat([torch.stack(similarities, dim=2).flatten(1), context], dim=1)


def keep_products() -> Any:
    """Contexts of a `checkpoint` that keeps what linear layers give."""
    return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])


class PatchEncoder(nn.Module):
    """(B, 3, 224, 224) in [0, 1] -> (B, 6 * depth + width) patch vectors."""

    def __init__(self, vit: Any, restoration: Restoration) -> None:
        super().__init__()
        self.vit = vit
        self.restoration = restoration

    def tokens(self, patches: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (3B, 197, dim) what the ViT's first block sees of the three views."""
        views = torch.cat([patches, *split_frequencies(patches)])
        x = self.vit.patch_embed(T.normalise(views, T.IMAGENET_MEAN, T.IMAGENET_STD))
        start = self.vit.cls_token.expand(x.shape[0], -1, -1)
        return torch.cat([start, x.to(start.dtype)], dim=1) + self.vit.pos_embed

    def _statistics(self, index: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`Restoration.block`; for the gradient all but its products of matrices is computed again
        instead of kept: what a batch of pictures leaves behind in twelve projectors is large."""
        block, kind = self.restoration.block, tokens.device.type
        if not torch.is_grad_enabled():
            return block(index, tokens)
        # Without the cache of converted weights: it would spare the second batch of patches of a
        # step operations that computing again then meets.
        on, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        with torch.autocast(kind, dtype, on, cache_enabled=False):
            return checkpoint(block, index, tokens, use_reentrant=False, context_fn=keep_products)

    def _block(self, block: nn.Module, x: Tensor) -> Tensor:
        """A block of the ViT, for whose gradient it is computed again where the ViT learns."""
        if not torch.is_grad_enabled():
            return block(x)
        return checkpoint(block, x, use_reentrant=False)

    def forward(self, patches: Tensor) -> Tensor:
        similarities, pooled = [], []
        learns = torch.is_grad_enabled() and self.vit.pos_embed.requires_grad
        with torch.set_grad_enabled(learns):
            x = self.tokens(patches)
        for index, block in enumerate(self.vit.blocks):
            with torch.set_grad_enabled(learns):
                x = self._block(block, x)
            found = self._statistics(index, x[:, 1:])  # without the class token
            similarities.append(found[0])
            pooled.append(found[1])
        return self.restoration(similarities, pooled)


class Aggregator(nn.Module):
    """Spectral context attention: a learned query looks at all patches of a picture."""

    def __init__(self, inputs: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        inner, hidden = heads * head_dim, 3 * inputs
        self.query = nn.Parameter(0.02 * torch.randn(heads, 1, head_dim))
        self.to_kv = nn.Linear(inputs, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, inputs, bias=False)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(inputs)
        self.head = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def attend(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) patch vectors of a picture -> (1, heads * head_dim) what the query took from
        them, and (N,) the attention paid to each, mean over heads; it sums to 1."""
        heads, _, head_dim = self.query.shape
        with in_float32(patches):
            kv = self.to_kv(patches.float()).unflatten(1, (2, heads, head_dim))
            key, value = kv.permute(1, 2, 0, 3).unbind(0)  # each (heads, N, head_dim)
            scores = self.query @ key.transpose(1, 2) * head_dim**-0.5
            attention = scores.softmax(dim=-1)
            taken = self.dropout(attention) @ value
            return taken.reshape(1, -1), attention.mean(dim=(0, 1))

    def classify(self, taken: Tensor) -> Tensor:
        """(B, heads * head_dim) of `attend` -> logits (B,)."""
        with in_float32(taken):
            return self.head(self.norm(self.dropout(self.to_out(taken)))).squeeze(1)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) patch vectors of one picture -> logit (1,) and attention (N,)."""
        taken, attention = self.attend(patches)
        return self.classify(taken), attention
