"""SPAI (CVPR 2025, arXiv 2411.19417): how well a model of real pictures' spectra fits each patch.

A frozen ViT, pretrained to restore masked frequencies, sees every 224 px patch three times: as it
is, its low and its high frequencies. How alike the three are, block by block, tells real from
synthetic; an attention over patches makes one logit of a picture of any size, never resized.
Published file: `spai.pth`; the backbone to train from: MFM's `mfm_pretrain_vit_base.pth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import _overlay
from ._base import Detector, Part, Running, Transform
from ._errors import OptionError
from ._faster import convolve_linears
from ._mfm import MaskedFrequencies
from ._spai_files import MASK, UNUSED, check_mask, fold_biases, published_keys, rename
from ._spai_options import OUTSIDE_NETWORK, SpaiOptions
from ._spai_pictures import Corner, PictureTransform, ViewsTransform, attention_map, patch_corners
from ._spectral import (
    PATCH,
    SIMILARITIES,
    Aggregator,
    PatchEncoder,
    Restoration,
    make_vit,
)


class Spai(Detector):
    """Input: a list of (3, H, W) uint8 pictures, sides at least 224 px, on any device; 132 M
    parameters as published, 86 M of them frozen in the ViT. Memory beside the pictures is bounded
    by `feature_batch`, whatever their sizes."""

    title = "SPAI"
    Options = SpaiOptions
    BACKBONE_KEYS = ("encoder.",)
    OUTSIDE_PARTS = OUTSIDE_NETWORK

    def __init__(self, options: SpaiOptions) -> None:
        super().__init__(options)
        o = options
        self.vit = make_vit(o.dim, o.depth, o.heads, o.drop_path)
        self.vit.requires_grad_(bool(o.unfreeze_backbone))
        self.restoration = Restoration(o.dim, o.depth, o.projection, o.dropout)
        vector = SIMILARITIES * o.depth + o.projection
        self.aggregator = Aggregator(vector, o.context_heads, o.context_dim, o.dropout)
        # The layout that convolutions are fastest in.
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:
        return ViewsTransform(self.options) if train else PictureTransform(self.options)

    @classmethod
    def objectives(cls) -> dict[str, type[Detector]]:
        return {"mfm": MaskedFrequencies}

    def train(self, mode: bool = True) -> Spai:
        """Training mode of all, the frozen ViT too: the published `model.train()` reaches it, so
        that its stochastic depth stays active."""
        nn.Module.train(self, mode)
        return self

    def start_from_nothing(self) -> None:
        # A frozen ViT of random weights would have nothing to tell.
        if self.options.unfreeze_backbone is None:
            self.vit.requires_grad_(True)

    def collate(self, items: list[Tensor]) -> list[Tensor]:
        """A list: pictures differ in size, and are never shrunk to one."""
        return items

    def patch_encoder(self) -> PatchEncoder:
        """(B, 3, 224, 224) in [0, 1] -> (B, 1096), as a module of its own over the same weights;
        `aggregator` is the other half of the network."""
        return PatchEncoder(self.vit, self.restoration)

    def corners(self, picture: Tensor) -> list[Corner]:
        """(top, left) of the patches of a (3, H, W) picture."""
        _, height, width = picture.shape
        options = self.options
        return patch_corners(height, width, options.cover_remainder, options.minimum_patches)

    def _places(self, item: Tensor) -> list[tuple[Tensor, Corner]]:
        """The patches of an item: of ten crops each one, which is all that there is of it."""
        if item.ndim == 4:
            return [(crop, (0, 0)) for crop in item]
        return [(item, corner) for corner in self.corners(item)]

    def _chunks(self, batch: list[Tensor]) -> Iterator[Tensor]:
        """The patches of all pictures in turn, `feature_batch` at a time, uint8."""
        # Across pictures: many small ones fill a chunk as well as one large one does.
        places = [place for item in batch for place in self._places(item)]
        for first in range(0, len(places), self.options.feature_batch):
            some = places[first : first + self.options.feature_batch]
            patches = [p[:, top : top + PATCH, left : left + PATCH] for p, (top, left) in some]
            yield torch.stack(patches)

    def encode(
        self, batch: list[Tensor], encoder: Callable[[Tensor], Tensor], device: torch.device
    ) -> list[Tensor]:
        """Items -> (N, 1096) patch vectors of what is judged together, by a `patch_encoder` on that
        device: of each picture, or of each of its ten crops."""
        # Bytes go to the device, a quarter of what floats would be, one chunk at a time.
        chunks = (patches.to(device).float() / 255 for patches in self._chunks(batch))
        vectors = torch.cat([encoder(patches) for patches in chunks])
        # Ten crops are ten pictures of one patch each: each has an attention of its own.
        counts = [
            [1] * len(item) if item.ndim == 4 else [len(self.corners(item))] for item in batch
        ]
        return list(vectors.split([count for item in counts for count in item]))

    def _reduced(self, logits: Tensor, batch: list[Tensor]) -> Tensor:
        """Logits of what was judged together -> (B,): of ten crops the mean or the max."""
        parts = logits.split([len(item) if item.ndim == 4 else 1 for item in batch])
        largest = self.options.ten_crop == "max"
        return torch.stack([part.max() if largest else part.mean() for part in parts])

    def _judge(self, batch: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits (B,), and the attention (N,) to the patches of what was judged together."""
        encoded = self.encode(batch, self.patch_encoder(), self.aggregator.query.device)
        # Pictures differ in patches, so attention goes one by one; the rest is one batch.
        found = [self.aggregator.attend(vectors) for vectors in encoded]
        logits = self.aggregator.classify(torch.cat([taken for taken, _ in found]))
        return self._reduced(logits, batch), [attention for _, attention in found]

    def optimise(self) -> None:
        convolve_linears(self.patch_encoder())

    def forward(self, batch: list[Tensor]) -> Tensor:
        return self._judge(batch)[0]

    def check_explain(self) -> None:
        # Ten crops, five of them mirrored, overlap: there is no one map of the picture.
        if self.options.ten_crop:
            raise OptionError(
                f"--explain: expected spai.ten_crop=null; found {self.options.ten_crop}"
            )

    def explain(self, batch: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits (B,), and for each picture (N, 3): top, left and attention of its patches, in
        px of the item and as shares that sum to 1."""
        logits, attention = self._judge(batch)
        return logits, self._placed(batch, attention)

    def _placed(self, batch: list[Tensor], attention: list[Tensor]) -> list[Tensor]:
        """Attention with the corners of the patches before it, (N, 3) of each picture."""
        pairs = [(a.new_tensor(self.corners(p)), a) for p, a in zip(batch, attention, strict=True)]
        return [torch.cat([corners, a[:, None]], dim=1) for corners, a in pairs]

    def parts(self) -> dict[str, Part]:
        """Patch encoder, and aggregator of one picture's patches."""
        # Two files: the number of patches varies with the picture, and no graph loops over them.
        encoder, vectors = self.patch_encoder(), torch.zeros(5, self.aggregator.to_kv.in_features)
        patches = torch.zeros(2, 3, PATCH, PATCH)
        return {
            "encoder": Part(encoder, patches, "patches", ("vectors",)),
            "aggregator": Part(self.aggregator, vectors, "vectors", ("logit", "attention")),
        }

    def run_parts(self, run: Running, batch: list[Tensor]) -> tuple[Tensor, list[Tensor] | None]:
        encoded = self.encode(batch, lambda patches: run["encoder"](patches)[0], batch[0].device)
        logits, attention = zip(*(run["aggregator"](vectors) for vectors in encoded), strict=True)
        reduced = self._reduced(torch.cat(logits), batch)
        return reduced, None if self.options.ten_crop else self._placed(batch, list(attention))

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """Attention to each patch as a heat map over the picture: a patch's share times their
        number, so that 1 is what each would get of an even look. Grey: not looked at."""
        values = attention_map(image.size, relevance.float().cpu().numpy(), self.options)
        unseen = "; grey = not looked at" if np.isnan(values).any() else ""
        caption = f"attention to each patch (1 = even share{unseen})"
        # A scale of its own for each picture would turn tiny differences into strong colours.
        return _overlay.heat(image, values, caption, 0.0, max(2.0, float(np.nanmax(values))))

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published key names -> these; leaves out what the published network holds but never
        uses, and the constant mask of frequencies.

        Raises:
            WeightsError: the mask is not the one this class computes with.
        """
        # This class computes the mask; a file with another one would give other scores silently.
        if MASK in published:
            check_mask(published[MASK])
        unused = (MASK, *(f"mfvit.vit.{name}" for name in UNUSED))
        kept = {rename(k): v for k, v in published.items() if not k.startswith(unused)}
        return fold_biases(kept)

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Any]:
        """The weights below `model`, with the constant mask of frequencies and without what the
        published network holds but never uses. The bias of the keys, which shifts all scores of an
        attention alike and so changes nothing, has no place there."""
        return {"model": published_keys(state)}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """MFM's pretrained ViT; its decoder, mask token, last norm and head are of no use here."""
        prefix, unused = cls.BACKBONE_KEYS[0], (*UNUSED, "norm.", "mask_token")
        inner = {k.removeprefix(prefix): v for k, v in published.items() if k.startswith(prefix)}
        kept = {f"vit.{k}": v for k, v in inner.items() if not k.startswith(unused)}
        return fold_biases(kept)

    @classmethod
    def tiny(cls) -> SpaiOptions:
        return SpaiOptions(depth=2, dim=64, heads=2, projection=32, context_heads=2, context_dim=16)
