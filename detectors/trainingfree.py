"""Detection without training data: how far a small perturbation moves a picture's feature.

The feature is DINOv2's class token; the distance, one minus the cosine. Published methods differ in
the perturbation (`METHODS`). Which direction means synthetic depends on the pictures, and is often
not the published one: direction and threshold are fitted to labelled pictures by phase train.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from . import _dinov2
from . import _transforms as T
from ._base import Detector, Part, Transform
from ._errors import OptionError
from ._platt import platt
from ._trainingfree_options import TrainingFreeOptions

ENTRIES = {  # of the manifest
    "vit_small_patch14_dinov2": "dinov2-vit-s-14",
    "vit_large_patch14_dinov2": "dinov2-vit-l-14",
}
SIDE, TINY_SIDE = 224, 56  # px that the encoder sees
TILES = 4  # along each side, of the picture that WaRPAD sees
BLOCK = 4  # px: two levels of Haar's wavelet keep the mean of so many in each direction
HIGH = 0.1  # share of the high frequencies that WaRPAD adds
BLUR = 0.55  # px, deviation of contrastive blur
AT_ONCE = 64  # views in a pass of the encoder, which bounds its memory


def _normal(x: Tensor) -> Tensor:
    return T.normalise(x, T.IMAGENET_MEAN, T.IMAGENET_STD)


def _drawn(like: Tensor, draws: int, rng: np.random.Generator) -> Tensor:
    """Standard normal numbers (draws, 3, H, W)."""
    return torch.from_numpy(rng.standard_normal((draws, *like.shape), dtype=np.float32))


def _cropped(image: Image.Image, side: int) -> Tensor:
    """Shorter side to `side` px, bicubic, then the centre; (3, side, side) in [0, 1]."""
    strip = T.cut_strip(image, T.LONGEST * min(image.size))
    resized = TF.resize(strip, side, InterpolationMode.BICUBIC)
    return T.to_tensor(T.centre_crop(resized, side))


def rigid(
    image: Image.Image, side: int, sigma: float, draws: int, rng: np.random.Generator
) -> Tensor:
    """The whole picture, and with noise on normalised values (He et al., arXiv 2405.20112)."""
    x = _normal(T.to_tensor(TF.resize(image, [side, side])))
    return torch.cat([x[None], x + sigma * _drawn(x, draws, rng)])


def noise(
    image: Image.Image, side: int, sigma: float, draws: int, rng: np.random.Generator
) -> Tensor:
    """The centre, and with noise on pixel values (the noise of MINDER, arXiv 2411.19117)."""
    x = _cropped(image, side)
    return _normal(torch.cat([x[None], (x + sigma * _drawn(x, draws, rng)).clamp(0, 1)]))


def blur(image: Image.Image, side: int, *_: object) -> Tensor:
    """The centre blurred, and that much sharpened (contrastive blur, arXiv 2411.19117)."""
    x = _cropped(image, side)
    taps = torch.tensor([-1.0, 0.0, 1.0]).div(BLUR).square().mul(-0.5).exp()
    kernel = torch.outer(taps, taps) / taps.sum().square()
    padded = F.pad(x[None], (1, 1, 1, 1), mode="reflect")
    blurred = F.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)[0]
    return _normal(torch.stack([blurred, (2 * x - blurred).clamp(0, 1)]))


def minder(
    image: Image.Image, side: int, sigma: float, draws: int, rng: np.random.Generator
) -> Tensor:
    """The views of `noise`, then those of `blur`."""
    return torch.cat([noise(image, side, sigma, draws, rng), blur(image, side)])


def warpad(image: Image.Image, side: int, *_: object) -> Tensor:
    """16 tiles of the picture stretched to four times the side, then the same with a tenth of their
    high frequencies added (Choi et al., arXiv 2511.14030). Two levels of Haar's wavelet without the
    lowest band are a picture minus its means over 4 x 4 px, so that no wavelet is needed."""
    whole = [TILES * side, TILES * side]
    x = _normal(T.to_tensor(TF.resize(image, whole, InterpolationMode.BICUBIC)))
    tiles = x.unfold(1, side, side).unfold(2, side, side).flatten(1, 2).transpose(0, 1)
    means = F.interpolate(F.avg_pool2d(tiles, BLOCK), scale_factor=float(BLOCK))
    return torch.cat([tiles, tiles + HIGH * (tiles - means)])


def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of (..., F) with (..., F). By the length of the difference of unit vectors, which
    keeps its digits where the cosine is nearly 1."""
    return (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(dim=-1) / 2


def _noise_distance(features: Tensor) -> Tensor:
    """Mean distance of the first view from the others."""
    return distance(features[:, :1], features[:, 1:]).mean(dim=1)


def _minder_distance(features: Tensor) -> Tensor:
    """The smaller distance: of the noise, or between blurred and sharpened."""
    return torch.minimum(
        _noise_distance(features[:, :-2]), distance(features[:, -2], features[:, -1])
    )


def _halves_distance(features: Tensor) -> Tensor:
    """Mean distance of the views of the first half from those of the second."""
    return distance(*features.chunk(2, dim=1)).mean(dim=1)


@dataclass(frozen=True)
class Method:
    """A published perturbation. `views`: of a picture, (V, 3, side, side); `distance`: features
    (B, V, F) -> (B,); `noise`, `draws`: published numbers of it."""

    views: Callable[..., Tensor]
    distance: Callable[[Tensor], Tensor]
    noise: float = 0.0
    draws: int = 0


METHODS = {
    "rigid": Method(rigid, _noise_distance, noise=0.05, draws=1),
    "noise": Method(noise, _noise_distance, noise=0.009, draws=3),
    "blur": Method(blur, _halves_distance),
    "minder": Method(minder, _minder_distance, noise=0.009, draws=3),
    "warpad": Method(warpad, _halves_distance),
}


@dataclass(frozen=True)
class Views:
    """Picture -> (V, 3, side, side) float32, normalised: what a method compares. Its noise is
    seeded by the picture itself. Training flips half of the pictures."""

    options: TrainingFreeOptions
    side: int
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        if self.train:
            image = T.random_flip(image, rng)
        options, method = self.options, METHODS[self.options.method]
        # Not by the generator that is given: a picture has one score, whoever scores it.
        own = np.random.default_rng(zlib.crc32(image.tobytes()))
        sigma = options.noise or method.noise
        return method.views(image, self.side, sigma, options.draws or method.draws, own)


class TrainingFree(Detector):
    """Input (B, V, 3, 224, 224), V by the method: 2 (rigid, blur), 4 (noise), 6 (minder), 32
    (warpad); 22 M parameters with ViT-S/14, all frozen but slope and offset of the logit."""

    title = "Training-free"
    Options = TrainingFreeOptions
    CHOICE = ("method", "network")
    FITTED = True
    options: TrainingFreeOptions

    def __init__(self, options: TrainingFreeOptions) -> None:
        super().__init__(options)
        name = "tiny" if options.size == "tiny" else options.network
        self.encoder = _dinov2.dinov2(name).requires_grad_(False)
        self.fc = nn.Linear(1, 1)

    def transform(self, train: bool) -> Transform:
        return Views(self.options, TINY_SIDE if self.options.size == "tiny" else SIDE, train)

    @property
    def embeds(self) -> bool:
        return True

    def embed(self, batch: Tensor) -> Tensor:
        """Logarithm of the distance, (B, 1). In float32 whatever the precision: half precision
        would round away the very difference."""
        self.encoder.float()
        views = batch.flatten(0, 1)
        with torch.no_grad(), torch.autocast(views.device.type, enabled=False):
            parts = [_dinov2.class_token(self.encoder, part) for part in views.split(AT_ONCE)]
            features = torch.cat(parts).unflatten(0, batch.shape[:2])
            distances = METHODS[self.options.method].distance(features)
        return distances.clamp(min=1e-12).log()[:, None]

    def classify(self, embedded: Tensor) -> Tensor:
        return self.fc(embedded).squeeze(1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.classify(self.embed(batch))

    def parts(self) -> dict[str, Part]:
        raise OptionError(f"{self.title} cannot be exported: its passes depend on the pictures")

    @classmethod
    def fit(
        cls,
        features: Tensor,
        labels: Tensor,
        groups: Sequence[str],
        options: TrainingFreeOptions,
    ) -> tuple[TrainingFreeOptions, dict[str, Tensor]]:
        """Slope by a logistic regression, whose sign is the direction; offset so that the threshold
        lies at the percentile of the real pictures that `false_alarms` says."""
        values = features[:, 0].double().numpy()
        slope, _ = platt(labels.long().numpy(), values)
        if slope == 0:
            raise OptionError(f"{cls.title}: expected distances that differ; found one value")
        along = values[labels.numpy() == 0] * np.sign(slope)
        threshold = float(np.quantile(along, 1 - options.false_alarms))
        weight, bias = torch.tensor([[slope]]), torch.tensor([-abs(slope) * threshold])
        return options, {"fc.weight": weight.float(), "fc.bias": bias.float()}

    @classmethod
    def external(cls, options: TrainingFreeOptions) -> dict[str, str]:
        return {"encoder.": ENTRIES[options.network]}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """DINOv2, of its authors or of timm."""
        return {f"encoder.{k}": v for k, v in _dinov2.own_keys(published).items()}

    @classmethod
    def tiny(cls) -> TrainingFreeOptions:
        return TrainingFreeOptions(noise=1.0, size="tiny")
