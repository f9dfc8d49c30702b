"""CO-SPY (CVPR 2025, arXiv 2503.18286): a frozen CLIP or SigLIP encoder judges what a picture
shows, a small ResNet judges the residual that a reconstruction leaves; a calibration fuses both.

Two variants, named after the published training sets, differ in `VARIANTS` and nothing else.
Published files: `{semantic,artifact,fusion}_weights.pth`, or one with four parts for end2end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from . import _clip, _overlay, _vae
from . import _transforms as T
from ._augment import blur
from ._base import WHOLE, Detector, OptionError, Running, Transform, one_of
from ._faster import convolve_linears, fold_norms
from ._resnet import ArtifactTrunk

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
NONE, HALF, UNIT = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)
DROP_COEFFICIENT = 0.3


@dataclass(frozen=True)
class View:
    """How a picture becomes a square: the shorter side to `resize` px, a `crop` px crop (random and
    mirrored in training, central otherwise). In training before the crop: blur, sigma U(0, 3), and
    JPEG with a quality out of `quality`, each with its probability; before the resize if `early`.
    """

    resize: int
    crop: int
    blur_prob: float = 0.0
    jpeg_prob: float = 0.0
    quality: tuple[int, int] = (30, 100)
    early: bool = False


@dataclass(frozen=True)
class Variant:
    """What differs between the published variants. `encoder` builds the frozen encoder, `entry`
    names its weights in the manifest; `vae` names those of the autoencoder, None = neighbouring
    pixels. `fc_weight`, `fc_bias`: start of the fusion; the latter is its floor in training too."""

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


VARIANTS = {
    "sd-v1_4": Variant(
        encoder=_clip.siglip_so400m,
        entry="siglip-so400m-384",
        features=1152,
        mean=HALF,
        std=HALF,
        vae="sd-v1_4-vae",
        artifact_mean=NONE,
        artifact_std=UNIT,
        semantic=View(384, 384, blur_prob=0.5, jpeg_prob=0.5),
        artifact=View(256, 224, jpeg_prob=0.5, quality=(70, 95), early=True),
        joint=View(384, 384, jpeg_prob=0.5, quality=(70, 95), early=True),
        fc_weight=0.5,
        fc_bias=2.0,
    ),
    "progan": Variant(
        encoder=_clip.clip_vit_l14,
        entry="clip-vit-l-14",
        features=768,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        vae=None,
        artifact_mean=T.IMAGENET_MEAN,
        artifact_std=T.IMAGENET_STD,
        semantic=View(256, 224, blur_prob=0.5, jpeg_prob=0.5),
        artifact=View(256, 224),
        joint=View(256, 224),
        fc_weight=0.0,
        fc_bias=0.0,
    ),
}


@dataclass(frozen=True)
class CoSpyOptions:
    """`train_dataset`, `mode`, `branch`: as on the published command line. `size`: the published
    networks, or tiny ones with the same parts, for tests."""

    train_dataset: str = "sd-v1_4"
    mode: str = "fusion"
    branch: str = "artifact"
    size: str = "published"

    def __post_init__(self) -> None:
        one_of("cospy.train_dataset", self.train_dataset, VARIANTS)
        one_of("cospy.mode", self.mode, ("branch", "fusion", "end2end"))
        one_of("cospy.branch", self.branch, ("artifact", "semantic"))
        one_of("cospy.size", self.size, ("published", "tiny"))

    @property
    def variant(self) -> Variant:
        """The facts of `train_dataset`."""
        return VARIANTS[self.train_dataset]

    @property
    def tiny(self) -> bool:
        """Whether the networks are those for tests."""
        return self.size == "tiny"


def degrade(image: Image.Image, view: View, rng: np.random.Generator) -> Image.Image:
    """Blur, then JPEG, each with the view's probability. Pillow alone encodes: the published code
    takes OpenCV at random, whose encoder is the same libjpeg."""
    if rng.random() < view.blur_prob:
        image = blur(image, rng.uniform(0, 3))
    if rng.random() < view.jpeg_prob:
        image = T.jpeg(image, int(rng.integers(view.quality[0], view.quality[1] + 1)))
    return image


def augmented(image: Image.Image, view: View, rng: np.random.Generator) -> Image.Image:
    """A published training view of a picture."""
    if view.early:
        image = T.resize_shorter(degrade(image, view, rng), view.resize)
    else:
        image = degrade(T.resize_shorter(image, view.resize), view, rng)
    return T.random_flip(T.random_crop(image, view.crop, rng), rng)


def centred(image: Image.Image, view: View) -> Image.Image:
    """The published test view of a picture."""
    return T.centre_crop(T.resize_shorter(image, view.resize), view.crop)


@dataclass(frozen=True)
class ViewTransform:
    """Picture -> (3, crop, crop) uint8; in training one random view per entry of `views`, side by
    side in a (3, H, W) of which `split_views` takes them back; in scoring the first one's."""

    views: tuple[View, ...]
    train: bool

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        if not self.train:
            return T.as_bytes(centred(image, self.views[0]))
        return side_by_side([T.as_bytes(augmented(image, view, rng)) for view in self.views])


def side_by_side(views: list[Tensor]) -> Tensor:
    """Squares (3, S_i, S_i) -> (3, max S, sum of S_i), black below the smaller ones."""
    height = max(view.shape[1] for view in views)
    return torch.cat([F.pad(view, (0, 0, 0, height - view.shape[1])) for view in views], dim=2)


def split_views(batch: Tensor, sides: list[int]) -> list[Tensor]:
    """(B, 3, H, W) of `side_by_side` squares -> (B, 3, S_i, S_i) each."""
    strips = batch.split(sides, dim=3)
    return [strip[:, :, :side] for strip, side in zip(strips, sides, strict=True)]


def neighbour_residual(x: Tensor) -> Tensor:
    """x - up(down(x)), nearest by 1/2 and 2, times 2/3. (B, 3, H, W), H and W even; zero at the
    top left pixel of each 2x2 block. Source: published artifact encoder, variant progan."""
    down = F.interpolate(x, scale_factor=0.5, mode="nearest", recompute_scale_factor=True)
    up = F.interpolate(down, scale_factor=2.0, mode="nearest", recompute_scale_factor=True)
    return (x - up) * (2 / 3)


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
        return (x - self.reconstruction(x)) / 7 * 100

    def feature(self, x: Tensor) -> Tensor:
        """(B, features)."""
        return self.trunk(self.residual(x))


# Published prefixes -> this module's; the first that fits. In the file of end2end each of the four
# state dicts has a name; `fc` stands for another layer in each of the other files.
PREFIXES = {
    "art_encoder.vae.": "artifact.vae.",
    "art_encoder.": "artifact.trunk.",
    "art_fc.": "artifact.fc.",
    "sem_fc.": "semantic.fc.",
    "classifier.": "fc.",
    "artifact_encoder.vae.": "artifact.vae.",
    "artifact_encoder.": "artifact.trunk.",
}
UNUSED = ("artifact_encoder.fc1.", "art_encoder.fc1.")


def _renamed(key: str, prefixes: dict[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


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
    options: CoSpyOptions

    def __init__(self, options: CoSpyOptions) -> None:
        super().__init__(options)
        variant, alone = options.variant, options.branch if options.mode == "branch" else None
        self.semantic = SemanticBranch(variant, options.tiny) if alone != "artifact" else None
        self.artifact = ArtifactBranch(variant, options.tiny) if alone != "semantic" else None
        if options.mode == "fusion":
            self.fc = _linear(2)
            with torch.no_grad():
                self.fc.weight += variant.fc_weight
                self.fc.bias.fill_(variant.fc_bias)
            self.requires_grad_(False)
            self.fc.requires_grad_(True)
        elif options.mode == "end2end":
            assert self.semantic is not None
            assert self.artifact is not None
            self.fc = _linear(self.semantic.features + self.artifact.features)
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> CoSpy:
        """Training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for branch in (self.semantic, self.artifact):
            for module in branch.modules() if branch is not None else ():
                own = list(module.parameters())
                if own and not any(p.requires_grad for p in own):
                    module.eval()
        return self

    def transform(self, train: bool) -> Transform:
        variant = self.options.variant
        if self.options.mode == "branch":
            return ViewTransform(
                (variant.artifact if self.semantic is None else variant.semantic,), train
            )
        if self.options.mode == "fusion" and train:
            return ViewTransform((variant.semantic, variant.artifact), train)
        return ViewTransform((variant.joint,), train)

    def inputs(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """What the semantic and the artifact branch get of a batch, in [0, 1]: in training of the
        fusion a view each; else the same one, for the artifact branch resized without antialias."""
        x = batch.float() / 255
        variant = self.options.variant
        sides = [variant.semantic.crop, variant.artifact.crop]
        if self.options.mode == "fusion" and x.shape[3] == sum(sides):
            semantic, artifact = split_views(x, sides)
            return semantic, artifact
        if x.shape[3] == variant.artifact.crop or self.artifact is None:
            return x, x
        small = (variant.artifact.crop, variant.artifact.crop)
        return x, F.interpolate(x, small, mode="bilinear", align_corners=False)

    def _judge(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B,) and the residual (B, 3, h, w), if there is an artifact branch."""
        features: list[Tensor] = []
        logits: list[Tensor] = []
        residual = None
        semantic, artifact = self.inputs(batch)
        if self.semantic is not None:
            features.append(self.semantic.feature(semantic))
            logits.append(self.semantic.fc(features[-1]))
        if self.artifact is not None:
            residual = self.artifact.residual(artifact)
            features.append(self.artifact.trunk(residual))
            logits.append(self.artifact.fc(features[-1]))
        if self.options.mode == "fusion":
            logits = [self.fc(torch.cat(logits, dim=1))]
        elif self.options.mode == "end2end":
            kept = self._coefficients()
            weighted = [k * z * f for k, z, f in zip(kept, logits, features, strict=True)]
            logits = [self.fc(torch.cat(weighted, dim=1))]
        return logits[0].squeeze(1), residual

    def _coefficients(self) -> tuple[float, float]:
        """1, 1; in end2end training with probability 0.3 one of them 0 for the whole batch."""
        if not self.training or float(torch.rand(())) >= DROP_COEFFICIENT:
            return 1.0, 1.0
        return (0.0, 1.0) if float(torch.rand(())) < 0.5 else (1.0, 0.0)

    def optimise(self) -> None:
        if self.artifact is not None:
            fold_norms(self.artifact.trunk)
        if self.semantic is not None:
            convolve_linears(self.semantic.encoder)

    def forward(self, batch: Tensor) -> Tensor:
        return self._judge(batch)[0]

    def loss(self, batch: Tensor, labels: Tensor) -> Tensor:
        if self.options.mode != "fusion":
            return super().loss(batch, labels)
        return fusion_loss(self(batch), labels, self.fc.bias, self.options.variant.fc_bias)

    def check_explain(self) -> None:
        if self.artifact is None:
            raise OptionError("--explain: CO-SPY's semantic branch has no residual to show")

    def explain(self, batch: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Per picture the residual's magnitude (h, w), mean over channels."""
        self.check_explain()
        logits, residual = self._judge(batch)
        assert residual is not None
        return logits, list(residual.abs().mean(dim=1).float().cpu())

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        """The crop that the detector saw, and the residual on it."""
        variant = self.options.variant
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
    def external(cls, options: CoSpyOptions) -> dict[str, str]:
        alone = options.branch if options.mode == "branch" else None
        found = {}
        if alone != "artifact":
            found["semantic.encoder."] = options.variant.entry
        if alone != "semantic" and options.variant.vae:
            found["artifact.vae."] = options.variant.vae
        return found

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """Any of the four published files. Leaves out `fc1` of the artifact encoder, which the
        published network holds but never uses."""
        if any(key.startswith("artifact_encoder.") for key in published):
            prefixes = PREFIXES | {"fc.": "artifact.fc."}
        elif "fc.weight" in published and published["fc.weight"].shape != (1, 2):
            prefixes = PREFIXES | {"fc.": "semantic.fc."}
        else:
            prefixes = PREFIXES
        used = {k: v for k, v in published.items() if not k.startswith(UNUSED)}
        return {_renamed(key, prefixes): value for key, value in used.items()}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """A CLIP or SigLIP file's vision tower, or Stable Diffusion's autoencoder."""
        vision = {f"semantic.encoder.{k}": v for k, v in _clip.vision_keys(published).items()}
        return vision or {f"artifact.vae.{k}": v for k, v in _vae.current_keys(published).items()}

    @classmethod
    def tiny(cls) -> CoSpyOptions:
        return CoSpyOptions(size="tiny")
