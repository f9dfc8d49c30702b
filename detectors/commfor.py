"""Community Forensics (Park and Owens, CVPR 2025, arXiv 2411.04125): a plain ViT-S/16, all of it
trained on 2.7 million pictures of 4,803 generators. The smallest network with public weights that
holds its own, under MIT.

Published files: safetensors of OwensLab/commfor-model-384 and -224 on Hugging Face.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from . import _transforms as T
from ._base import Detector, Transform
from ._commfor_options import CommForOptions
from ._square import Square

LAST = "vit.head."


@dataclass(frozen=True)
class Network:
    """A vision transformer of 16 px patches: `resize` is the shorter side that the input is cropped
    out of."""

    resize: int
    width: int
    blocks: int
    heads: int


NETWORKS = {
    384: Network(440, 384, 12, 6),
    224: Network(256, 384, 12, 6),
    64: Network(72, 48, 2, 3),
}


class CommFor(Detector):
    """Input (B, 3, side, side), ImageNet-normalised; 21.8 M parameters."""

    title = "Community Forensics"
    Options = CommForOptions
    CHOICE = ("side",)
    options: CommForOptions

    def __init__(self, options: CommForOptions) -> None:
        from timm.models.vision_transformer import VisionTransformer

        super().__init__(options)
        network = NETWORKS[options.side]
        self.vit: nn.Module = VisionTransformer(
            img_size=options.side, embed_dim=network.width, depth=network.blocks,
            num_heads=network.heads, num_classes=1,
        )  # fmt: skip

    def transform(self, train: bool) -> Transform:
        """Shorter side resized, then cropped; the published training also draws up to five random
        operations for each picture, which are not here."""
        side = self.options.side
        return Square(NETWORKS[side].resize, side, T.IMAGENET_MEAN, T.IMAGENET_STD, train=train)

    def forward(self, batch: Tensor) -> Tensor:
        return self.vit(batch).squeeze(1)

    @classmethod
    def entry(cls, options: CommForOptions) -> str:
        return f"commfor-{options.side}" if options.side != CommForOptions().side else "commfor"

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's ViT-S/16 of ImageNet, without its classifier."""
        named = {f"vit.{k}": v for k, v in published.items()}
        return {k: v for k, v in named.items() if not k.startswith(LAST)}

    @classmethod
    def tiny(cls) -> CommForOptions:
        return CommForOptions(side=64)
