"""A plain classifier: any network of timm with one output, on the whole picture.

The kind of model that Sentry-Image (arXiv 2304.13023) trains on Fake2M: networks of ImageNet,
such as ConvNeXt-S and ResNet-50. Its preprocessing is what the network was pretrained with; the
paper does not give its own. configs/classifier.yaml and configs/fake2m.yaml are recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from . import _augment
from . import _transforms as T
from ._base import Detector, OptionError, Transform

# Names that timm gives to last layers: a pretrained file's has other outputs, and is left out.
LAST_LAYERS = ("fc", "head", "head.fc", "classifier", "head.l", "last_linear")


@dataclass(frozen=True)
class ClassifierOptions:
    """`network`: a name of timm's. `size`: side in px of what it sees. `area`: range of the share
    of the picture that a training crop has; `jpeg_prob`, `jpeg`: probability and range of quality
    of a JPEG encoding in training, the same for both classes."""

    network: str = "convnext_small"
    size: int = 224
    area: tuple[float, float] = (0.5, 1.0)
    jpeg_prob: float = 0.0
    jpeg: tuple[int, int] = (60, 100)

    def __post_init__(self) -> None:
        import timm

        # A tag, as in convnext_small.fb_in1k, names weights; these come by --backbone_weights.
        if "." in self.network or not timm.is_model(self.network):
            near = ", ".join(timm.list_models(f"{self.network.split('.')[0][:8]}*")[:8])
            raise OptionError(
                f"classifier.network: expected a network of timm without a tag, such as "
                f"{near or 'convnext_small, resnet50'}; found {self.network!r}"
            )
        if not 32 <= self.size <= 4096:
            raise OptionError(f"classifier.size: expected 32 to 4096; found {self.size}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise OptionError(f"classifier.area: expected 0 < low <= high <= 1; found {self.area}")
        if not 0 <= self.jpeg_prob <= 1:
            raise OptionError(f"classifier.jpeg_prob: expected 0 to 1; found {self.jpeg_prob}")
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise OptionError(
                f"classifier.jpeg: expected 1 <= low <= high <= 100; found {self.jpeg}"
            )


@dataclass(frozen=True)
class WholePicture:
    """Picture -> (3, size, size), normalised as the network was pretrained. Scoring: shorter side
    to size / `share`, then the centre. Training: a random crop, flipped half the time."""

    options: ClassifierOptions
    share: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        size = self.options.size
        if self.train:
            box = _augment.random_box(image.width, image.height, self.options.area, rng)
            image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
            image = T.random_flip(image, rng)
            if rng.random() < self.options.jpeg_prob:
                low, high = self.options.jpeg
                image = T.jpeg(image, int(rng.integers(low, high + 1)))
        else:
            image = T.centre_crop(T.resize_shorter(image, round(size / self.share)), size)
        return T.normalise(T.to_tensor(image), self.mean, self.std)


class Classifier(Detector):
    """Input (B, 3, size, size); ConvNeXt-S has 49 M parameters, ResNet-50 24 M."""

    title = "Classifier"
    Options = ClassifierOptions

    def __init__(self, options: ClassifierOptions) -> None:
        import timm

        super().__init__(options)
        self.network = timm.create_model(options.network, pretrained=False, num_classes=1)

    def transform(self, train: bool) -> Transform:
        known: Any = self.network.default_cfg
        return WholePicture(
            self.options, known["crop_pct"], tuple(known["mean"]), tuple(known["std"]), train
        )

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch).squeeze(1)

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's weights of ImageNet, without their last layer."""
        return {
            f"network.{key}": value
            for key, value in published.items()
            if key.rpartition(".")[0] not in LAST_LAYERS
        }

    @classmethod
    def tiny(cls) -> ClassifierOptions:
        return ClassifierOptions(network="convnext_atto", size=64, jpeg_prob=0.5)
