"""SSP (arXiv 2402.01123): the single simplest patch of a picture, its SRM noise, a ResNet-50.

Published file: `Net_epoch_best.pth`, whose logit is that of REAL: `convert` turns it around.
Scoring is deterministic here: the picture's own pixels seed the positions of the patches.
"""

from __future__ import annotations

import logging
import re
import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet

from . import _overlay
from . import _transforms as T
from ._base import Detector, Transform
from ._errors import WeightsError
from ._faster import fold_norms
from ._ssp_options import PATCH, SIDE, SspOptions

CANDIDATES = 64
# The published name of the network, and another one for ours: their logits differ in sign, and a
# file that lost its card is told by its keys.
THEIRS, OURS = "disc.", "network."
FLIPPED = (f"{THEIRS}fc.weight", f"{THEIRS}fc.bias")
log = logging.getLogger(__name__)


def random_corners(
    width: int, height: int, rng: np.random.Generator, side: int = PATCH, count: int = CANDIDATES
) -> np.ndarray:
    """(count, 2) top left corners (y, x) of patches of `side` px, uniform with replacement."""
    y = rng.integers(0, height - side + 1, count)
    x = rng.integers(0, width - side + 1, count)
    return np.stack([y, x], axis=1)


def texture_score(patch: np.ndarray) -> int:
    """Sum of absolute differences between neighbours, horizontal, vertical and on both diagonals,
    over all pixels and channels of a uint8 (h, w, 3) patch. SSP, section 3.1."""
    p = patch.astype(np.int32)
    # Differences of bytes would wrap around.
    differences = (
        p[:, :-1] - p[:, 1:],
        p[:-1] - p[1:],
        p[:-1, :-1] - p[1:, 1:],
        p[1:, :-1] - p[:-1, 1:],
    )
    return int(sum(int(np.abs(d).sum()) for d in differences))


def simplest(pixels: np.ndarray, corners: np.ndarray, count: int, side: int = PATCH) -> list[int]:
    """Indices of the `count` corners whose patches have the least texture, simplest first; the
    earlier corner wins a tie."""
    # A stable sort, or a tie, which plain skies have, would depend on numpy's version.
    scores = [texture_score(pixels[y : y + side, x : x + side]) for y, x in corners]
    return np.argsort(scores, kind="stable")[:count].tolist()


def squashed(image: Image.Image) -> Image.Image:
    """256 x 256, bilinear, whatever its aspect."""
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def prepare(image: Image.Image, side: int = PATCH) -> Image.Image:
    """A picture narrower or lower than a patch becomes 256 x 256."""
    return squashed(image) if min(image.size) < side else image


def chosen_corners(
    image: Image.Image, count: int, rng: np.random.Generator, options: SspOptions
) -> np.ndarray:
    """(count, 2) corners (y, x) of the simplest patches of a prepared picture."""
    side = options.patch_size
    corners = random_corners(image.width, image.height, rng, side, options.candidates)
    return corners[simplest(np.asarray(image), corners, count, side)]


def own_rng(image: Image.Image) -> np.random.Generator:
    """A generator that a picture's own pixels seed, so that scoring chooses the same each time."""
    return np.random.default_rng(zlib.crc32(np.asarray(image).tobytes()))


def patches_to_item(image: Image.Image, corners: np.ndarray, side: int = PATCH) -> Tensor:
    """(N, 3, side, side), ImageNet-normalised, of the patches at `corners`."""
    patches = [T.to_tensor(image.crop((x, y, x + side, y + side))) for y, x in corners.tolist()]
    return T.normalise(torch.stack(patches), T.IMAGENET_MEAN, T.IMAGENET_STD)


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """scipy's Gaussian of 8-bit values, as published: what is behind the point is cut off after
    each of the two axes, which darkens a little."""
    from scipy.ndimage import gaussian_filter

    return Image.fromarray(gaussian_filter(np.asarray(image), sigma=(sigma, sigma, 0)))


@dataclass(frozen=True)
class PatchTransform:
    """Picture -> the simplest patches, or all of it. In training: optional blur (sigma U(0,1)) and
    JPEG (quality 90-100), then the one simplest of patches at random positions."""

    options: SspOptions
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        options, side = self.options, self.options.patch_size
        # Blur before JPEG, and both before the choice of the patch, as published: the simplest
        # patch is that of the picture as it then is.
        if self.train and rng.random() < options.blur_prob:
            image = blur(image, rng.uniform(0, 1))
        if self.train and rng.random() < options.jpg_prob:
            image = T.jpeg(image, int(rng.integers(90, 101)))
        if options.whole_picture:
            return patches_to_item(squashed(image), np.zeros((1, 2), int), SIDE)
        image = prepare(image, side)
        # Training draws anew each time; averaging patches is for scoring alone.
        count, rng = (1, rng) if self.train else (options.patches, own_rng(image))
        return patches_to_item(image, chosen_corners(image, count, rng, options), side)


def srm_kernels() -> Tensor:
    """(3, 3, 5, 5): three fixed high-pass kernels, each repeated over the input channels."""
    # Of the SRM's filters: square 3 x 3, square 5 x 5, and the second derivative along a line.
    small = np.zeros((5, 5))
    small[1:4, 1:4] = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    large = (
        np.array(
            [
                [-1, 2, -2, 2, -1],
                [2, -6, 8, -6, 2],
                [-2, 8, -12, 8, -2],
                [2, -6, 8, -6, 2],
                [-1, 2, -2, 2, -1],
            ]
        )
        / 12
    )
    line = np.zeros((5, 5))
    line[2, 1:4] = np.array([1, -2, 1]) / 2
    kernels = torch.tensor(np.stack([small, large, line]), dtype=torch.float32)
    return kernels[:, None].repeat(1, 3, 1, 1)


class Srm(nn.Module):
    """(B, 3, H, W) -> (B, 3, H, W) noise residuals, clamped to [-3, 3]. SSP, section 3.2."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", srm_kernels())

    def forward(self, x: Tensor) -> Tensor:
        # Padding by zeros gives residuals at the edges that are not the picture's, as published.
        return F.conv2d(x, self.kernel.to(x.dtype), padding=2).clamp(-3, 3)


class Ssp(Detector):
    """Input (B, N, 3, 32, 32); 23.5 M parameters as published."""

    title = "SSP"
    Options = SspOptions

    def __init__(self, options: SspOptions) -> None:
        super().__init__(options)
        # The filters are constants: a buffer goes with the model, and nothing learns it.
        self.srm = Srm()
        self.network = resnet.ResNet(resnet.Bottleneck, list(options.layers), num_classes=1)
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:
        return PatchTransform(self.options, train)

    def residual(self, patches: Tensor) -> Tensor:
        """The noise (B, 3, size, size) of patches (B, 3, h, w), which are resized first."""
        size = (self.options.size, self.options.size)
        return self.srm(F.interpolate(patches, size, mode="bilinear", align_corners=False))

    def optimise(self) -> None:
        fold_norms(self.network)

    def forward(self, batch: Tensor) -> Tensor:
        return self._patch_logits(batch).mean(dim=1)

    def _patch_logits(self, batch: Tensor) -> Tensor:
        """Logits (B, N) of the patches of a batch."""
        return self.network(self.residual(batch.flatten(0, 1))).view(batch.shape[:2])

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the logits (N,) of its patches, the simplest first."""
        each = self._patch_logits(batch)
        return each.mean(dim=1), list(each.float().cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The chosen patches, outlined."""
        side = self.options.patch_size
        if self.options.whole_picture:
            drawn = [(0, 0, *image.size)]
        else:
            # Chosen once more, by the seed that scoring took: items do not carry their corners.
            image = prepare(image, side)
            corners = chosen_corners(image, len(relevance), own_rng(image), self.options).tolist()
            drawn = [(x, y, x + side, y + side) for y, x in corners]
        shown = ", ".join(f"{score:.2f}" for score in torch.sigmoid(relevance).tolist()[:4])
        more = ", ..." if len(relevance) > 4 else ""
        which = "the simplest patch" if len(relevance) == 1 else f"the {len(relevance)} simplest"
        which = "the whole picture" if self.options.whole_picture else which
        return _overlay.boxes(image, drawn, f"{which}; score {shown}{more}")

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """The published logit is that of REAL: the last layer's sign is turned around.

        Raises WeightsError for keys of both layouts, whose sign would be a guess.
        """
        if {THEIRS, OURS} <= {f"{key.split('.')[0]}." for key in published}:
            raise WeightsError(
                f"SSP's weights: expected keys that begin with {OURS} or with {THEIRS}; found both"
            )
        if any(key in FLIPPED for key in published):
            log.warning("published SSP answers 'is it real?': the sign of its last layer is turned")
        return cls.renamed({k: -v if k in FLIPPED else v for k, v in published.items()})

    @classmethod
    def renamed(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Earlier versions had the published names and this one's sign."""
        return {re.sub(f"^{re.escape(THEIRS)}", OURS, key): v for key, v in state.items()}

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same turn back, to a logit of REAL."""
        theirs = {re.sub(f"^{re.escape(OURS)}", THEIRS, key): v for key, v in state.items()}
        return {k: -v if k in FLIPPED else v for k, v in theirs.items()}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's ResNet-50 of ImageNet, without its classifier."""
        return {f"{OURS}{k}": v for k, v in published.items() if not k.startswith("fc.")}

    @classmethod
    def tiny(cls) -> SspOptions:
        return SspOptions(patches=2, layers=(1, 1, 1, 1), size=64)
