"""SPAI (CVPR 2025, arXiv 2411.19417): how well a model of real pictures' spectra fits each patch.

A frozen ViT, pretrained to restore masked frequencies, sees every 224 px patch three times: as it
is, its low and its high frequencies. How alike the three are, block by block, tells real from
synthetic; an attention over patches makes one logit of a picture of any size, never resized.
Published file: `spai.pth`; the backbone to train from: MFM's `mfm_pretrain_vit_base.pth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import _augment, _overlay
from . import _transforms as T
from ._base import Detector, OptionError, Part, Running, Transform
from ._faster import convolve_linears
from ._spai_files import MASK, UNUSED, check_mask, fold_biases, published_keys, rename
from ._spectral import (
    PATCH,
    SIMILARITIES,
    Aggregator,
    PatchEncoder,
    Restoration,
    make_vit,
)

FEWEST = 4  # patches of a grid, below which the five-crop is taken
VIEWS = 4  # augmented views of a picture in training
BAND = 256
MAP = 800

# A card of unknown weights must not ask for a network that no machine holds.
LARGEST = {
    "feature_batch": 4096, "resize_to": 2**16, "depth": 100, "dim": 8192, "heads": 256,
    "projection": 8192, "context_heads": 256, "context_dim": 1024,
}  # fmt: skip

Corner = tuple[int, int]


@dataclass(frozen=True)
class SpaiOptions:
    """`feature_batch`: patches a forward pass; scores do not depend on it. `resize_to`: larger side
    in px that a picture may have, larger ones are shrunk (null = never, as published).
    `cover_remainder`: look at what the grid of patches leaves at the right and at the bottom, too
    (not as published). `dropout` of the trained parts and `drop_path` (stochastic depth) of the
    ViT, both in training only. The rest is the size of the network: `depth`, `dim` and `heads` of
    the ViT, `projection` of its features, `context_heads` x `context_dim` of the attention."""

    feature_batch: int = 16
    resize_to: int | None = None
    cover_remainder: bool = False
    dropout: float = 0.5
    drop_path: float = 0.1
    depth: int = 12
    dim: int = 768
    heads: int = 12
    projection: int = 1024
    context_heads: int = 12
    context_dim: int = 128

    def __post_init__(self) -> None:
        for name, most in LARGEST.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise OptionError(f"spai.{name}: expected 1 to {most}; found {value}")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(
                    f"spai.{name}: expected 0 to below 1; found {getattr(self, name)}"
                )
        if self.dim % self.heads:
            raise OptionError(
                f"spai.dim: expected a multiple of spai.heads ({self.heads}); found {self.dim}"
            )


# --- pictures


def shrunk_size(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """Width and height with the larger side at most `longest` px, the aspect kept."""
    if longest is None or max(width, height) <= longest:
        return width, height
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def mirrored(length: int, before: int, after: int) -> np.ndarray:
    """Indices 0 to `length` - 1 with `before` and `after` more, reflected at the ends (whose pixels
    are not repeated) as often as it takes."""
    period = max(1, 2 * (length - 1))
    index = np.arange(-before, length + after) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros_like(index)


def margins(length: int) -> tuple[int, int]:
    """Pixels to add before and after so that a side is at least a patch."""
    missing = max(0, PATCH - length)
    return missing // 2, missing - missing // 2


def as_item(image: Image.Image) -> Tensor:
    """(3, H, W) uint8. Band by band: in one go Pillow would hold the pixels twice more."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, BAND):
        bottom = min(top + BAND, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    rows, columns = margins(image.height), margins(image.width)
    if any(rows):
        pixels = pixels[mirrored(image.height, *rows)]
    if any(columns):
        pixels = pixels[:, mirrored(image.width, *columns)]
    return torch.from_numpy(pixels).permute(2, 0, 1)


def seen_part(image: Image.Image, resize_to: int | None) -> Image.Image:
    """The picture as the grid of patches lies on it, without margins: shrunk, bilinear with
    antialiasing, as `resize_to` says; of a strip too narrow for a patch only the middle."""
    size = shrunk_size(*image.size, resize_to)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return T.cut_strip(image, T.LONGEST * PATCH) if min(size) < PATCH else image


def grid(length: int, cover: bool) -> list[int]:
    """Where patches start along a side: every 224 px, and with `cover` flush with the end."""
    starts = list(range(0, length - PATCH + 1, PATCH))
    if cover and length % PATCH:
        starts.append(length - PATCH)
    return starts


def patch_corners(height: int, width: int, cover: bool) -> list[Corner]:
    """(top, left) of the patches of a picture, row by row; four corners and the centre, as
    torchvision places them, where the grid has fewer than 4. Sides are at least 224 px."""
    corners = [(top, left) for top in grid(height, cover) for left in grid(width, cover)]
    if len(corners) >= FEWEST:
        return corners
    bottom, right = height - PATCH, width - PATCH
    outer = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [*outer, (round(bottom / 2), round(right / 2))]


@dataclass(frozen=True)
class PictureTransform:
    """Picture -> (3, H, W) uint8, both sides at least 224 px: all of it, mirrored at the borders
    where it is too small."""

    resize_to: int | None

    def __call__(self, image: Image.Image, _: np.random.Generator) -> Tensor:
        return as_item(seen_part(image, self.resize_to))


@dataclass(frozen=True)
class ViewsTransform:
    """Picture -> (3, 224, 896) uint8: four augmented views side by side, which count as patches.

    Published augmentation. Its blur draws a kernel of 3 to 9 px as well, which at these deviations
    makes less than a grey level of difference.
    """

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        return torch.cat([T.as_bytes(self.view(image, rng)) for _ in range(VIEWS)], dim=2)

    def view(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """One 224 x 224 view."""
        image = _augment.random_resized_crop(image, PATCH, (0.2, 1.0), rng)
        image = _augment.random_flip_vertical(T.random_flip(image, rng), rng)
        if rng.random() < 0.5:
            image = _augment.rotate(image, rng.uniform(-90, 90))
            image = image.resize((PATCH, PATCH), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            image = _augment.blur(image, rng.uniform(0.01, 0.5))
        if rng.random() < 0.5:
            image = _augment.noise(image, rng.uniform(10, 50), rng)
        if rng.random() < 0.5:
            image = T.jpeg(image, int(rng.integers(50, 101)))
        return image


# --- the detector


class Spai(Detector):
    """Input: a list of (3, H, W) uint8 pictures, sides at least 224 px, on any device; 132 M
    parameters as published, 86 M of them frozen in the ViT. Memory beside the pictures is bounded
    by `feature_batch`, whatever their sizes."""

    title = "SPAI"
    Options = SpaiOptions
    BACKBONE_KEYS = ("encoder.",)
    OUTSIDE_PARTS = ("feature_batch", "resize_to", "cover_remainder", "dropout", "drop_path")

    def __init__(self, options: SpaiOptions) -> None:
        super().__init__(options)
        o = options
        self.vit = make_vit(o.dim, o.depth, o.heads, o.drop_path)
        self.restoration = Restoration(o.dim, o.depth, o.projection, o.dropout)
        vector = SIMILARITIES * o.depth + o.projection
        self.aggregator = Aggregator(vector, o.context_heads, o.context_dim, o.dropout)
        self.to(memory_format=torch.channels_last)

    def transform(self, train: bool) -> Transform:
        return ViewsTransform() if train else PictureTransform(self.options.resize_to)

    def collate(self, items: list[Tensor]) -> list[Tensor]:
        """A list: pictures differ in size, and are never shrunk to one."""
        return items

    def patch_encoder(self) -> PatchEncoder:
        """(B, 3, 224, 224) in [0, 1] -> (B, 1096), as a module of its own over the same weights;
        `aggregator` is the other half of the network."""
        return PatchEncoder(self.vit, self.restoration)

    def corners(self, picture: Tensor) -> list[Corner]:
        """(top, left) of the patches of a (3, H, W) picture."""
        _, height, width = picture.shape
        return patch_corners(height, width, self.options.cover_remainder)

    def _chunks(self, batch: list[Tensor]) -> Iterator[Tensor]:
        """The patches of all pictures in turn, `feature_batch` at a time, uint8."""
        places = [(picture, corner) for picture in batch for corner in self.corners(picture)]
        for first in range(0, len(places), self.options.feature_batch):
            some = places[first : first + self.options.feature_batch]
            patches = [p[:, top : top + PATCH, left : left + PATCH] for p, (top, left) in some]
            yield torch.stack(patches)

    def encode(
        self, batch: list[Tensor], encoder: Callable[[Tensor], Tensor], device: torch.device
    ) -> list[Tensor]:
        """Pictures -> (N, 1096) patch vectors of each, by a `patch_encoder` on that device."""
        chunks = (patches.to(device).float() / 255 for patches in self._chunks(batch))
        vectors = torch.cat([encoder(patches) for patches in chunks])
        return list(vectors.split([len(self.corners(picture)) for picture in batch]))

    def _judge(self, batch: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits (B,), and the attention (N,) to the patches of each picture."""
        encoded = self.encode(batch, self.patch_encoder(), self.aggregator.query.device)
        found = [self.aggregator.attend(vectors) for vectors in encoded]
        logits = self.aggregator.judge(torch.cat([taken for taken, _ in found]))
        return logits, [attention for _, attention in found]

    def optimise(self) -> None:
        convolve_linears(self.patch_encoder())

    def forward(self, batch: list[Tensor]) -> Tensor:
        return self._judge(batch)[0]

    def explain(self, batch: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits (B,), and for each picture (N, 3): top, left and attention of its patches, in
        px of the item and as shares that sum to 1."""
        logits, attention = self._judge(batch)
        return logits, self._placed(batch, attention)

    def _placed(self, batch: list[Tensor], attention: list[Tensor]) -> list[Tensor]:
        """Attention with the corners of the patches before it, (N, 3) of each picture."""
        pairs = [(a.new_tensor(self.corners(p)), a) for p, a in zip(batch, attention, strict=True)]
        return [torch.cat([corners, a[:, None]], dim=1) for corners, a in pairs]

    def parts(self) -> dict[str, Part]:
        """Patch encoder, and aggregator of one picture's patches."""
        encoder, vectors = self.patch_encoder(), torch.zeros(5, self.aggregator.to_kv.in_features)
        patches = torch.zeros(2, 3, PATCH, PATCH)
        return {
            "encoder": Part(encoder, patches, "patches", ("vectors",)),
            "aggregator": Part(self.aggregator, vectors, "vectors", ("logit", "attention")),
        }

    def run_parts(self, run: Running, batch: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        encoded = self.encode(batch, lambda patches: run["encoder"](patches)[0], batch[0].device)
        logits, attention = zip(*(run["aggregator"](vectors) for vectors in encoded), strict=True)
        return torch.cat(logits), self._placed(batch, list(attention))

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """Attention to each patch as a heat map over the picture: a patch's share times their
        number, so that 1 is what each would get of an even look. Grey: not looked at."""
        values = attention_map(image.size, relevance.float().cpu().numpy(), self.options.resize_to)
        unseen = "; grey = not looked at" if np.isnan(values).any() else ""
        caption = f"attention to each patch (1 = even share{unseen})"
        # A scale of its own for each picture would turn tiny differences into strong colours.
        return _overlay.heat(image, values, caption, 0.0, max(2.0, float(np.nanmax(values))))

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published key names -> these; leaves out what the published network holds but never
        uses, and the constant mask of frequencies.

        Raises:
            WeightsError: the mask is not the one this class computes with.
        """
        if MASK in published:
            check_mask(published[MASK])
        unused = (MASK, *(f"mfvit.vit.{name}" for name in UNUSED))
        kept = {rename(k): v for k, v in published.items() if not k.startswith(unused)}
        return fold_biases(kept)

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Any]:
        """The weights below `model`, with the constant mask of frequencies and without what the
        published network holds but never uses. The bias of the keys, which shifts all scores of an
        attention alike and so changes nothing, has no place there."""
        return {"model": published_keys(state)}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """MFM's pretrained ViT; its decoder, mask token, last norm and head are of no use here."""
        prefix, unused = cls.BACKBONE_KEYS[0], (*UNUSED, "norm.", "mask_token")
        inner = {k.removeprefix(prefix): v for k, v in published.items() if k.startswith(prefix)}
        kept = {f"vit.{k}": v for k, v in inner.items() if not k.startswith(unused)}
        return fold_biases(kept)

    @classmethod
    def tiny(cls) -> SpaiOptions:
        return SpaiOptions(depth=2, dim=64, heads=2, projection=32, context_heads=2, context_dim=16)


def attention_map(
    size: tuple[int, int], relevance: np.ndarray, resize_to: int | None
) -> np.ndarray:
    """(h, w) map, sides at most 800, over a picture of `size` (width, height): attention times the
    number of patches, mean where patches overlap, NaN where there is none."""
    shown = shrunk_size(*size, resize_to)
    longest = T.LONGEST * PATCH if min(shown) < PATCH else max(shown)
    axes = []
    for length, shown_length in zip(size, shown, strict=True):
        kept = min(shown_length, longest)
        cells = min(length, MAP)
        # Centres of the map's cells in px of the item.
        centre = (np.arange(cells) + 0.5) * shown_length / cells
        axes.append(centre - round((shown_length - kept) / 2) + margins(kept)[0])
    x, y = axes
    total, count = np.zeros((len(y), len(x))), np.zeros((len(y), len(x)))
    for top, left, attention in relevance:
        rows = np.flatnonzero((y >= top) & (y < top + PATCH))
        columns = np.flatnonzero((x >= left) & (x < left + PATCH))
        total[np.ix_(rows, columns)] += attention * len(relevance)
        count[np.ix_(rows, columns)] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
