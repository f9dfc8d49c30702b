"""CO-SPY (CVPR 2025, arXiv 2503.18286): a frozen CLIP or SigLIP encoder judges what a picture
shows, a small ResNet judges the residual that a reconstruction leaves; a calibration fuses both.

Two variants, named after the published training sets, differ in `VARIANTS` and nothing else.
Published files: `{semantic,artifact,fusion}_weights.pth`, or one with four parts for end2end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from . import _clip, _overlay, _vae
from . import _transforms as T
from ._augment import Distortion
from ._base import WHOLE, Detector, Home, Running, Transform
from ._cospy_files import own_keys, published_keys
from ._cospy_options import CoSpyOptions
from ._cospy_views import View, ViewTransform, centred, split_views
from ._errors import OptionError
from ._faster import convolve_linears, fold_norms
from ._resnet import ArtifactTrunk, neighbour_residual

NONE, HALF, UNIT = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
BLUR_AND_JPEG = Distortion(blur_prob=0.5, jpeg_prob=0.5)
FIXED_BLUR_AND_JPEG = Distortion(0.5, sigma=(1.5, 1.5), jpeg_prob=0.5, quality=(65, 65))
MILD_JPEG = Distortion(jpeg_prob=0.5, quality=(70, 95))
DROP_COEFFICIENT = 0.3


@dataclass(frozen=True)
class Variant:
    """What differs between the published variants. `encoder` builds the frozen encoder, `entry`
    names its weights in the manifest; `vae` names those of the autoencoder, None = neighbouring
    pixels. `fc_weight`, `fc_bias`: start of the fusion; the latter is its floor in training too.
    `home`: its data."""

    encoder: Callable[[bool], nn.Module]
    entry: str
    features: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    vae: str | None
    artifact_mean: tuple[float, float, float]
    artifact_std: tuple[float, float, float]
    semantic: View
    artifact: View
    joint: View
    fc_weight: float
    fc_bias: float
    home: Home


VARIANTS = {
    "sd-v1_4": Variant(
        encoder=_clip.siglip_so400m,
        entry="siglip-so400m-384",
        features=1152,
        mean=HALF,
        std=HALF,
        vae="sd-v1_4-vae",
        # The autoencoder gets pixels in [0, 1] as published, though it was made for [-1, 1].
        artifact_mean=NONE,
        artifact_std=UNIT,
        semantic=View(384, 384, BLUR_AND_JPEG, val=FIXED_BLUR_AND_JPEG),
        artifact=View(256, 224, MILD_JPEG, early=True),
        joint=View(384, 384, MILD_JPEG, early=True, mirror_first=True),
        fc_weight=0.5,
        fc_bias=2.0,
        home=Home(
            "cospy_bench",
            train="drct2m",
            pictures=Path("data/train/sd-v1_4"),
            generators=("stable-diffusion-v1-4",),
        ),
    ),
    "progan": Variant(
        encoder=_clip.clip_vit_l14,
        entry="clip-vit-l-14",
        features=768,
        mean=_clip.CLIP_MEAN,
        std=_clip.CLIP_STD,
        vae=None,
        artifact_mean=T.IMAGENET_MEAN,
        artifact_std=T.IMAGENET_STD,
        semantic=View(256, 224, BLUR_AND_JPEG),
        artifact=View(256, 224),
        joint=View(256, 224, mirror_first=True),
        fc_weight=0.0,
        fc_bias=0.0,
        home=Home("aigcdetect", train="cnndet"),
    ),
}


def variant_of(options: CoSpyOptions) -> Variant:
    """The facts of the variant that options choose."""
    return VARIANTS[options.train_dataset]


def _linear(features: int) -> nn.Linear:
    """A classifier as the published code starts it."""
    fc = nn.Linear(features, 1)
    nn.init.normal_(fc.weight, 0.0, 0.02)
    return fc


class SemanticBranch(nn.Module):
    """Frozen encoder and a linear layer; input (B, 3, crop, crop) in [0, 1]."""

    def __init__(self, variant: Variant, tiny: bool) -> None:
        super().__init__()
        self.mean, self.std = variant.mean, variant.std
        self.encoder = variant.encoder(tiny).requires_grad_(False)
        self.features = 64 if tiny else variant.features
        self.fc = _linear(self.features)

    def normalised(self, x: Tensor) -> Tensor:
        """What the encoder sees."""
        return T.normalise(x, self.mean, self.std)

    def feature(self, x: Tensor) -> Tensor:
        """(B, features), not L2-normalised."""
        kind = next(self.encoder.parameters()).dtype
        with torch.no_grad():
            return self.encoder(self.normalised(x).to(kind)).float()


class ArtifactBranch(nn.Module):
    """Residual, trunk and a linear layer; input (B, 3, 224, 224) in [0, 1]."""

    def __init__(self, variant: Variant, tiny: bool) -> None:
        super().__init__()
        self.mean, self.std = variant.artifact_mean, variant.artifact_std
        self.vae = _vae.autoencoder(tiny).requires_grad_(False) if variant.vae else None
        width = 8 if tiny else 64
        self.trunk = ArtifactTrunk(width)
        self.features = 8 * width
        self.fc = _linear(self.features)

    def normalised(self, x: Tensor) -> Tensor:
        """What the residual is taken of."""
        return T.normalise(x, self.mean, self.std)

    def reconstruction(self, x: Tensor) -> Tensor:
        """D(E(x)) by the autoencoder, (B, 3, 224, 224); x in [0, 1] is not mapped to [-1, 1]."""
        assert self.vae is not None
        kind = self.vae.quant_conv.weight.dtype
        with torch.no_grad():
            return _vae.reconstruct(self.vae, x.to(kind)).float()

    def residual(self, x: Tensor) -> Tensor:
        """What the trunk sees: what reconstruction, or halving and doubling, takes from x."""
        x = self.normalised(x)
        if self.vae is None:
            return neighbour_residual(x)
        # The published scale; the trunk's weights have learnt it.
        return (x - self.reconstruction(x)) / 7 * 100

    def feature(self, x: Tensor) -> Tensor:
        """(B, features)."""
        return self.trunk(self.residual(x))


def interpolate(
    features: Tensor, labels: Tensor, alpha: float, ratio: float
) -> tuple[Tensor, Tensor]:
    """Features (B, F) and labels (B,) in [0, 1], each sample with probability `ratio` mixed with
    one of the batch, which may be itself: delta * own + (1 - delta) * other, both by the same
    delta ~ Beta(alpha, alpha). Published feature interpolation.

    Draws from torch's global generator of the CPU, on whatever device the features are.
    """
    count, shape = len(labels), torch.tensor(alpha, dtype=torch.float64)
    chosen = torch.rand(count) < ratio
    other = torch.randint(count, (count,)).to(features.device)
    delta = torch.distributions.Beta(shape, shape).sample((count,))
    share = torch.where(chosen, 1 - delta, 0.0)  # of the other; 0 leaves a sample as it is
    labels = labels.float()
    mixed = torch.lerp(features, features[other], share.to(features)[:, None])
    return mixed, torch.lerp(labels, labels[other], share.to(labels))


def fusion_loss(logits: Tensor, labels: Tensor, bias: Tensor, floor: float) -> Tensor:
    """BCE with logits, and what `bias` (1,) lacks to `floor`. Published fusion training."""
    bce = F.binary_cross_entropy_with_logits(logits.float(), labels.float())
    return bce + F.relu(floor - bias).sum()


class CoSpy(Detector):
    """Input (B, 3, H, W) uint8. Mode branch has one branch; fusion and end2end have both, and
    below them `fc` on their logits, or on their features weighted by their logits."""

    title = "CO-SPY"
    Options = CoSpyOptions
    BACKBONE_KEYS = (*_clip.KEYS, *_vae.KEYS)
    OUTSIDE_PARTS = ("feat_interp", "feat_interp_alpha", "feat_interp_ratio")
    CHOICE = ("train_dataset", "mode", "branch")
    FROZEN_BACKBONES = True
    BENCHMARKS = tuple(variant.home.evaluate for variant in VARIANTS.values())
    options: CoSpyOptions

    def __init__(self, options: CoSpyOptions) -> None:
        super().__init__(options)
        if options.feat_interp and (options.mode, options.branch) != ("branch", "semantic"):
            found = f"branch {options.branch}" if options.mode == "branch" else options.mode
            raise OptionError(
                "cospy.feat_interp: expected mode branch and branch semantic, whose features it "
                f"mixes; found {found}"
            )
        variant, alone = variant_of(options), options.branch if options.mode == "branch" else None
        self.semantic = SemanticBranch(variant, options.tiny) if alone != "artifact" else None
        self.artifact = ArtifactBranch(variant, options.tiny) if alone != "semantic" else None
        if options.mode == "fusion":
            self.fc = _linear(2)
            # Published start of sd-v1_4: both branches' logits count alike.
            with torch.no_grad():
                self.fc.weight += variant.fc_weight
                self.fc.bias.fill_(variant.fc_bias)
            # Fusion learns its last layer alone; end2end, below, all but what its branches froze.
            self.requires_grad_(False)
            self.fc.requires_grad_(True)
        elif options.mode == "end2end":
            assert self.semantic is not None
            assert self.artifact is not None
            self.fc = _linear(self.semantic.features + self.artifact.features)
        self.to(memory_format=torch.channels_last)

    def _branches(self) -> list[SemanticBranch | ArtifactBranch]:
        """Those there are, the semantic one first."""
        return [branch for branch in (self.semantic, self.artifact) if branch is not None]

    def transform(self, train: bool) -> Transform:
        return self._transform("train" if train else "test")

    def val_transform(self) -> Transform:
        """As published: random crops, not mirrored; for the semantic branch of sd-v1_4 blur and
        JPEG of one strength, each of half the pictures. End2end validates like the artifact branch
        here, without distortion, but on its own square: as the published code does."""
        return self._transform("val")

    def _transform(self, stage: str) -> Transform:
        """Fusion learns and is validated with each branch's own view, and scores a joint one."""
        variant = variant_of(self.options)
        views: tuple[View, ...] = (variant.joint,)
        if self.options.mode == "branch":
            views = (variant.artifact if self.semantic is None else variant.semantic,)
        elif self.options.mode == "fusion" and stage != "test":
            views = (variant.semantic, variant.artifact)
        return ViewTransform(views, stage)

    def inputs(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """What the semantic and the artifact branch get of a batch, in [0, 1]: in training of the
        fusion and its validation a view each; else the same one, for the artifact branch resized
        without antialias."""
        x = batch.float() / 255
        variant = variant_of(self.options)
        sides = [variant.semantic.crop, variant.artifact.crop]
        # The width tells two views from one: no batch says which stage it is of.
        if self.options.mode == "fusion" and x.shape[3] == sum(sides):
            semantic, artifact = split_views(x, sides)
            return semantic, artifact
        if x.shape[3] == variant.artifact.crop or self.artifact is None:
            return x, x
        # Unlike the transforms' resizing, as published: without antialias, and of a tensor.
        small = (variant.artifact.crop, variant.artifact.crop)
        return x, F.interpolate(x, small, mode="bilinear", align_corners=False)

    def _evidence(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the last layer judges by: a branch's feature, the two logits (B, 2) of the fusion,
        or end2end's weighted features, (B, F) float32; and the residual (B, 3, h, w), if there is
        an artifact branch."""
        features: list[Tensor] = []
        residual = None
        semantic, artifact = self.inputs(batch)
        if self.semantic is not None:
            features.append(self.semantic.feature(semantic))
        if self.artifact is not None:
            residual = self.artifact.residual(artifact)
            features.append(self.artifact.trunk(residual))
        if self.options.mode == "branch":
            return features[0].float(), residual
        found = [b.fc(f) for b, f in zip(self._branches(), features, strict=True)]
        if self.options.mode == "end2end":
            logits, kept = found, self._coefficients()
            found = [k * z * f for k, z, f in zip(kept, logits, features, strict=True)]
        return torch.cat(found, dim=1).float(), residual

    def _coefficients(self) -> tuple[float, float]:
        """1, 1; in end2end training with probability 0.3 one of them 0 for the whole batch."""
        # Drawn for the whole batch, as published, by the generator whose state checkpoints keep.
        if not self.training or float(torch.rand(())) >= DROP_COEFFICIENT:
            return 1.0, 1.0
        return (0.0, 1.0) if float(torch.rand(())) < 0.5 else (1.0, 0.0)

    def optimise(self) -> None:
        if self.artifact is not None:
            fold_norms(self.artifact.trunk)
        if self.semantic is not None:
            convolve_linears(self.semantic.encoder)

    @property
    def embeds(self) -> bool:
        """Of the semantic branch (its encoder is frozen) and the fusion (both branches are)."""
        return self.options.mode == "fusion" or self.artifact is None

    def embed(self, batch: Tensor) -> Tensor:
        """The encoder's feature (B, 1152 or 768), or both branches' logits (B, 2)."""
        if not self.embeds:
            return super().embed(batch)
        with torch.no_grad():
            return self._evidence(batch)[0]

    def classify(self, embedded: Tensor) -> Tensor:
        """The last layer: of the one branch that there is, else that on top of both."""
        fc = self._branches()[0].fc if self.options.mode == "branch" else self.fc
        return fc(embedded).squeeze(1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.classify(self.embed(batch) if self.embeds else self._evidence(batch)[0])

    def embedded_loss(self, embedded: Tensor, labels: Tensor) -> Tensor:
        options = self.options
        if options.mode == "fusion":
            return fusion_loss(
                self.classify(embedded), labels, self.fc.bias, variant_of(options).fc_bias
            )
        # Validation asks for the loss of features as they are.
        if self.training and options.feat_interp:
            alpha, ratio = options.feat_interp_alpha, options.feat_interp_ratio
            embedded, labels = interpolate(embedded, labels, alpha, ratio)
        return super().embedded_loss(embedded, labels)

    def check_explain(self) -> None:
        if self.artifact is None:
            raise OptionError("--explain: CO-SPY's semantic branch has no residual to show")

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the residual's magnitude (h, w), mean over channels."""
        self.check_explain()
        evidence, residual = self._evidence(batch)
        assert residual is not None
        return self.classify(evidence), list(residual.abs().mean(dim=1).float().cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The crop that the detector saw, and the residual on it."""
        variant = variant_of(self.options)
        view = variant.artifact if self.options.mode == "branch" else variant.joint
        what = "what the autoencoder" if variant.vae else "what halving and doubling"
        caption = f"{what} does not restore: |residual|, mean of R, G, B"
        return _overlay.heat(centred(image, view), relevance.numpy(), caption)

    def run_parts(self, run: Running, batch: Tensor) -> tuple[Tensor, None]:
        """With an autoencoder, one picture after the other: see `_vae.reconstruct`."""
        alone = self.artifact is not None and self.artifact.vae is not None
        logits = [run[WHOLE](part)[0] for part in batch.split(1 if alone else len(batch))]
        return torch.cat(logits), None

    @classmethod
    def chosen(cls, options: CoSpyOptions) -> dict[str, Any]:
        """Without the branch, unless the mode is one."""
        return {
            name: value
            for name, value in super().chosen(options).items()
            if name != "branch" or options.mode == "branch"
        }

    @classmethod
    def recipe(cls, options: CoSpyOptions) -> str:
        return f"cospy_{options.train_dataset}_{options.part}"

    @classmethod
    def entry(cls, options: CoSpyOptions) -> str:
        return f"cospy-{options.train_dataset}"

    @classmethod
    def weight_parts(cls, options: CoSpyOptions) -> tuple[str, ...]:
        return ("semantic", "artifact", "fusion") if options.part == "fusion" else (options.part,)

    @classmethod
    def part_files(cls, part: str) -> tuple[str, ...]:
        return (f"{part}_weights.pth", f"{part}_weights.safetensors")

    @classmethod
    def trained_before(cls, options: CoSpyOptions) -> tuple[str, ...]:
        return ("semantic", "artifact") if options.mode == "fusion" else ()

    @classmethod
    def begins_fresh(cls, options: CoSpyOptions) -> tuple[str, ...]:
        return ("fc.",) if options.mode == "fusion" else ()

    @classmethod
    def home(cls, options: CoSpyOptions) -> Home:
        return variant_of(options).home

    @classmethod
    def output_folder(cls, options: CoSpyOptions, ckpt: Path) -> Path:
        """As published: by variant, then by mode or branch."""
        return ckpt / options.train_dataset / options.part

    @classmethod
    def external(cls, options: CoSpyOptions) -> dict[str, str]:
        alone = options.branch if options.mode == "branch" else None
        variant, entries = variant_of(options), {}
        if alone != "artifact":
            entries["semantic.encoder."] = variant.entry
        if alone != "semantic" and variant.vae:
            entries["artifact.vae."] = variant.vae
        return entries

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """Any of the four published files. Leaves out `fc1` of the artifact encoder, which the
        published network holds but never uses."""
        return own_keys(published)

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Any]:
        """The published file of a branch, of the fusion (its own layer alone: the branches have
        files of their own), or of end2end (`sem_fc`, `art_fc`, `art_encoder`, `classifier`, a state
        dict each). The frozen encoder has no place there; the artifact encoder's autoencoder has,
        335 MB, or where it has none a layer `fc1` of zeros, which nothing uses."""
        return published_keys(state)

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """A CLIP or SigLIP file's vision tower, or Stable Diffusion's autoencoder."""
        vision = {f"semantic.encoder.{k}": v for k, v in _clip.vision_keys(published).items()}
        return vision or {f"artifact.vae.{k}": v for k, v in _vae.current_keys(published).items()}

    @classmethod
    def tiny(cls) -> CoSpyOptions:
        return CoSpyOptions(size="tiny")
