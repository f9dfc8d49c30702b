"""Small models for tests: every registered detector with weights that matter, and a toy one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import detectors
from detectors import _transforms as T
from detectors._base import Detector, Transform


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights and running statistics that let every parameter matter. As they start, a last layer
    of zeros would hide all that is before it."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        if value.ndim < 2:
            offset = 0.0 if name.endswith("bias") else 1.0
            value.data.copy_(offset + 0.1 * torch.randn(value.shape, generator=generator))
        elif name.split(".")[-2:-1] == ["fc"]:
            value.data.normal_(0, value.shape[1] ** -0.5, generator=generator)
        else:
            value.data.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1, generator=generator)


@cache
def tiny(name: str) -> Detector:
    """A registered detector's tiny variant, randomised, in evaluation mode. Do not change it."""
    kind = detectors.load(name)
    # Whoever asks first: its weights must not be those of inference mode, which are for good.
    with torch.inference_mode(False):
        model = kind(kind.tiny())
        randomise(model)
    return model.eval()


def backbone_files(model: Detector, folder: Path) -> list[Path]:
    """The model's frozen parts in files of their own, with published key names."""
    files = []
    for prefix, name in type(model).external(model.options).items():
        published = "" if name.startswith(("sd-v1_4-vae", "dinov2")) else "visual."
        part = {
            published + key.removeprefix(prefix): value.contiguous()
            for key, value in model.state_dict().items()
            if key.startswith(prefix)
        }
        files.append(folder / f"{name}.safetensors")
        save_file(part, files[-1])
    return files


@dataclass(frozen=True)
class ToyOptions:
    """`dropout`: before the classifier."""

    dropout: float = 0.3


@dataclass(frozen=True)
class ToyTransform:
    """A 32 px crop: random and mirrored in training, central otherwise."""

    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        image = T.pad_to(image, 32)
        if self.train:
            return T.to_tensor(T.random_flip(T.random_crop(image, 32, rng), rng))
        return T.to_tensor(T.centre_crop(image, 32))


class Toy(Detector):
    """A thousandth of a real detector, with all that a resumed run must restore: batch norm,
    dropout, a classifier named `fc`."""

    title = "Toy"
    Options = ToyOptions

    def __init__(self, options: ToyOptions) -> None:
        super().__init__(options)
        self.conv = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(8, 1)

    def transform(self, train: bool) -> Transform:
        return ToyTransform(train)

    def feature(self, batch: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 8)."""
        noise = batch - batch.roll(1, dims=3)
        return self.bn(self.conv(10 * noise)).relu().mean(dim=(2, 3))

    def forward(self, batch: Tensor) -> Tensor:
        return self.fc(self.dropout(self.feature(batch))).squeeze(1)


class FrozenToy(Toy):
    """A toy of which all but the classifier is frozen, in evaluation mode; no batch norm learns.
    Its validation is random, as CO-SPY's is."""

    def __init__(self, options: ToyOptions) -> None:
        super().__init__(options)
        self.requires_grad_(False)
        self.fc.requires_grad_(True)

    def train(self, mode: bool = True) -> FrozenToy:
        super().train(mode)
        self.bn.eval()
        return self

    def val_transform(self) -> Transform:
        return ToyTransform(train=True)

    @property
    def embeds(self) -> bool:
        return True

    def embed(self, batch: Tensor) -> Tensor:
        with torch.no_grad():
            return self.feature(batch).float()

    def classify(self, embedded: Tensor) -> Tensor:
        return self.fc(self.dropout(embedded)).squeeze(1)
