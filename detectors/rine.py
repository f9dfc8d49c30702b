"""RINE (Koutlis and Papadopoulos, ECCV 2024, arXiv 2402.19091): class tokens of all blocks of a
frozen CLIP ViT-L/14, projected, and weighed for each feature by learned importances.

Published files: model_{1class,2class,4class,ldm}_trainable.pth, the part that is not CLIP. The
contrastive term of the published loss is not here: training minimises the cross-entropy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as TF

from . import _clip
from . import _transforms as T
from ._base import Detector, Transform
from ._rine_options import RineOptions
from ._square import BLUR_AND_JPEG, Square

ENCODER = "clip-vit-l-14"  # the manifest's name of the frozen encoder
CROP = 224
# Layers of each projection, and their width: the published choice for each training set.
VARIANTS = {"1class": (4, 1024), "2class": (4, 128), "4class": (2, 1024), "ldm": (4, 1024)}
SLOT = "4class"  # that the manifest's entry `rine` has


@dataclass(frozen=True)
class Crops:
    """Picture -> (V, 3, 224, 224), normalised: one crop, or torchvision's ten of it. A picture that
    is too small is black beyond its borders."""

    crops: int
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        mean, std = _clip.CLIP_MEAN, _clip.CLIP_STD
        if self.train or self.crops == 1:
            square = Square(None, CROP, mean, std, train=self.train, distortion=BLUR_AND_JPEG)
            return square(image, rng)[None]
        width, height = (max(CROP, side) for side in image.size)
        views = TF.ten_crop(TF.center_crop(image, [height, width]), [CROP])
        return T.normalise(torch.stack([T.to_tensor(view) for view in views]), mean, std)


def projection(inputs: int, width: int, layers: int) -> nn.Sequential:
    """Linear layers with ReLU and dropout, the first dropout before all; published numbering."""
    modules: list[nn.Module] = [nn.Dropout()]
    for number in range(layers):
        modules += [nn.Linear(width if number else inputs, width), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*modules)


class Rine(Detector):
    """Input (B, V, 3, 224, 224), normalised as CLIP was trained; 303 M frozen parameters, and 6.3 M
    of the variant 4class."""

    title = "RINE"
    Options = RineOptions
    CHOICE = ("variant",)
    options: RineOptions

    def __init__(self, options: RineOptions) -> None:
        super().__init__(options)
        tiny = options.size == "tiny"
        self.encoder = _clip.clip_vit_l14(tiny).requires_grad_(False)
        blocks, inputs = (2, 64) if tiny else (24, 1024)
        layers, width = (1, 32) if tiny else VARIANTS[options.variant]
        self.alpha = nn.Parameter(torch.randn(1, blocks, width))
        self.proj1 = projection(inputs, width, layers)
        self.proj2 = projection(width, width, layers)
        head: list[nn.Module] = []
        for _ in range(2):
            head += [nn.Linear(width, width), nn.ReLU(), nn.Dropout()]
        self.head = nn.Sequential(*head, nn.Linear(width, 1))

    def transform(self, train: bool) -> Transform:
        return Crops(self.options.crops, train)

    @property
    def embeds(self) -> bool:
        return True

    def embed(self, batch: Tensor) -> Tensor:
        """Class tokens of each crop, (B, V, blocks, width)."""
        kind = next(self.encoder.parameters()).dtype
        with torch.no_grad():
            tokens = _clip.mlp_inputs(self.encoder, batch.flatten(0, 1).to(kind))
        return tokens.float().unflatten(0, batch.shape[:2])

    def classify(self, embedded: Tensor) -> Tensor:
        tokens = self.proj1(embedded)
        features = self.proj2((self.alpha.softmax(dim=1) * tokens).sum(dim=2))
        return self.head(features).squeeze(2).mean(dim=1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.classify(self.embed(batch))

    @classmethod
    def entry(cls, options: RineOptions) -> str:
        return "rine" if options.variant == SLOT else f"rine-{options.variant}"

    @classmethod
    def external(cls, options: RineOptions) -> dict[str, str]:
        return {"encoder.": ENCODER}

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the encoder, which no published file has."""
        return {k: v for k, v in state.items() if not k.startswith("encoder.")}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """CLIP's vision tower."""
        return {f"encoder.{k}": v for k, v in _clip.vision_keys(published).items()}

    @classmethod
    def tiny(cls) -> RineOptions:
        return RineOptions(size="tiny")
