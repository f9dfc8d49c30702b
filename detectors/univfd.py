"""UnivFD (UniversalFakeDetect, Ojha et al., CVPR 2023, arXiv 2302.10174): a linear layer on the
feature of a frozen CLIP ViT-L/14, which was never trained to tell pictures apart.

The published file has the layer alone, 769 numbers; the encoder is CO-SPY's of variant progan.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import _clip
from ._base import Detector, Transform
from ._square import BLUR_AND_JPEG, Square
from ._univfd_options import UnivFdOptions

ENCODER = "clip-vit-l-14"  # the manifest's name of the frozen encoder


class UnivFd(Detector):
    """Input (B, 3, 224, 224), normalised as CLIP was trained; 303 M parameters, all but 769 of them
    frozen."""

    title = "UnivFD"
    Options = UnivFdOptions
    options: UnivFdOptions

    def __init__(self, options: UnivFdOptions) -> None:
        super().__init__(options)
        tiny = options.size == "tiny"
        self.encoder = _clip.clip_vit_l14(tiny).requires_grad_(False)
        self.fc = nn.Linear(64 if tiny else 768, 1)

    def transform(self, train: bool) -> Transform:
        """Scoring crops and never resizes; training brings the shorter side to 256 px first, blurs
        and encodes as CNNDetection's does."""
        return Square(
            256 if train else None, 224, _clip.CLIP_MEAN, _clip.CLIP_STD, train=train,
            distortion=BLUR_AND_JPEG,
        )  # fmt: skip

    @property
    def embeds(self) -> bool:
        return True

    def embed(self, batch: Tensor) -> Tensor:
        """CLIP's feature (B, 768), not L2-normalised."""
        kind = next(self.encoder.parameters()).dtype
        with torch.no_grad():
            return self.encoder(batch.to(kind)).float()

    def classify(self, embedded: Tensor) -> Tensor:
        return self.fc(embedded).squeeze(1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.classify(self.embed(batch))

    @classmethod
    def external(cls, options: UnivFdOptions) -> dict[str, str]:
        return {"encoder.": ENCODER}

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """`fc_weights.pth`: `weight` and `bias` of the layer."""
        return {f"fc.{k}" if k in ("weight", "bias") else k: v for k, v in published.items()}

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k.removeprefix("fc."): v for k, v in state.items() if k.startswith("fc.")}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """CLIP's vision tower."""
        return {f"encoder.{k}": v for k, v in _clip.vision_keys(published).items()}

    @classmethod
    def tiny(cls) -> UnivFdOptions:
        return UnivFdOptions(size="tiny")
