"""The resolved configuration: dataclass defaults < the detector's YAML < --config < --set.

Every phase asks it for its options. Type, range and description of a key stand together; an error
says all three.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

import detectors
from datasets._limits import UPRIGHT, Decoding
from detectors._options import STRICT, BelowOne, Count, Probability, one_line, shown

from . import plain_data

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
MAX_SEED = 2**63 - 10_000  # torch's, with room for the numbers of processes
FEW_BAD = 3  # unreadable pictures that are no reason to stop, however small the set
DETECTION = "detection"
USUAL = "default"  # the detector where none is named: its weights ship
# Of the classes that YAML files spell, which have lists for tuples and mappings for classes.
FILE = ConfigDict(extra="forbid", use_attribute_docstrings=True)

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=0, lt=2**63)]  # what is larger fits into no tensor
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Location = Annotated[
    str | None,
    Field(description="Folder of these real pictures of a benchmark, if not below its root."),
]
T = TypeVar("T")


def printable(text: str) -> str:
    """A line of text."""
    if not text.strip() or not text.isprintable():
        raise ValueError("expected a line of text")
    return text


Line = Annotated[str, AfterValidator(printable)]


class ConfigError(ValueError):
    """A configuration key or value that does not exist or fit; the message lists what does."""


@dataclass(frozen=True, config=STRICT)
class TrainOptions:
    """The recipe of a training."""

    objective: str = DETECTION
    """Detection, or what a detector's backbone learns from unlabelled pictures (SPAI: mfm)."""
    epochs: Count = 10
    batch_size: Count = 32
    """Pictures at a time in every process."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: Positive = 1e-4
    """Learning rate."""
    lr_per: Count | None = None
    """Pictures of a step that `lr` is meant for; it grows with the step (null = it does not)."""
    head_lr: Positive = 1.0
    """The classifier's learning rate, as a multiple of `lr`."""
    weight_decay: NotNegative = 0.0
    decay_vectors: bool = True
    """Whether weight decay also shrinks biases and other vectors."""
    decay_positions: bool = True
    """Whether it also shrinks positions and class token of a ViT."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    schedule: Literal["constant", "cosine", "warm_cosine", "polynomial", "step"] = "constant"
    """Constant; cosine (per step, from lr to lr * final_lr after `warmup` epochs); warm_cosine
    (the same, but the warm-up is linear from lr * final_lr, or lr * `warmup_lr`, and the cosine
    counts from step 0); polynomial (per epoch, lr * (1 - epoch / epochs) ** 0.9, 1-based); step
    (per epoch, times 0.9 after each epoch whose 0-based index is a non-zero multiple of 10)."""
    warmup: NotNegative = 0.0
    """Epochs in which the learning rate rises."""
    warmup_lr: NotNegative | None = None
    """Share of `lr`; null = `final_lr`."""
    final_lr: NotNegative | None = 0.0
    """Share of `lr`; null = 1 / epochs."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient (null = any)."""
    label_smoothing: BelowOne = 0.0
    balance: Probability | None = None
    """Draw pictures with weights that make classes equal and generators within a class count as
    (their size) ** balance (0 = all alike, 1 = by size); null = each picture once."""
    freeze_batchnorm: bool = False
    ema: BelowOne = 0.0
    """Decay of averaged weights (0 = off)."""
    anchor: BelowOne = 0.0
    """Share of the start weights in the validated and kept ones, the classifier apart (0 = off;
    WiSE-FT, Wortsman et al. 2022)."""
    select: Literal["AUROC", "AP", "balanced_accuracy", "accuracy", "loss"] = "AUROC"
    """The validation metric whose best epoch is kept, or loss, whose lowest is."""
    ties: Literal["later", "earlier"] = "later"
    """Of epochs that are equally good, the later (CO-SPY) or the earlier (SPAI, SSP)."""
    degrade: str = "none"
    """Degradations of the training pictures, as --degrade spells them: each picture goes through
    one of them, drawn anew each time, before the detector's own augmentation."""
    val_degrade: str = "none"
    """Degradation of the validation pictures, as --degrade spells it."""
    accumulate: Count = 1
    """Batches that an optimizer step takes."""
    drop_last: bool = True
    """Leave out the smaller last step of an epoch."""
    augment: bool = True
    """Whether training pictures vary; without, they are seen as in scoring, and what a frozen
    encoder makes of them is computed once."""
    save_every: Steps = 200
    """Steps between checkpoints within an epoch (0 = epochs only)."""
    save_epochs: Steps = 0
    """Keep the weights of every so many epochs, the first included (0 = of the best and the
    last)."""
    publish: bool = False
    """Write weights in the published program's layout too."""
    max_bad: Probability = 0.01
    """Share of unreadable training, or validation, pictures above which training stops; unless
    it is 0, three are always allowed."""
    report: bool = True
    """Evaluate the kept weights on the validation pictures at the end."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Null = mixed on CUDA, fp32 elsewhere."""
    seed: Seed = 1024

    def most_bad(self, pictures: int) -> int:
        """How many of so many pictures may be unreadable. One bad file among fewer than a hundred
        would stop a first try at the usual 1 %, and says nothing of the rest."""
        return max(FEW_BAD, int(self.max_bad * pictures)) if self.max_bad else 0


@dataclass(frozen=True, config=STRICT)
class DataOptions:
    """The part of a data set that is taken, and how its pictures are decoded."""

    split: str | None = None
    """What eval takes (null = everything, or the benchmark's own)."""
    train_split: str | None = None
    """What training takes where the data name splits (null = train, or the benchmark's own)."""
    val_split: str | None = None
    """What validation takes (null = val, or the benchmark's own); held_out, and data that name
    no splits: `val_fraction` of the training pictures."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of every generator's pictures that is held out, chosen by a hash of the picture's
    key."""
    leak_free: bool = False
    """Where one split is to serve training and validation, divide it in halves."""
    mscoco: Location = None
    flickr: Location = None
    coco: Location = None
    lsun: Location = None
    reals: str | None = None
    """Real pictures for a benchmark that has none, as NAME=PATH,NAME=PATH."""
    published: str | None = None
    """The published figures to compare with, where those of several fit."""
    val_generators: Literal["trained", "all"] = "trained"
    """Whether validation takes the generators that --generators names, or all of the data's."""
    decoding: Decoding | None = None
    """Upright (turned as EXIF says, 16 bit scaled to 8) or published (neither, as the published
    programs do); null = in training `train_decoding`, on a benchmark its protocol's, else
    upright."""
    train_decoding: Decoding = UPRIGHT

    @property
    def locations(self) -> dict[str, str]:
        """Where pictures of a benchmark lie that are not below its root, by name."""
        names = ("mscoco", "flickr", "coco", "lsun", "reals")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, config=STRICT)
class ScoreOptions:
    """The settings of scoring and of what is derived from scores."""

    batch_size: Count = 16
    """Pictures at a time, on a GPU in one forward pass."""
    resamples: Count = 1000
    """Of the bootstrap."""
    seed: Seed = 0
    """Of the bootstrap and of random degradations."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a result, besides the data and the weights."""

    detector: str
    options: Any
    train: TrainOptions = field(default_factory=TrainOptions)
    data: DataOptions = field(default_factory=DataOptions)
    score: ScoreOptions = field(default_factory=ScoreOptions)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, the detector's options under its name; `resolve` reads it back."""
        plain = {
            "detector": self.detector,
            self.detector: dataclasses.asdict(self.options),
            "train": dataclasses.asdict(self.train),
            "data": dataclasses.asdict(self.data),
            "score": dataclasses.asdict(self.score),
        }
        return json.loads(json.dumps(plain))


def validated(kind: type[T], section: str, values: Any) -> T:
    """An object of a dataclass of pydantic's out of what a YAML file spells.

    Args:
        kind: the dataclass, of the configuration `FILE`; it may hold others.
        section: the name of the values in errors.
        values: a mapping of its keys.

    Raises:
        ConfigError: an unknown or missing key, a value of another type or out of range.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ConfigError(one_line(error, kind, section)) from error


def _as_given(values: dict[Any, Any]) -> dict[str, Any]:
    """Keywords of an option class, which has tuples where YAML has lists."""
    return {str(key): tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def options_of(kind: type[T], section: str, values: dict[Any, Any]) -> T:
    """The options of a section: a strict class, where YAML has lists for tuples.

    Args:
        kind: their class.
        section: its name in errors.
        values: by key.

    Raises:
        ConfigError: an unknown key, a value of another type or out of range.
    """
    try:
        return kind(**_as_given(values))
    except ValidationError as error:
        raise ConfigError(one_line(error, kind, section)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping. Raises ConfigError naming the file when it is none."""
    try:
        content = plain_data.read_yaml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected a YAML file; found {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections of keys; found {type(content).__name__}")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """`section.key=value` (value in YAML) -> nested dict."""
    name, equals, value = text.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and section and key):
        raise ConfigError(f"--set: expected section.key=value; found {text!r}")
    try:
        return {section: {key: plain_data.parse_yaml(value)}}
    except ValueError as error:
        raise ConfigError(f"--set {name}: expected a YAML value; found {shown(value)}") from error


def _merge(base: dict[str, Any], layer: dict[str, Any], where: str) -> dict[str, Any]:
    merged = {k: dict(v) if isinstance(v, dict) else v for k, v in base.items()}
    for section, values in layer.items():
        if section == "detector":
            merged["detector"] = values
        elif isinstance(values, dict):
            merged.setdefault(section, {}).update(values)
        else:
            raise ConfigError(f"{where}: expected keys below {section!r}; found {values!r}")
    return merged


COMMON = {"train": TrainOptions, "data": DataOptions, "score": ScoreOptions}
Layers = Sequence[tuple[str, dict[str, Any]]]


def _layered(layers: Layers, names: Sequence[str]) -> dict[str, Any]:
    """Sections of keys, later layers over earlier ones; `names`: detectors that may have one."""
    merged: dict[str, Any] = {}
    for where, layer in layers:
        merged = _merge(merged, layer, where)
    known = [*names, *COMMON]
    for section in merged:
        if section not in (*known, "detector"):
            raise ConfigError(f"unknown section {section!r}; known: {', '.join(known)}")
    return merged


def check_sections(layers: Layers, names: Sequence[str]) -> None:
    """Raises ConfigError as `resolve` does for what is wrong whatever other layers say: unknown
    sections and keys, values that a key never takes. Imports no torch.

    Args:
        names: detectors that may have a section.
    """
    merged = _layered(layers, names)
    for section, kind in COMMON.items():
        options_of(kind, section, merged.get(section, {}))
    for name in names:
        own = detectors.options(name)
        if own is not None and name in merged:
            _check_keys(own, name, merged[name])


def _check_keys(kind: type, section: str, values: dict[Any, Any]) -> None:
    """`options_of` without the rules on several keys, some of which other layers may have."""
    try:
        kind(**_as_given(values))
    except ValidationError as error:
        if any(fault["loc"] for fault in error.errors(include_url=False)):
            raise ConfigError(one_line(error, kind, section)) from error


def data_options(sets: Sequence[str]) -> DataOptions:
    """The options of the data as words of --set name them, for a program without a detector.

    Raises:
        ConfigError: another section, an unknown key, a value of another type or out of range.
    """
    merged = _layered([("--set", parse_override(text)) for text in sets], [])
    if others := [section for section in merged if section != "data"]:
        raise ConfigError(f"--set: expected data.KEY=VALUE; found the section {others[0]!r}")
    return options_of(DataOptions, "data", merged.get("data", {}))


def resolve(detector: str, layers: Layers) -> Config:
    """Builds the configuration of a detector from layers of (where from, nested dict), later ones
    win. Sections: the detector's name, train, data, score.

    Raises:
        ConfigError: unknown section or key, a value of another type or out of range.
    """
    kind = detectors.options(detector) or detectors.load(detector).Options
    merged = _layered(layers, [detector])
    named = merged.pop("detector", detector)
    if named != detector:
        raise ConfigError(
            f"the configuration is for detector {named!r}; found --detector {detector}"
        )
    common: list[Any] = [
        options_of(of, section, merged.get(section, {})) for section, of in COMMON.items()
    ]
    return Config(detector, options_of(kind, detector, merged.get(detector, {})), *common)
