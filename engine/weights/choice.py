"""Which detector a caller means, with which weights and options, and the configuration it has.

The command line makes a `Choice` of its flags, `engine/api.py` of its arguments; `opening.py` loads
what it names. Nothing here reads tensors, and no torch is imported for a detector that is scored
without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import detectors

from ..config import CONFIGS, DETECTION, Config, parse_override, read_yaml, resolve
from .loaded import WeightFile

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """A detector as it is asked for.

    `detector`: its name; `weights`: a path, a name of the manifest or a folder of the hub, None =
    those of its name; `backbones`: files, or names, of frozen parts; `pretrain`: the published
    weights, which are fetched; `ckpt`: where trainings keep theirs that have a folder of their own.

    Of the configuration: `config`, a YAML; `own`, options by detector; `common`, the sections that
    all detectors have; `overrides`, each `section.key=value`, which come last.
    """

    detector: str
    weights: str | None = None
    backbones: tuple[str, ...] = ()
    pretrain: bool = False
    ckpt: Path = Path("ckpt")
    config: Path | None = None
    own: Mapping[str, Layer] = field(default_factory=dict)
    common: Layer = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    compile: bool = False

    @property
    def combined(self) -> bool:
        """Whether the detector is made of others."""
        return self.detector in detectors.combined()

    def _layers(self) -> list[tuple[str, dict[str, Any]]]:
        """Layers of the configuration over the detector's YAML and the card of its weights."""
        layers = [(str(self.config), read_yaml(self.config))] if self.config else []
        layers.append(("flags", {self.detector: dict(self.own.get(self.detector, {}))}))
        layers.append(("flags", dict(self.common)))
        overrides = [text for text in self.overrides if not (self.combined and self._is_of(text))]
        return layers + [("--set", parse_override(text)) for text in overrides]

    def _is_of(self, override: str) -> bool:
        """Whether an override is about a member of this detector, not about itself."""
        section = override.split(".")[0]
        return section != self.detector and section in detectors.available()

    def resolve(self, file: WeightFile | None) -> Config:
        """The configuration: the detector's YAML, what the weights were trained with, `config`,
        `own` and `common`, `overrides`; later layers win. Raises ConfigError."""
        layers = self._layers()
        # The card comes first: weights run as they were trained unless somebody says otherwise.
        if file is not None and file.card is not None:
            layers.insert(0, (str(file.path), {self.detector: file.card.options}))
        recipe = _own_config(self.detector, layers)
        if recipe.exists():
            layers.insert(0, (str(recipe), read_yaml(recipe)))
        return resolve(self.detector, layers)

    def member(self, name: str, weights: str | None) -> Choice:
        """The choice of a member, `name`, with the weights that are named for it: an override
        `member.key=value` is its own; what `pretrain` means is known to one detector alone."""
        flags = detectors.flags().get(name)
        pretrain = self.pretrain and flags is not None and "pretrain" in flags.implies
        texts = tuple(text for text in self.overrides if text.split(".")[0] == name)
        member = replace(
            self, detector=name, weights=None, config=None, overrides=texts, pretrain=pretrain
        )
        if pretrain and weights is None:
            return member
        # None where the entry is the usual one: then the member looks for its weights by itself.
        entry = detectors.load(name).entry(member.resolve(None).options)
        weights = weights or (entry if entry != name else None)
        return replace(member, weights=weights, pretrain=False)


def _objective(layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """What is learnt, as the last layer that says so has it."""
    sections = [layer["train"] for _, layer in layers if isinstance(layer.get("train"), dict)]
    named = [section["objective"] for section in sections if "objective" in section]
    return str(named[-1]) if named else DETECTION


def _recipe_file(recipe: str, objective: str) -> Path:
    """The YAML of a recipe that learns an objective."""
    return CONFIGS / (f"{recipe}.yaml" if objective == DETECTION else f"{recipe}_{objective}.yaml")


def _own_config(name: str, layers: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    """The YAML of the network that the layers choose, or of what its backbone learns from."""
    if detectors.arrays(name):
        return _recipe_file(name, _objective(layers))
    kind = detectors.load(name)
    chosen: dict[str, Any] = {}
    for _, layer in layers:
        if isinstance(layer.get(name), dict):
            chosen |= {k: v for k, v in layer[name].items() if k in kind.CHOICE}
    # Of the choice alone: another option's slip is told by the whole configuration, with its layer.
    recipe = kind.recipe(resolve(name, [("", {name: chosen})]).options)
    return _recipe_file(recipe, _objective(layers))
