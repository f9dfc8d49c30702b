"""DDA (Dual Data Alignment, Chen et al., NeurIPS 2025, arXiv 2505.14359): DINOv2 ViT-L/14 trained
on pictures and their own reconstructions, aligned in pixels and frequencies.

The published file has low-rank updates beside DINOv2's weights; here they are merged, which
computes the same. The alignment of training pairs is not here.
"""

from __future__ import annotations

from torch import Tensor, nn

from . import _clip, _dinov2
from ._base import Detector, Transform
from ._dda_options import DdaOptions
from ._square import Square

PUBLISHED = "base_model."
SCALE = 1 / 8  # of the low-rank updates: alpha 1, rank 8
ORIGINAL, DOWN, UP = ".original_layer.", ".lora.lora_A", ".lora.lora_B"


class Dda(Detector):
    """Input (B, 3, 336, 336), normalised as CLIP was trained, as published; 304 M parameters."""

    title = "DDA"
    Options = DdaOptions
    options: DdaOptions

    def __init__(self, options: DdaOptions) -> None:
        super().__init__(options)
        name = "tiny" if options.size == "tiny" else "vit_large_patch14_dinov2"
        self.model = _dinov2.dinov2(name)
        self.fc = nn.Linear(_dinov2.NETWORKS[name][0], 1)

    def transform(self, train: bool) -> Transform:
        """Cropped, never resized."""
        side = 4 * _dinov2.PATCH if self.options.size == "tiny" else 336
        return Square(None, side, _clip.CLIP_MEAN, _clip.CLIP_STD, train=train)

    def forward(self, batch: Tensor) -> Tensor:
        return self.fc(_dinov2.class_token(self.model, batch)).squeeze(1)

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """With each update B A, scaled, added to the matrix that it stands beside."""
        state = {
            k.removeprefix(PUBLISHED).replace(ORIGINAL, "."): v
            for k, v in published.items()
            if not k.endswith((DOWN, UP, _dinov2.MASK))
        }
        for key in [key for key in published if key.endswith(DOWN)]:
            layer = key.removesuffix(DOWN)
            name = f"{layer.removeprefix(PUBLISHED)}.weight"
            up, down = published[layer + UP].double(), published[key].double()
            state[name] = (state[name].double() + SCALE * up @ down).to(state[name].dtype)
        return state

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """DINOv2 ViT-L/14, of its authors or of timm."""
        return {f"model.{k}": v for k, v in _dinov2.own_keys(published).items()}

    @classmethod
    def tiny(cls) -> DdaOptions:
        return DdaOptions(size="tiny")
