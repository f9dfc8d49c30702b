"""CO-SPY (CVPR 2025, arXiv 2503.18286): the artifact branch of its `progan` variant.

Residual of neighbouring pixels (NPR): what a picture loses when it is halved and doubled again,
both by nearest neighbour; a small ResNet judges it. Published file: `artifact_weights.pth`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from . import _transforms as T
from ._base import Detector, OptionError, Transform, one_of
from ._resnet import ArtifactTrunk


@dataclass(frozen=True)
class CoSpyOptions:
    """`train_dataset`, `mode`, `branch`: as on the published command line. `width`: channels of
    the stem (64 as published)."""

    train_dataset: str = "sd-v1_4"
    mode: str = "fusion"
    branch: str = "artifact"
    width: int = 64

    def __post_init__(self) -> None:
        one_of("cospy.train_dataset", self.train_dataset, ("sd-v1_4", "progan"))
        one_of("cospy.mode", self.mode, ("branch", "fusion", "end2end"))
        one_of("cospy.branch", self.branch, ("artifact", "semantic"))
        if self.width < 1:
            raise OptionError(f"cospy.width: expected 1 or more; found {self.width}")
        if (self.train_dataset, self.mode, self.branch) != ("progan", "branch", "artifact"):
            raise OptionError(
                f"CO-SPY's {self.train_dataset} {self.mode} detector is not part of this version; "
                "expected --train_dataset progan --mode branch --branch artifact"
            )


@dataclass(frozen=True)
class ArtifactTransform:
    """Published transform of the progan artifact branch: shorter side to 256 px, 224 px crop
    (random and mirrored in training, central otherwise), ImageNet mean and deviation."""

    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        image = T.resize_shorter(image, 256)
        if self.train:
            image = T.random_flip(T.random_crop(image, 224, rng), rng)
        else:
            image = T.centre_crop(image, 224)
        return T.normalise(T.to_tensor(image), T.IMAGENET_MEAN, T.IMAGENET_STD)


def neighbour_residual(x: Tensor) -> Tensor:
    """x - up(down(x)), nearest by 1/2 and 2, times 2/3. (B, 3, H, W), H and W even; zero at the
    top left pixel of each 2x2 block. Source: published artifact encoder, variant progan."""
    down = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    up = F.interpolate(down, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
    return (x - up) * (2 / 3)


class CoSpy(Detector):
    """Input (B, 3, 224, 224), ImageNet-normalised; 1.44 M parameters at width 64."""

    title = "CO-SPY"
    Options = CoSpyOptions

    def __init__(self, options: CoSpyOptions) -> None:
        super().__init__(options)
        self.artifact_encoder = ArtifactTrunk(options.width)
        self.fc = nn.Linear(options.width * 8, 1)
        nn.init.normal_(self.fc.weight, 0.0, 0.02)

    def transform(self, train: bool) -> Transform:
        return ArtifactTransform(train)

    def feature(self, batch: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, 8 * width)."""
        return self.artifact_encoder(neighbour_residual(batch))

    def forward(self, batch: Tensor) -> Tensor:
        return self.fc(self.feature(batch)).squeeze(1)

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leaves out `artifact_encoder.fc1`, which the published network holds but never uses."""
        return {k: v for k, v in published.items() if not k.startswith("artifact_encoder.fc1.")}

    @classmethod
    def tiny(cls) -> CoSpyOptions:
        return CoSpyOptions(train_dataset="progan", mode="branch", width=8)
