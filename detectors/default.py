"""The detector that ships, of CO-SPY's kind: what a picture shows, and how its pixels were made.

A frozen CLIP ViT-B/16 sees the whole picture and a linear layer judges the class tokens of its last
eight blocks; an EfficientNet-Lite0 judges crops at native resolution, because the traces of a
generator's decoder live in single pixels; a layer on both logits is their calibrated fusion.
Trained by `scripts/train_default.py`; what it is good for, and what not, stands in
`pretrained/default.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from . import _clip, _overlay
from . import _transforms as T
from ._base import Detector, Transform
from ._default_arrays import ARRAYS, ENCODER_KEYS, Views, view_corners
from ._default_options import DefaultOptions
from ._efficientnet import EfficientNetLite0, convert_imagenet
from ._faster import fold_norms


class SemanticBranch(nn.Module):
    """Frozen CLIP ViT-B/16 and a linear layer on the class tokens of its last blocks."""

    def __init__(self, options: DefaultOptions) -> None:
        super().__init__()
        self.tiny = tiny = options.size == "tiny"
        self.blocks = options.blocks
        self.encoder = _clip.clip_vit_b16(tiny, options.crop).requires_grad_(False)
        self.fc = nn.Linear(min(options.blocks, _clip.b16_depth(tiny)) * _clip.b16_width(tiny), 1)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def normalised(self, x: Tensor) -> Tensor:
        """What the encoder sees of whole views (B, 3, crop, crop) uint8."""
        kind = next(self.encoder.parameters()).dtype
        return T.normalise(x.float() / 255, _clip.CLIP_MEAN, _clip.CLIP_STD).to(kind)

    def feature(self, x: Tensor) -> Tensor:
        """Whole views uint8 -> class tokens (B, blocks * width) float32."""
        with torch.no_grad():
            return (
                _clip.class_tokens(self.encoder, self.normalised(x), self.blocks).flatten(1).float()
            )

    def evidence(self, x: Tensor) -> Tensor:
        """Whole views uint8 -> what each patch adds to the logit, (B, h, w)."""
        weight = self.fc.weight.view(-1, _clip.b16_width(self.tiny))
        with torch.no_grad():
            return _clip.patch_evidence(self.encoder, self.normalised(x), weight)


class ArtifactBranch(nn.Module):
    """EfficientNet-Lite0 and a linear layer on its pooled features; 3.4 M parameters."""

    def __init__(self, options: DefaultOptions) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0(options.stem_stride)
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(self.trunk.FEATURES, 1)
        # From zero: pooled features are large, and random weights would start at a loss of 2.
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (B, V, 3, crop, crop) uint8 -> a logit for each, (B, V)."""
        x = crops.flatten(0, 1).to(memory_format=torch.channels_last)
        feature = self.dropout(self.trunk(x.float() / 127.5 - 1))
        return self.fc(feature).view(crops.shape[:2])


class Default(Detector):
    """Input (B, V, 3, crop, crop) uint8: the whole picture, then crops; 90 M parameters, of which
    86 M are the encoder's and frozen."""

    title = ARRAYS.title
    Options = DefaultOptions
    options: DefaultOptions

    def __init__(self, options: DefaultOptions) -> None:
        super().__init__(options)
        self.semantic = SemanticBranch(options) if options.branch != "artifact" else None
        self.artifact = ArtifactBranch(options) if options.branch != "semantic" else None
        if options.branch == "both":
            self.fusion = nn.Linear(2, 1)
            nn.init.constant_(self.fusion.weight, 0.5)
            nn.init.zeros_(self.fusion.bias)
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:
        return Views(self.options, train)

    def collate(self, items: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(items))

    def optimise(self) -> None:
        if self.artifact is not None:
            fold_norms(self.artifact.trunk)

    def _logits(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the branches (B, 1 or 2), the semantic one first, and those of the crops
        (B, V), whose mean the artifact branch's is."""
        logits: list[Tensor] = []
        crops = None
        if self.semantic is not None:
            logits.append(self.semantic.fc(self.semantic.feature(batch[:, 0])).squeeze(1))
            batch = batch[:, 1:]
        if self.artifact is not None:
            crops = self.artifact(batch)
            logits.append(crops.mean(dim=1))
        return torch.stack(logits, dim=1), crops

    def _fused(self, logits: Tensor) -> Tensor:
        """Logits of the branches -> logit (B,)."""
        return (self.fusion(logits) if self.options.branch == "both" else logits).squeeze(1)

    def forward(self, batch: Tensor) -> Tensor:
        return self._fused(self._logits(batch)[0])

    @property
    def embeds(self) -> bool:
        """Of the semantic branch alone: all but its last layer is frozen."""
        return self.artifact is None

    def embed(self, batch: Tensor) -> Tensor:
        """Class tokens (B, blocks * width)."""
        if self.semantic is None or not self.embeds:
            return super().embed(batch)
        return self.semantic.feature(batch[:, 0])

    def classify(self, embedded: Tensor) -> Tensor:
        if self.semantic is None or not self.embeds:
            return super().classify(embedded)
        return self.semantic.fc(embedded).squeeze(1)

    def loss(self, batch: Tensor, labels: Tensor) -> Tensor:
        """BCE of the fused logit; with both branches that of each besides, so that neither rests
        while the other is right."""
        if self.options.branch != "both":
            return super().loss(batch, labels)
        logits, _ = self._logits(batch)
        every = torch.cat([self._fused(logits)[:, None], logits], dim=1).float()
        wanted = labels.float()[:, None].expand_as(every)
        return nn.functional.binary_cross_entropy_with_logits(every, wanted)

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the artifact branch's score (V,) of each crop; of the semantic branch alone
        what each patch of the whole view adds to the logit, (h, w)."""
        logits, crops = self._logits(batch)
        if crops is not None:
            return self._fused(logits), list(torch.sigmoid(crops.float()).cpu())
        assert self.semantic is not None
        return self._fused(logits), list(self.semantic.evidence(batch[:, 0]).cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The artifact branch's score of each crop where it lies, grey: seen whole only; or the
        square that the semantic branch saw, with the evidence of its patches."""
        if relevance.ndim == 2:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.crop((left, top, left + side, top + side))
            # As far to both sides of 0: the scale's middle is evidence for neither.
            most = float(relevance.abs().max())
            caption = "evidence of each patch: yellow = synthetic, violet = real"
            return _overlay.heat(square, relevance.numpy(), caption, -most, most)
        crop = self.options.crop
        image = T.pad_to(image, crop)
        values = np.full((image.height, image.width), np.nan, np.float32)
        corners = view_corners(image.width, image.height, crop, self.options.views)
        # The centre comes first, and is drawn last: in small pictures the crops overlap.
        for (x, y), score in list(zip(corners, relevance.tolist(), strict=True))[::-1]:
            values[y : y + crop, x : x + crop] = score
        caption = "artifact branch: score of each crop; grey = seen whole only"
        return _overlay.heat(image, values, caption, 0.0, 1.0)

    @classmethod
    def external(cls, options: DefaultOptions) -> dict[str, str]:
        return ARRAYS.external(options)

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """CLIP's vision tower, packed or not; or EfficientNet-Lite0 of ImageNet, in timm's names or
        those of its PyPI package."""
        if vision := _clip.vision_keys(published):
            return {f"{ENCODER_KEYS}{k}": v for k, v in vision.items()}
        return {f"artifact.trunk.{k}": v for k, v in convert_imagenet(published).items()}

    @classmethod
    def tiny(cls) -> DefaultOptions:
        return DefaultOptions(crop=48, size="tiny")
