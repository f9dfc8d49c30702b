"""SPAI's options: how it scores, how its pictures are varied, and the size of its network.

Every number of the published augmentation and test-time perturbations is one; the defaults are the
published ones. Read by `spai.py` and by the transforms of `_spai_pictures.py`. Sizes are bounded:
a card of unknown weights must not ask for a network that no machine holds.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from ._options import STRICT, BelowOne, Blocks, Probability, within

SIZES = ("depth", "dim", "heads", "projection", "context_heads", "context_dim")
Pair = tuple[float, float]
Whole = tuple[int, int]
Radius = Annotated[float, Field(ge=0, le=999)]


def _odd(value: int | None) -> int | None:
    if value is not None and value % 2 == 0:
        raise ValueError("expected an odd number")
    return value


def _divisor(value: int) -> int:
    if 224 % value:
        raise ValueError("expected a divisor of 224")
    return value


@dataclass(frozen=True, config=STRICT)
class SpaiOptions:
    """How SPAI scores, how its training varies pictures, and its network's size."""

    feature_batch: Annotated[int, Field(ge=1, le=4096)] = 16
    """Patches a forward pass; scores do not depend on it."""
    cover_remainder: bool = False
    """Look at what the grid of patches leaves at the right and at the bottom, too (not as
    published)."""
    minimum_patches: Annotated[int, Field(ge=1, le=2**20)] = 4
    """Of a grid, below which four corners and the centre are taken."""
    ten_crop: Literal["mean", "max"] | None = None
    """Judge four corners, the centre and their mirror images, each alone, and take the mean or
    the max of the logits (null = all of the picture)."""
    test_jpeg: Annotated[int | None, Field(ge=1, le=100)] = None
    """Quality of a JPEG encoding before scoring; this and what follows, in this order."""
    test_webp: Annotated[int | None, Field(ge=0, le=100)] = None
    """Quality of a WebP encoding."""
    test_blur: Annotated[int | None, Field(ge=1, le=99), AfterValidator(_odd)] = None
    """Side of a blurring kernel in px."""
    test_noise: Annotated[float, Field(ge=0, le=255)] = 0.0
    """Deviation of noise in grey levels."""
    test_scale: Annotated[float, Field(ge=0.01, le=16)] = 1.0
    """Factor of both sides."""
    resize_to: Annotated[int | None, Field(ge=1, le=2**16)] = None
    """Shorter side in px, of smaller pictures too."""
    views: Annotated[int, Field(ge=1, le=64)] = 4
    """Views of a picture in training, side by side."""
    unfreeze_backbone: bool | None = None
    """Whether the ViT learns too (null = where training starts from no file)."""
    dropout: BelowOne = 0.5
    """Of the trained parts."""
    drop_path: BelowOne = 0.1
    """Stochastic depth of the ViT."""
    aug_crop_area: Annotated[Pair, within(0.001, 1)] = (0.2, 1.0)
    """Share of the picture that a view is a crop of (a plain 224 px crop where both are alike)."""
    aug_crop_ratio: Annotated[Pair, within(0.1, 10)] = (3 / 4, 4 / 3)
    """Ratio of its sides."""
    aug_flip: Probability = 0.5
    """Probability, as of all that follows without a unit."""
    aug_flip_vertical: Probability = 0.5
    aug_rotate: Probability = 0.5
    aug_rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 90.0
    """At most, either way."""
    aug_blur: Probability = 0.5
    aug_blur_kernel: Annotated[Whole, within(1, 99)] = (3, 9)
    """Px."""
    aug_blur_sigma: Annotated[Pair, within(0.001, 50)] = (0.01, 0.5)
    """Px."""
    aug_noise: Probability = 0.5
    aug_noise_variance: Annotated[Pair, within(0, 255**2)] = (10.0, 50.0)
    """Squared grey levels."""
    aug_jitter: Probability = 0.0
    aug_jitter_brightness: Annotated[Pair, within(0, 10)] = (0.8, 1.2)
    """Factor."""
    aug_jitter_contrast: Annotated[Pair, within(0, 10)] = (0.8, 1.2)
    """Factor."""
    aug_jitter_saturation: Annotated[Pair, within(0, 10)] = (0.8, 1.2)
    """Factor."""
    aug_jitter_hue: Annotated[Pair, within(-0.5, 0.5)] = (-0.1, 0.1)
    """Share of a turn."""
    aug_sharpen: Probability = 0.0
    aug_sharpen_alpha: Annotated[Pair, within(0, 1)] = (0.01, 0.4)
    """Share of the sharpened picture in the result."""
    aug_sharpen_lightness: Annotated[Pair, within(0, 10)] = (0.95, 1.0)
    aug_jpeg: Probability = 0.5
    aug_jpeg_quality: Annotated[Whole, within(1, 100)] = (50, 100)
    aug_webp: Probability = 0.0
    aug_webp_quality: Annotated[Whole, within(0, 100)] = (50, 100)
    mfm_low_pass: Probability = 0.5
    """Pre-training (train.objective=mfm): share of the pictures that keeps the frequencies
    within `mfm_radius` (and from `mfm_outer` on); the others keep the rest."""
    mfm_radius: Radius = 16.0
    mfm_outer: Radius = 999.0
    mfm_target: Literal["normal", "masked"] = "normal"
    """Whether the loss is the mean over all frequencies or over those taken away."""
    mfm_gamma: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """Power of the distance."""
    mfm_focal: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Power of a weight that grows with the distance (0 = none)."""
    mfm_focal_log: bool = False
    """Whether that weight grows with the logarithm."""
    mfm_focal_batch: bool = False
    """Whether it is relative to the largest of the batch."""
    mfm_patches: Annotated[int, Field(ge=1, le=32), AfterValidator(_divisor)] = 1
    """Parts along each side whose spectra are compared."""
    mfm_mean_spectrum: bool = False
    """Whether the batch's mean spectra are compared."""
    depth: Blocks = 12
    """Blocks of the ViT."""
    dim: Annotated[int, Field(ge=1, le=8192)] = 768
    """Width of the ViT, a multiple of `heads`."""
    heads: Annotated[int, Field(ge=1, le=256)] = 12
    projection: Annotated[int, Field(ge=1, le=8192)] = 1024
    """Width of the projected features."""
    context_heads: Annotated[int, Field(ge=1, le=256)] = 12
    """Heads of the attention over patches."""
    context_dim: Annotated[int, Field(ge=1, le=1024)] = 128
    """Width of each of them."""

    def __post_init__(self) -> None:
        parts = self.mfm_patches != 1 or self.mfm_mean_spectrum
        if parts and self.mfm_target != "normal":
            raise ValueError(
                "expected spai.mfm_target=normal with spai.mfm_patches or spai.mfm_mean_spectrum; "
                f"found {self.mfm_target}"
            )
        if self.dim % self.heads:
            raise ValueError(
                f"expected spai.dim a multiple of spai.heads ({self.heads}); found {self.dim}"
            )


# Options that an exported network does not depend on.
OUTSIDE_NETWORK = tuple(f.name for f in fields(SpaiOptions) if f.name not in SIZES)
