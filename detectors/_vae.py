"""The autoencoder of Stable Diffusion 1.4, alone: built by diffusers, without its pipeline."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

KEYS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# Names that diffusers gave the attention layers in 2022, as in the hub's file -> those of today.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)\.")


def autoencoder(tiny: bool) -> Any:
    """AutoencoderKL with the four blocks of Stable Diffusion 1.4; `tiny`: narrow ones, for tests.
    83.7 M parameters, random until weights are loaded."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16) if tiny else (128, 256, 512, 512),
        layers_per_block=1 if tiny else 2,
        norm_num_groups=4 if tiny else 32,
        latent_channels=4,
        sample_size=512,
    )
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = _SteadyNorm
    return vae


class _SteadyNorm(nn.GroupNorm):
    """A group norm whose sums depend little on the number of threads.

    On the CPU PyTorch sums channels-last tensors up thread by thread in single precision: between
    one thread and two a reconstruction then differs by up to 1e-4, which the artifact branch
    multiplies by 14. This takes 7 % more of the autoencoder's time, contiguous tensors 25 %.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4
        if not plain or torch.compiler.is_compiling():
            return super().forward(x)
        centred = x - self._means(x)
        scale = self.weight[:, None, None] * (self._means(centred.square()) + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], centred, scale)

    def _means(self, x: Tensor) -> Tensor:
        """Mean of each channel's group, (B, C, 1, 1)."""
        means = x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)
        size = self.num_channels // self.num_groups
        grouped = means.view(len(x), self.num_groups, size).mean(dim=2)
        return grouped.repeat_interleave(size, dim=1)[:, :, None, None]


def reconstruct(vae: Any, x: Tensor) -> Tensor:
    """D(E(x)) of (B, 3, H, W), H and W multiples of 8: the posterior's mean, unscaled, decoded.

    One picture after the other: at full resolution the decoder holds some 50 MB per layer of each.
    Not so in an exported network, which is for any number of them: its caller sees to that.
    """
    found = []
    exporting = torch.compiler.is_exporting()
    for picture in [x] if exporting else x.split(1 if x.device.type == "cpu" else 16):
        mean, _ = vae.quant_conv(vae.encoder(picture)).chunk(2, dim=1)
        found.append(vae.decoder(vae.post_quant_conv(mean)))
    return torch.cat(found)


def current_keys(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published autoencoder's state dict with today's names; empty when it is none."""
    if "quant_conv.weight" not in published:
        return {}
    return {
        OLD.sub(lambda match: match[1] + RENAMED[match[2]] + ".", key): value
        for key, value in published.items()
    }
