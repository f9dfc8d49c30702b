"""The contract that every detector fulfils, and the only base class of the project.

The engine knows detectors by it alone: what is special about one is a hook here, with a default for
detectors of one network in one file. Each module of this folder without an underscore has one
subclass. Nothing here reads a file or knows the engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ._arrays import Transform
from ._errors import OptionError

# Exported parts by their names: a tensor -> what the part makes of it.
Running = Mapping[str, Callable[[Tensor], tuple[Tensor, ...]]]
WHOLE = "detector"


def _bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy (scalar) of logits (B,) with labels (B,) in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


@dataclass(frozen=True)
class Home:
    """The data of a detector's own paper. `evaluate`, `train`: names of benchmarks; `pictures`:
    where those to train on lie, None = in the benchmark's usual place; `generators`: those of them
    that are trained on, none = all."""

    evaluate: str
    train: str
    pictures: Path | None = None
    generators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A network that an exported file holds. `example`: a tensor as `module` takes them, whose
    first dimension is free; `outputs`: names of the one or more tensors that it gives."""

    module: nn.Module
    example: Tensor
    input: str
    outputs: tuple[str, ...]


class Detector(nn.Module, ABC):
    """From decoded pictures to logits, positive = synthetic.

    A subclass has a frozen dataclass `Options` (its hyper-parameters, all with defaults) and takes
    one in its constructor. `title` is the name that people read.
    """

    title: ClassVar[str]
    Options: ClassVar[type]
    # Beginnings of the keys that `convert_backbone` heeds; nothing else of a file is read.
    BACKBONE_KEYS: ClassVar[tuple[str, ...]] = ("",)
    # Options that `parts` do not depend on: an exported file runs with others than it was made of.
    OUTSIDE_PARTS: ClassVar[tuple[str, ...]] = ()
    # Options that choose the network; the first one is the same for all files of `weight_parts`.
    CHOICE: ClassVar[tuple[str, ...]] = ()
    # Whether files of --backbone_weights hold frozen parts alone, of which a network may need some:
    # else training starts a backbone from each, whole.
    FROZEN_BACKBONES: ClassVar[bool] = False
    # Benchmarks that the published program evaluates on, into folders that it names itself.
    BENCHMARKS: ClassVar[tuple[str, ...]] = ()
    # What other programs say of pictures, by their keys: engine and detector pass it on beside what
    # the transform makes of a picture. None: it takes no such tables.
    given: Mapping[str, Tensor] | None = None
    # Whether phase train fits it at once to values of `embed`, by `fit`, instead of by gradient.
    FITTED: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options

    def train(self, mode: bool = True) -> Self:
        """Training mode, in which what is frozen stays in evaluation mode: a frozen encoder gives a
        picture one feature, whatever its dropout and batch norms would do."""
        super().train(mode)
        for module in self.modules() if mode else ():
            own = list(module.parameters())
            if module is not self and own and not any(p.requires_grad for p in own):
                module.eval()
        return self

    @abstractmethod
    def transform(self, train: bool) -> Transform:
        """A picklable callable (RGB picture, generator) -> item; it holds no weights.

        With `train` False it uses no randomness but what the picture's own content seeds.
        """

    def val_transform(self) -> Transform:
        """The transform of validation during training. Here: that of scoring.

        It may draw from its generator, which is seeded by the picture alone: validation sees the
        same of it after every epoch.
        """
        return self.transform(train=False)

    @classmethod
    def objectives(cls) -> Mapping[str, type[Detector]]:
        """Objectives by which a backbone learns from unlabelled pictures, by name: the modules that
        learn by them, with this class's options. Here: none."""
        return {}

    def start_from_nothing(self) -> None:
        """Lets layers learn that are frozen because a file has trained them; for a training that
        starts from no file. Here: none are."""
        return

    def collate(self, items: list[Any]) -> Any:
        """The batch of some items. Here: tensors of one shape, stacked to (B, ...)."""
        return torch.stack(items)

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Logits (B,) of a batch, natural-log odds of synthetic."""

    def check_explain(self) -> None:
        """Raises OptionError when the detector has nothing that `explain` could show."""
        if type(self).explain is Detector.explain:
            raise OptionError(f"--explain: {self.title} has nothing to show")

    def explain(self, batch: Any) -> tuple[Tensor, list[Tensor]]:  # noqa: ARG002
        """Logits (B,) of a batch as `forward` gives them, and the relevance of each picture's parts
        to its logit, in a form of the detector's own that `overlay` draws.

        Raises:
            OptionError: the detector has nothing to show.
        """
        raise OptionError(f"--explain: {self.title} has nothing to show")

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:  # noqa: ARG002
        """The RGB picture with the relevance that `explain` gave for it drawn over it."""
        raise OptionError(f"--explain: {self.title} has nothing to show")

    @property
    def embeds(self) -> bool:
        """Whether a frozen part comes first: what `embed` makes of a picture, of the same shape for
        each, stays the same while the rest learns, and may be computed once and kept. Here: no."""
        return False

    def embed(self, batch: Any) -> Tensor:  # noqa: ARG002
        """Values of the frozen part for a batch, (B, ...) float32, without autograd; `forward` is
        `classify` of it, exactly. Computed in the precision of the caller's autocast.

        Raises:
            OptionError: no frozen part comes first (`embeds` is False).
        """
        raise OptionError(f"{self.title}: expected a frozen part that comes first; found none")

    def classify(self, embedded: Tensor) -> Tensor:  # noqa: ARG002
        """Logits (B,) by the trained layers, from values of `embed`. Raises OptionError where
        `embeds` is False."""
        raise OptionError(f"{self.title}: expected a frozen part that comes first; found none")

    def embedded_loss(self, embedded: Tensor, labels: Tensor) -> Tensor:
        """The training loss of values of `embed`. Here: BCE with logits."""
        return _bce(self.classify(embedded), labels)

    @classmethod
    def fit(
        cls,
        features: Tensor,
        labels: Tensor,
        groups: Sequence[str],
        options: Any,
    ) -> tuple[Any, dict[str, Tensor]]:
        """The network that fits labelled features, where `FITTED` says that there is one.

        Args:
            features: values of `embed`, (N, ...) float32.
            labels: (N,), 1 = synthetic, 0 = real; both occur.
            groups: generator of each synthetic picture, source of each real one.
            options: of the detector that embedded them.

        Returns:
            Options of the fitted network, whose sizes may follow from the data, and its state dict
            without the frozen part. The order of the rows changes neither.

        Raises:
            OptionError: it learns by gradient alone, or these features allow no fit.
        """
        raise OptionError(f"{cls.title}: expected a detector that is fitted; it learns by gradient")

    def loss(self, batch: Any, labels: Tensor) -> Tensor:
        """The scalar training loss; `labels` (B,) in [0, 1]. Here: BCE with logits; where a frozen
        part comes first, `embedded_loss` of its values."""
        if self.embeds:
            return self.embedded_loss(self.embed(batch), labels)
        return _bce(self(batch), labels)

    def optimise(self) -> None:
        """Replaces layers, for good, by faster ones that can only score: logits stay the same up to
        rounding, but weight files no longer fit. For a model in evaluation mode. Here: none."""
        return

    def parts(self) -> dict[str, Part]:
        """Networks that exported files hold, one each, by name; users name the first file. Here:
        the whole detector.

        Raises:
            OptionError: the detector cannot be exported.
        """
        rng = np.random.default_rng(0)
        items = [self.transform(train=False)(Image.new("RGB", (256, 256)), rng) for _ in range(2)]
        batch = self.collate(items)
        if not isinstance(batch, Tensor):
            raise OptionError(f"{self.title} cannot be exported as one network")
        return {WHOLE: Part(self, batch, "batch", ("logits",))}

    def run_parts(self, run: Running, batch: Any) -> tuple[Tensor, list[Tensor] | None]:
        """Logits (B,) of a batch and, where the parts give it, the relevance of `explain`; computed
        by exported `parts`, not by this module's own weights, which may be on the meta device."""
        return run[WHOLE](batch)[0], None

    @classmethod
    def chosen(cls, options: Any) -> dict[str, Any]:
        """The options of `CHOICE` that have an effect, with their values."""
        return {name: getattr(options, name) for name in cls.CHOICE}

    @classmethod
    def recipe(cls, options: Any) -> str:
        """Stem of the file in configs/ that says how this network is trained. Here: the module's
        name, which is the detector's."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def entry(cls, options: Any) -> str:
        """Name of the manifest's entry that holds its weights. Here: the detector's name."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def weight_parts(cls, options: Any) -> tuple[str, ...]:
        """Names of the parts whose files, in one folder, make the weights. Here: none, for one file
        has all."""
        return ()

    @classmethod
    def part_files(cls, part: str) -> tuple[str, ...]:
        """Paths that the published file of a part has below such a folder. Here: none."""
        return ()

    @classmethod
    def trained_before(cls, options: Any) -> tuple[str, ...]:
        """The parts whose training must have ended before this network's begins. Here: none."""
        return ()

    @classmethod
    def begins_fresh(cls, options: Any) -> tuple[str, ...]:
        """Beginnings of the keys that training begins at random though it starts from weights.
        Here: none."""
        return ()

    @classmethod
    def home(cls, options: Any) -> Home | None:
        """The data of the detector's own paper, taken where none are named. Here: none."""
        return None

    @classmethod
    def output_folder(cls, options: Any, ckpt: Path) -> Path | None:
        """The folder below `ckpt` where training puts and finds weights. Here: None, for the one
        that each run of the project has."""
        return None

    @classmethod
    def made_of(cls, options: Any) -> tuple[tuple[str, str | None], ...]:
        """Names of the detectors that this one is made of, each with the weights that are named for
        it, or None. Here: none."""
        return ()

    @classmethod
    def score_files(cls, options: Any) -> tuple[str, ...]:
        """Paths of CSV files with other programs' scores, which it takes beside what it sees of
        a picture: `given` holds them while it scores. Here: none."""
        return ()

    @classmethod
    def external(cls, options: Any) -> dict[str, str]:
        """Frozen parts that weight files may leave out: prefix of their keys in the state dict ->
        name of the manifest's entry that has them. Here: none."""
        return {}

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict with this class's key names and sign. One that has them already,
        which its keys tell, stays as it is. Here: all do."""
        return published

    @classmethod
    def renamed(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """This class's state dict, of today's or an earlier version, with today's key names. Here:
        as it is."""
        return state

    @classmethod
    def publish(cls, state: dict[str, Tensor]) -> dict[str, Any]:
        """The inverse of `convert`: this class's whole state dict -> what a published file holds,
        with those of the frozen parts of `external` that it holds too: tensors by key, or dicts of
        such. Here: as it is."""
        return state

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of this class's state dict that a published backbone's state dict starts.

        Raises:
            OptionError: the detector has no backbone that could start from a file.
        """
        raise OptionError(f"{cls.title} takes no --backbone_weights")

    @classmethod
    def tiny(cls) -> Any:
        """Options of a small variant with the same parts, for tests."""
        return cls.Options()
