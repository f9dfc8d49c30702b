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
from ._base import Detector, Transform
from ._classifier_options import ClassifierOptions

# Names that timm gives to last layers: a pretrained file's has other outputs, and is left out.
LAST_LAYERS = ("fc", "head", "head.fc", "classifier", "head.l", "last_linear")


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
