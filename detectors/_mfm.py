"""Masked frequency modelling (MFM, ICLR 2023): SPAI's ViT pre-trained on unlabelled pictures.

Half of the spectrum, the low or the high frequencies, is taken from a picture; the ViT and one
convolution restore it, and what they miss is measured frequency by frequency. Chosen by
`train.objective=mfm`; the result is a backbone in the published layout, which SPAI's training
starts from. Nothing here judges a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import _augment
from . import _transforms as T
from ._base import Detector, Transform
from ._spai_files import UNUSED, fold_biases, split_biases
from ._spai_options import SpaiOptions
from ._spectral import PATCH, in_float32, make_vit

TOKEN = 16  # px a side of what one token of the ViT stands for
AREA = (0.2, 1.0)
TINY = 1e-12  # under the root of a distance, whose derivative at 0 is infinite


@dataclass(frozen=True)
class CropTransform:
    """Picture -> (3, 224, 224) uint8 and whether its low frequencies stay: a random crop, bicubic
    with antialiasing, mirrored at random."""

    low_pass: float

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> tuple[Tensor, bool]:
        box = _augment.random_box(image.width, image.height, AREA, rng)
        image = image.crop(box).resize((PATCH, PATCH), Image.Resampling.BICUBIC)
        item = T.as_bytes(T.random_flip(image, rng))
        return item, bool(rng.random() < self.low_pass)


def low_frequencies(radius: float, outer: float, device: torch.device | None = None) -> Tensor:
    """(224, 224) mask of the centred spectrum: 1 within `radius` of its middle (112, 112) and from
    `outer` on. Not the grid of SPAI's detector, whose middle lies between four frequencies."""
    away = torch.arange(PATCH, device=device) - PATCH // 2
    distance = away[:, None] ** 2 + away[None] ** 2
    return ((distance < radius**2) | (distance >= outer**2)).float()


def corrupted(pixels: Tensor, masks: Tensor) -> Tensor:
    """(B, 3, 224, 224) in [0, 1], of which only the frequencies of the (B, 224, 224) centred masks
    are left, clamped to [0, 1]."""
    spectrum = torch.fft.fft2(pixels.float())
    kept = spectrum * torch.fft.ifftshift(masks, dim=(-2, -1))[:, None]
    return torch.fft.ifft2(kept).real.clamp(0, 1)


def spectrum_of(x: Tensor, patches: int) -> Tensor:
    """(B, C, H, W) -> (B, patches ** 2, C, H / patches, W / patches) complex: the centred spectra
    of so many rows and columns of parts of a picture."""
    rows = x.unflatten(-1, (patches, -1)).unflatten(-3, (patches, -1))  # B C p h p w
    parts = rows.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return torch.fft.fftshift(torch.fft.fft2(parts, norm="ortho"), dim=(-2, -1))


def loss_map(found: Tensor, target: Tensor, options: SpaiOptions) -> Tensor:
    """Distances of two spectra, (B, parts, C, h, w), by frequency. With `mfm_focal` each weighs as
    much as it is large: Jiang et al., Focal Frequency Loss (ICCV 2021), equation 8."""
    difference = spectrum_of(found - target, options.mfm_patches)
    if options.mfm_mean_spectrum:
        difference = difference.mean(dim=0, keepdim=True)
    squares = difference.real**2 + difference.imag**2
    distance = (squares + TINY) ** (options.mfm_gamma / 2)
    if not options.mfm_focal:
        return distance
    weight = squares.detach() ** (options.mfm_focal / 2)
    weight = (weight + 1).log() if options.mfm_focal_log else weight
    largest = weight.amax() if options.mfm_focal_batch else weight.amax((-2, -1), keepdim=True)
    return distance * (weight / largest).nan_to_num(0).clamp(0, 1)


def spectral_loss(found: Tensor, target: Tensor, masks: Tensor, options: SpaiOptions) -> Tensor:
    """The mean of `loss_map`, or of its frequencies that were taken from the picture."""
    distances = loss_map(found, target, options)
    if options.mfm_target == "normal":
        return distances.mean()
    gone = 1 - masks[:, None, None]
    _, parts, channels, _, _ = distances.shape
    return (distances * gone).sum() / (gone.sum() * channels * parts)


class MaskedFrequencies(Detector):
    """Input: [(B, 3, 224, 224) uint8, (B,) whether low frequencies stay]; 86 M parameters as
    published. `forward` gives pictures, not logits."""

    title = "SPAI's ViT, masked frequency modelling"
    Options = SpaiOptions

    def __init__(self, options: SpaiOptions) -> None:
        super().__init__(options)
        self.encoder = make_vit(
            options.dim, options.depth, options.heads, options.drop_path, final_norm=True
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(options.dim, TOKEN**2 * 3, 1),
            nn.PixelShuffle(TOKEN),
        )

    def transform(self, train: bool) -> Transform:  # noqa: ARG002
        return CropTransform(self.options.mfm_low_pass)

    def collate(self, items: list[tuple[Tensor, bool]]) -> list[Tensor]:
        pictures, low = zip(*items, strict=True)
        return [torch.stack(pictures), torch.tensor(low)]

    def masks(self, low: Tensor) -> Tensor:
        """(B, 224, 224) centred masks of what stays."""
        mask = low_frequencies(self.options.mfm_radius, self.options.mfm_outer, low.device)
        return torch.where(low[:, None, None], mask, 1 - mask)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, 224, 224) normalised -> (B, dim, 14, 14) tokens, without the class token."""
        tokens = self.encoder.forward_features(pictures)[:, 1:]  # type: ignore[operator]
        side = PATCH // TOKEN
        return tokens.transpose(1, 2).unflatten(2, (side, side))

    def _pair(self, batch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What the encoder sees, what it is to restore, both normalised, and the masks."""
        pixels, low = batch
        whole, masks = pixels.float() / 255, self.masks(low)
        with in_float32(whole):
            seen = corrupted(whole, masks)
        mean_std = (T.IMAGENET_MEAN, T.IMAGENET_STD)
        return T.normalise(seen, *mean_std), T.normalise(whole, *mean_std), masks

    def forward(self, batch: list[Tensor]) -> Tensor:
        return self.decoder(self.encode(self._pair(batch)[0]))

    def loss(self, batch: list[Tensor], labels: Tensor) -> Tensor:  # noqa: ARG002
        seen, target, masks = self._pair(batch)
        found = self.decoder(self.encode(seen))
        with in_float32(found):
            return spectral_loss(found.float(), target, masks, self.options)

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published key names -> these, without what no output depends on."""
        unused = tuple(f"encoder.{name}" for name in (*UNUSED, "cls_norm.", "mask_token"))
        return fold_biases({k: v for k, v in published.items() if not k.startswith(unused)})

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Any]:
        """The weights below `model`. The bias of the keys, which changes nothing, has no place."""
        return {"model": split_biases(state)}
