"""SPAI's options: how it scores, how its pictures are varied, and the size of its network.

Every number of the published augmentation and test-time perturbations is one; the defaults are the
published ones. Read by `spai.py` and by the transforms of `_spai_pictures.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ._base import OptionError, one_of

SIZES = ("depth", "dim", "heads", "projection", "context_heads", "context_dim")
SHARES = ("dropout", "drop_path")
PROBABILITIES = (
    *("aug_flip", "aug_flip_vertical", "aug_rotate", "aug_blur", "aug_noise"),
    *("aug_jitter", "aug_sharpen", "aug_jpeg", "aug_webp"),
)
# The least and the most that a value, or both ends of a range, may be. A card of unknown weights
# must not ask for a network that no machine holds.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "feature_batch": (1, 4096),
    "minimum_patches": (1, 2**20),
    "views": (1, 64),
    "depth": (1, 100),
    "dim": (1, 8192),
    "heads": (1, 256),
    "projection": (1, 8192),
    "context_heads": (1, 256),
    "context_dim": (1, 1024),
    "resize_to": (1, 2**16),
    "test_jpeg": (1, 100),
    "test_webp": (0, 100),
    "test_blur": (1, 99),
    "test_noise": (0, 255),
    "test_scale": (0.01, 16),
    "mfm_low_pass": (0, 1),
    "mfm_radius": (0, 999),
    "mfm_outer": (0, 999),
    "mfm_gamma": (0.1, 10),
    "mfm_focal": (0, 10),
    "mfm_patches": (1, 32),
    "aug_crop_area": (0.001, 1),
    "aug_crop_ratio": (0.1, 10),
    "aug_rotate_degrees": (0, 180),
    "aug_blur_kernel": (1, 99),
    "aug_blur_sigma": (0.001, 50),
    "aug_noise_variance": (0, 255**2),
    "aug_jitter_brightness": (0, 10),
    "aug_jitter_contrast": (0, 10),
    "aug_jitter_saturation": (0, 10),
    "aug_jitter_hue": (-0.5, 0.5),
    "aug_sharpen_alpha": (0, 1),
    "aug_sharpen_lightness": (0, 10),
    "aug_jpeg_quality": (1, 100),
    "aug_webp_quality": (0, 100),
}


@dataclass(frozen=True)
class SpaiOptions:
    """`feature_batch`: patches a forward pass; scores do not depend on it. `cover_remainder`: look
    at what the grid of patches leaves at the right and at the bottom, too (not as published).
    `minimum_patches` of a grid, below which four corners and the centre are taken. `ten_crop`:
    judge four corners, the centre and their mirror images, each alone, and take the mean or the max
    of the logits (null = all of the picture).

    What is done to a picture before it is scored, in this order (null, 0 or 1 = nothing):
    `test_jpeg`, `test_webp` of a quality; `test_blur` by a kernel of so many px, odd; `test_noise`
    of a deviation in grey levels; `test_scale`: both sides times this; `resize_to`: the shorter
    side in px, of smaller pictures too.

    Training: `views` of a picture, side by side; `unfreeze_backbone`: whether the ViT learns too
    (null = where training starts from no file); `dropout` of the trained parts, `drop_path`
    (stochastic depth) of the ViT. Each view is a crop of a share `aug_crop_area` of the picture and
    a ratio `aug_crop_ratio` of its sides (a plain 224 px crop where both areas are alike). Then,
    each with the probability of its own name: `aug_flip`, `aug_flip_vertical`; `aug_rotate` by up
    to `aug_rotate_degrees`; `aug_blur` (`aug_blur_kernel` px, `aug_blur_sigma`); `aug_noise` of
    `aug_noise_variance` in squared grey levels; `aug_jitter` (`aug_jitter_brightness`,
    `_contrast`, `_saturation`: factors; `_hue`: share of a turn); `aug_sharpen`
    (`aug_sharpen_alpha`, `_lightness`); `aug_jpeg` (`aug_jpeg_quality`); `aug_webp`
    (`aug_webp_quality`).

    Pre-training (`train.objective=mfm`): the share `mfm_low_pass` of the pictures keeps the
    frequencies within `mfm_radius` (and from `mfm_outer` on), the others keep the rest. The loss is
    the mean over all frequencies (`mfm_target` normal) or over those taken away (masked), to the
    power `mfm_gamma`; with `mfm_focal`, the power of a weight that grows with the distance (0 =
    none), by its logarithm (`mfm_focal_log`), relative to the batch's largest (`mfm_focal_batch`);
    of `mfm_patches` x `mfm_patches` parts; of the batch's `mfm_mean_spectrum`.

    The rest is the size of the network: `depth`, `dim` and `heads` of the ViT, `projection` of its
    features, `context_heads` x `context_dim` of the attention."""

    feature_batch: int = 16
    cover_remainder: bool = False
    minimum_patches: int = 4
    ten_crop: str | None = None
    test_jpeg: int | None = None
    test_webp: int | None = None
    test_blur: int | None = None
    test_noise: float = 0.0
    test_scale: float = 1.0
    resize_to: int | None = None
    views: int = 4
    unfreeze_backbone: bool | None = None
    dropout: float = 0.5
    drop_path: float = 0.1
    aug_crop_area: tuple[float, float] = (0.2, 1.0)
    aug_crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    aug_flip: float = 0.5
    aug_flip_vertical: float = 0.5
    aug_rotate: float = 0.5
    aug_rotate_degrees: float = 90.0
    aug_blur: float = 0.5
    aug_blur_kernel: tuple[int, int] = (3, 9)
    aug_blur_sigma: tuple[float, float] = (0.01, 0.5)
    aug_noise: float = 0.5
    aug_noise_variance: tuple[float, float] = (10.0, 50.0)
    aug_jitter: float = 0.0
    aug_jitter_brightness: tuple[float, float] = (0.8, 1.2)
    aug_jitter_contrast: tuple[float, float] = (0.8, 1.2)
    aug_jitter_saturation: tuple[float, float] = (0.8, 1.2)
    aug_jitter_hue: tuple[float, float] = (-0.1, 0.1)
    aug_sharpen: float = 0.0
    aug_sharpen_alpha: tuple[float, float] = (0.01, 0.4)
    aug_sharpen_lightness: tuple[float, float] = (0.95, 1.0)
    aug_jpeg: float = 0.5
    aug_jpeg_quality: tuple[int, int] = (50, 100)
    aug_webp: float = 0.0
    aug_webp_quality: tuple[int, int] = (50, 100)
    mfm_low_pass: float = 0.5
    mfm_radius: float = 16.0
    mfm_outer: float = 999.0
    mfm_target: str = "normal"
    mfm_gamma: float = 1.0
    mfm_focal: float = 0.0
    mfm_focal_log: bool = False
    mfm_focal_batch: bool = False
    mfm_patches: int = 1
    mfm_mean_spectrum: bool = False
    depth: int = 12
    dim: int = 768
    heads: int = 12
    projection: int = 1024
    context_heads: int = 12
    context_dim: int = 128

    def __post_init__(self) -> None:
        for name in SHARES:
            self._check(name, "0 to below 1", 0 <= getattr(self, name) < 1)
        for name in PROBABILITIES:
            self._check(name, "0 to 1", 0 <= getattr(self, name) <= 1)
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, tuple):
                low, high = value
                wanted = f"two numbers, {least} to {most}, the smaller first"
                self._check(name, wanted, least <= low <= high <= most)
            else:
                wanted = f"{least} to {most}"
                self._check(name, wanted, value is None or least <= value <= most)
        self._check("test_blur", "an odd number", self.test_blur is None or self.test_blur % 2 == 1)
        if self.ten_crop is not None:
            one_of("spai.ten_crop", self.ten_crop, ("mean", "max"))
        one_of("spai.mfm_target", self.mfm_target, ("normal", "masked"))
        self._check("mfm_patches", "a divisor of 224", 224 % self.mfm_patches == 0)
        whole = self.mfm_patches == 1 and not self.mfm_mean_spectrum
        wanted = "normal with spai.mfm_patches or spai.mfm_mean_spectrum"
        self._check("mfm_target", wanted, whole or self.mfm_target == "normal")
        self._check("dim", f"a multiple of spai.heads ({self.heads})", self.dim % self.heads == 0)

    def _check(self, name: str, wanted: str, fits: bool) -> None:
        """Raises OptionError unless a value fits."""
        if not fits:
            value: Any = getattr(self, name)
            raise OptionError(f"spai.{name}: expected {wanted}; found {value}")


# Options that an exported network does not depend on.
OUTSIDE_NETWORK = tuple(f.name for f in fields(SpaiOptions) if f.name not in SIZES)
