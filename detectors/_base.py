"""The contract that every detector fulfils, and the only base class of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

# Picture, generator -> item: a tensor, or a list of items where several detectors look at it.
Transform = Callable[[Image.Image, np.random.Generator], Any]
# Exported parts by their names: a tensor -> what the part makes of it.
Running = Mapping[str, Callable[[Tensor], tuple[Tensor, ...]]]
WHOLE = "detector"


class OptionError(ValueError):
    """An option of a detector has a value it does not take; the message lists what it takes."""


class WeightsError(ValueError):
    """Weights are missing, or not those of the detector; the message says which were expected."""


def one_of(name: str, value: str, choices: Iterable[str]) -> str:
    """`value`, or an OptionError that lists the choices."""
    choices = list(choices)
    if value not in choices:
        raise OptionError(f"{name}: expected one of {', '.join(choices)}; found {value!r}")
    return value


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

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def transform(self, train: bool) -> Transform:
        """A picklable callable (RGB picture, generator) -> item; it holds no weights.

        With `train` False it uses no randomness but what the picture's own content seeds.
        """

    def collate(self, items: list[Any]) -> Any:
        """Items -> batch. Here: stacks tensors of one shape to (B, ...)."""
        return torch.stack(items)

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Batch -> logits (B,), natural-log odds of synthetic."""

    def check_explain(self) -> None:
        """Raises OptionError when the detector has nothing that `explain` could show."""
        if type(self).explain is Detector.explain:
            raise OptionError(f"--explain: {self.title} has nothing to show")

    def explain(self, batch: Any) -> tuple[Tensor, list[Tensor]]:  # noqa: ARG002
        """Batch -> logits (B,) as `forward` gives them, and what in each picture they rest on, in
        a form of the detector's own that `overlay` draws.

        Raises:
            OptionError: the detector has nothing to show.
        """
        raise OptionError(f"--explain: {self.title} has nothing to show")

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:  # noqa: ARG002
        """The RGB picture with the relevance that `explain` gave for it drawn over it."""
        raise OptionError(f"--explain: {self.title} has nothing to show")

    def loss(self, batch: Any, labels: Tensor) -> Tensor:
        """Scalar training loss; `labels` (B,) in [0, 1]. Here: BCE with logits."""
        return F.binary_cross_entropy_with_logits(self(batch).float(), labels.float())

    def optimise(self) -> None:
        """Replaces layers, for good, by faster ones that can only score: logits stay the same up to
        rounding, but weight files no longer fit. Called in evaluation mode. Here: none."""
        return

    def parts(self) -> dict[str, Part]:
        """What exported files hold, one each, by name; the first one is the one that users name.
        Here: all of it.

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
        """Batch -> logits (B,) and, where the parts give it, what `explain` adds to them; computed
        by exported `parts`, not by this module's own weights, which may be on the meta device."""
        return run[WHOLE](batch)[0], None

    @classmethod
    def external(cls, options: Any) -> dict[str, str]:
        """Frozen parts that weight files may leave out: prefix of their keys in the state dict ->
        name of the manifest's entry that has them. Here: none."""
        return {}

    @classmethod
    def convert(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published state dict -> one with this class's key names and sign. Here: as it is."""
        return published

    @classmethod
    def convert_backbone(cls, published: dict[str, Tensor]) -> dict[str, Tensor]:
        """A published backbone's state dict -> the part of this class's state dict it starts.

        Raises:
            OptionError: the detector has no backbone that could start from a file.
        """
        raise OptionError(f"{cls.title} takes no --backbone_weights")

    @classmethod
    def tiny(cls) -> Any:
        """Options of a small variant with the same parts, for tests."""
        return cls.Options()


def describe_options(options: Any) -> dict[str, Any]:
    """Options as a plain dict, in the order of their definition."""
    return {field.name: getattr(options, field.name) for field in fields(options)}
