"""Few-shot detection: prototypes of a user's own examples among the features of a frozen encoder.

A handful of pictures of each generator, and real ones beside them, are enough to fit it in seconds:
each generator and each source of real pictures is the mean of its examples (prototypical networks,
Snell et al., arXiv 1703.05175), and a picture is as synthetic as its nearest prototypes are. The
encoder is the one that ships, so that nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _clip
from ._base import Detector, Transform
from ._errors import OptionError
from ._fewshot_options import FewShotOptions
from ._platt import platt
from ._square import Square

ENCODER = "clip-vit-b-16"  # the manifest's name of the frozen encoder
PENALTY = 1.0  # of the calibration's slope: a few examples are often separable


def evidence(similarity: Tensor, real: int, temperature: float) -> Tensor:
    """Log odds (N,) of the fake over the real prototypes, by the mean of exp(t * similarity).

    Args:
        similarity: (N, P), cosines; -inf for a prototype that does not count.
        real: how many prototypes are of real pictures, which come first.
        temperature: t.
    """
    scaled = temperature * similarity
    sides = []
    for side in (scaled[:, real:], scaled[:, :real]):
        # Of the mean: many generators are no reason to call a picture synthetic.
        count = side.isfinite().sum(dim=1).clamp(min=1)
        sides.append(side.logsumexp(dim=1) - count.log())
    return sides[0] - sides[1]


class FewShot(Detector):
    """Input (B, 3, 224, 224), normalised as CLIP was trained; 86 M parameters, all of them frozen,
    and a prototype of 6,144 numbers for each generator and source."""

    title = "Few-shot prototypes"
    Options = FewShotOptions
    FITTED = True
    options: FewShotOptions

    def __init__(self, options: FewShotOptions) -> None:
        super().__init__(options)
        tiny = options.size == "tiny"
        self.crop = 48 if tiny else 224
        self.blocks = min(options.blocks, _clip.b16_depth(tiny))
        self.encoder = _clip.clip_vit_b16(tiny, self.crop).requires_grad_(False)
        width = self.blocks * _clip.b16_width(tiny)
        self.centre = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(width))
        self.prototypes = nn.Parameter(torch.randn(options.real + options.fake, width))
        self.fc = nn.Linear(1, 1)

    def transform(self, train: bool) -> Transform:
        return Square(
            self.crop, self.crop, _clip.CLIP_MEAN, _clip.CLIP_STD, filter="bicubic", train=train
        )

    @property
    def embeds(self) -> bool:
        return True

    def embed(self, batch: Tensor) -> Tensor:
        """Class tokens of the last blocks, (B, blocks * width)."""
        kind = next(self.encoder.parameters()).dtype
        with torch.no_grad():
            return _clip.class_tokens(self.encoder, batch.to(kind), self.blocks).flatten(1).float()

    def classify(self, embedded: Tensor) -> Tensor:
        options = self.options
        unit = F.normalize((embedded - self.centre) * self.scale, dim=1)
        cosines = unit @ F.normalize(self.prototypes, dim=1).T
        values = evidence(cosines, options.real, options.temperature)
        return self.fc(values[:, None]).squeeze(1)

    def forward(self, batch: Tensor) -> Tensor:
        return self.classify(self.embed(batch))

    @classmethod
    def fit(
        cls,
        features: Tensor,
        labels: Tensor,
        groups: Sequence[str],
        options: FewShotOptions,
    ) -> tuple[FewShotOptions, dict[str, Tensor]]:
        """Prototypes of the groups, real ones first, and the calibration of the evidence that each
        example gets while it is left out of its own prototype."""
        names = sorted({(int(y), group) for y, group in zip(labels.tolist(), groups, strict=True)})
        index = {name: number for number, name in enumerate(names)}
        rows = zip(labels.tolist(), groups, strict=True)
        member = torch.tensor([index[int(y), group] for y, group in rows])
        real = sum(label == 0 for label, _ in names)  # and they come first
        if real in (0, len(names)):
            raise OptionError(f"{cls.title}: expected real and synthetic pictures; found one class")
        centre, scale = standard(features.double(), member, len(names))
        unit = F.normalize((features.double() - centre) * scale, dim=1)
        sums = torch.zeros(len(names), unit.shape[1], dtype=unit.dtype).index_add(0, member, unit)
        values = evidence(left_out(unit, sums, member), real, options.temperature)
        # An example that is alone in its class says nothing about how others of it would fare.
        known = values.isfinite()
        wanted = labels.long()[known].numpy()
        slope, offset = 1.0, 0.0
        if len(set(wanted.tolist())) == 2:
            slope, offset = platt(wanted, values[known].numpy(), PENALTY)
        if slope <= 0:
            raise OptionError(
                f"{cls.title}: expected examples that resemble others of their class; found that "
                "left out of its prototype one resembles the other class: give more of each"
            )
        state = {"centre": centre, "scale": scale, "prototypes": sums}
        state |= {"fc.weight": torch.tensor([[slope]]), "fc.bias": torch.tensor([offset])}
        fitted = replace(options, real=real, fake=len(names) - real)
        return fitted, {key: value.float() for key, value in state.items()}

    @classmethod
    def external(cls, options: FewShotOptions) -> dict[str, str]:
        return {"encoder.": ENCODER}

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """CLIP's vision tower, packed or not."""
        return {f"encoder.{k}": v for k, v in _clip.vision_keys(published).items()}

    @classmethod
    def tiny(cls) -> FewShotOptions:
        return FewShotOptions(blocks=2, real=2, fake=3, size="tiny")


def standard(features: Tensor, member: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The middle of the groups' means, (F,), and one over the deviation within groups, (F,).

    Groups weigh the same, however many examples they have. Where each has one, the deviation is
    that of all examples.
    """
    sums = torch.zeros(groups, features.shape[1], dtype=features.dtype)
    sizes = member.bincount(minlength=groups)
    means = sums.index_add(0, member, features) / sizes[:, None]
    centre = means.mean(dim=0)
    free = len(features) - groups
    inner = features - (means[member] if free else centre)
    variance = inner.square().sum(dim=0) / max(1, free or len(features) - 1)
    # A feature that never varies among few examples must not drown all others.
    return centre, (variance + variance.mean().clamp(min=1e-12) * 1e-2).rsqrt()


def left_out(unit: Tensor, sums: Tensor, member: Tensor) -> Tensor:
    """Cosines (N, P) of examples with prototypes, of which an example's own is without it.

    Args:
        unit: (N, F), examples of length 1.
        sums: (P, F), of the examples of each prototype.
        member: (N,), the prototype of each example.
    """
    cosines = unit @ F.normalize(sums, dim=1).T
    rest = sums[member] - unit
    alone = member.bincount(minlength=len(sums))[member] == 1
    own = (unit * F.normalize(rest, dim=1)).sum(dim=1).masked_fill(alone, -math.inf)
    cosines[torch.arange(len(unit)), member] = own
    return cosines
