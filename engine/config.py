"""The resolved configuration: dataclass defaults < the detector's YAML < --config < --set."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import detectors
from datasets._limits import DECODINGS, UPRIGHT

from . import plain_data

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
MAX_SEED = 2**63 - 10_000  # torch's, with room for the numbers of processes
LARGEST = 2**63 - 1
MOST = 10**5  # pictures in a batch, epochs, resamples: more is a slip, and no memory holds it
SHOWN = 60  # characters of a wrong value that an error repeats
FEW_BAD = 3  # unreadable pictures that are no reason to stop, however small the set
SELECTABLE = ("AUROC", "AP", "balanced_accuracy", "accuracy", "loss")
DETECTION = "detection"
SCHEDULES = ("constant", "cosine", "warm_cosine", "polynomial", "step")


class ConfigError(ValueError):
    """A configuration key or value that does not exist or fit; the message lists what does."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train. `objective`: detection, or what a detector's backbone can learn from unlabelled
    pictures (SPAI: mfm). `lr_per`: the pictures of a step that `lr` is meant for; it grows with the
    step (null = it does not). `schedule`: constant; cosine (per step, from lr to lr * final_lr
    after `warmup` epochs; final_lr null = 1 / epochs); warm_cosine (the same, but the warm-up is
    linear from lr * final_lr, or lr * `warmup_lr`, and the cosine counts from step 0); polynomial
    (per epoch, lr * (1 - epoch / epochs) ** 0.9, 1-based); step (per epoch, times 0.9 after each
    epoch whose 0-based index is a non-zero multiple of 10). `decay_vectors`: whether weight decay
    also shrinks biases and other vectors; `decay_positions`: positions and class token of a ViT.
    `balance`: draw pictures with weights that make classes equal and generators within a class
    count as (their size) ** balance (0 = all alike, 1 = by size); null = each picture once.
    `select`: the validation metric whose best epoch is kept, or loss, whose lowest is; `ties`: of
    epochs that are equally good the later (CO-SPY) or the earlier (SPAI, SSP). `ema`: decay of
    averaged weights (0 = off). `anchor`: share of the start weights in the judged and kept ones,
    the classifier apart (0 = off; WiSE-FT, Wortsman et al. 2022). `batch_size`: pictures at a time
    in every process; an optimizer step takes `accumulate` times as many. `drop_last`: leave out the
    smaller last step of an epoch. `augment`: whether training pictures vary; without, they are seen
    as in scoring, and what a frozen encoder makes of them is computed once. `save_every`: steps
    between checkpoints within an epoch (0 = epochs only). `save_epochs`: keep the weights of every
    so many epochs, the first included (0 = of the best and the last). `publish`: write weights in
    the published program's layout too. `max_bad`: share of unreadable training, or validation,
    pictures above which training stops; unless it is 0, three are always allowed. `report`:
    evaluate the kept weights on the validation pictures at the end. `precision`: fp32, bf16, fp16,
    or null: mixed on CUDA, fp32 elsewhere."""

    objective: str = DETECTION
    epochs: int = 10
    batch_size: int = 32
    optimizer: str = "adamw"
    lr: float = 1e-4
    lr_per: int | None = None
    head_lr: float = 1.0
    weight_decay: float = 0.0
    decay_vectors: bool = True
    decay_positions: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "constant"
    warmup: float = 0.0
    warmup_lr: float | None = None
    final_lr: float | None = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    balance: float | None = None
    freeze_batchnorm: bool = False
    ema: float = 0.0
    anchor: float = 0.0
    select: str = "AUROC"
    ties: str = "later"
    val_degrade: str = "none"
    accumulate: int = 1
    drop_last: bool = True
    augment: bool = True
    save_every: int = 200
    save_epochs: int = 0
    publish: bool = False
    max_bad: float = 0.01
    report: bool = True
    precision: str | None = None
    seed: int = 1024

    def __post_init__(self) -> None:
        _choice("train.optimizer", self.optimizer, ("adam", "adamw"))
        _choice("train.schedule", self.schedule, SCHEDULES)
        if self.precision is not None:
            _choice("train.precision", self.precision, ("fp32", "bf16", "fp16"))
        _choice("train.select", self.select, SELECTABLE)
        _choice("train.ties", self.ties, ("later", "earlier"))
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"train.max_bad: expected 0 to 1; found {self.max_bad}")
        for name in ("epochs", "batch_size", "accumulate"):
            _counted(f"train.{name}", getattr(self, name))
        if self.lr_per is not None:
            _counted("train.lr_per", self.lr_per)
        names = ("weight_decay", "warmup", "warmup_lr", "final_lr", "save_every", "save_epochs")
        for name in names:
            if not 0 <= (getattr(self, name) or 0) < math.inf:
                raise ConfigError(f"train.{name}: expected 0 or more; found {getattr(self, name)}")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"train.seed: expected 0 to {MAX_SEED}; found {self.seed}")
        if not 0 <= (self.balance or 0) <= 1:
            raise ConfigError(f"train.balance: expected 0 to 1; found {self.balance}")
        for name in ("lr", "head_lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"train.{name}: expected more than 0; found {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"train.betas: expected 0 to below 1; found {self.betas}")
        for name in ("ema", "anchor", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"train.{name}: expected 0 to below 1; found {getattr(self, name)}"
                )

    def most_bad(self, pictures: int) -> int:
        """How many of so many pictures may be unreadable. One bad file among fewer than a hundred
        would stop a first try at the usual 1 %, and says nothing of the rest."""
        return max(FEW_BAD, int(self.max_bad * pictures)) if self.max_bad else 0


VAL_GENERATORS = ("trained", "all")


@dataclass(frozen=True)
class DataOptions:
    """Which part of a data set. `split`: what eval takes (null = everything, or the benchmark's
    own). `train_split`, `val_split`: what training takes where the data name splits (null = train
    and val, or the benchmark's own). Where they name none, and where `val_split` is held_out,
    `val_fraction` of the pictures of every generator is held out, chosen by a hash of the picture's
    key. `leak_free`: where one split is to serve both, divide it in halves. `mscoco`, `flickr`,
    `coco`, `lsun`: where those real pictures of a benchmark lie, if not below its root; `reals`:
    real pictures for a benchmark that has none, as NAME=PATH,NAME=PATH. `published`: the published
    figures to compare with, where those of several fit. `val_generators`: whether validation takes
    the generators that --generators names (trained), or all of the data's (all). `decoding`: how
    pictures are decoded, upright (turned as EXIF says, 16 bit scaled to 8) or published (neither,
    as the published programs do); null = in training as the recipe's `train_decoding` says, on a
    benchmark as its protocol does, and upright elsewhere."""

    split: str | None = None
    train_split: str | None = None
    val_split: str | None = None
    val_fraction: float = 0.1
    leak_free: bool = False
    mscoco: str | None = None
    flickr: str | None = None
    coco: str | None = None
    lsun: str | None = None
    reals: str | None = None
    published: str | None = None
    val_generators: str = "trained"
    decoding: str | None = None
    train_decoding: str = UPRIGHT

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ConfigError(f"data.val_fraction: expected 0 to 1; found {self.val_fraction}")
        _choice("data.val_generators", self.val_generators, VAL_GENERATORS)
        if self.decoding is not None:
            _choice("data.decoding", self.decoding, DECODINGS)
        _choice("data.train_decoding", self.train_decoding, DECODINGS)

    @property
    def parts(self) -> dict[str, str]:
        """Where parts of a benchmark live that are not below its root, by name."""
        names = ("mscoco", "flickr", "coco", "lsun", "reals")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class ScoreOptions:
    """`batch_size` pictures at a time, on a GPU in one forward pass; `resamples` of the bootstrap;
    `seed` of the bootstrap and of random degradations."""

    batch_size: int = 16
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "resamples"):
            _counted(f"score.{name}", getattr(self, name))
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"score.seed: expected 0 to {MAX_SEED}; found {self.seed}")


@dataclass(frozen=True)
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


def _counted(name: str, value: int) -> None:
    if not 1 <= value <= MOST:
        raise ConfigError(f"{name}: expected 1 to {MOST}; found {value}")


def _choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}; found {value!r}")


def _coerce(name: str, value: Any, kind: Any) -> Any:
    """`value` as the annotated type `kind`. Raises ConfigError when it is something else."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _coerce(name, value, next(a for a in arguments if a is not type(None)))
    if origin is tuple and isinstance(value, (list, tuple)):
        open_ended = arguments[-1] is Ellipsis
        kinds = [arguments[0]] * len(value) if open_ended else list(arguments)
        if len(kinds) == len(value):
            return tuple(_coerce(name, v, k) for v, k in zip(value, kinds, strict=True))
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        # YAML reads 1e-4 as text.
        try:
            if math.isfinite(number := float(value)):
                return number
        except (ValueError, OverflowError):
            pass
    # What is larger than 64 bits hold fits into no tensor and no size.
    fits = type(value) is not int or abs(value) <= LARGEST
    if kind in (int, bool, str) and type(value) is kind and fits:
        return value
    wanted = {int: "an int of at most 64 bits", float: "a finite float"}.get(kind) or str(
        getattr(kind, "__name__", kind)
    )
    found = repr(value)
    raise ConfigError(f"{name}: expected {wanted}; found {found[:SHOWN]}")


def _build(kind: type, section: str, values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"unknown key {section}.{key}; known: {', '.join(f'{section}.{k}' for k in known)}"
            )
    return kind(**{k: _coerce(f"{section}.{k}", v, hints[k]) for k, v in values.items()})


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
        found = repr(value if len(value) <= SHOWN else value[:SHOWN] + "…")
        raise ConfigError(f"--set {name}: expected a YAML value; found {found}") from error


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
    """Raises ConfigError as `resolve` does, except for the options of the detectors of these names,
    whose modules it leaves alone."""
    merged = _layered(layers, names)
    for section, kind in COMMON.items():
        _build(kind, section, merged.get(section, {}))


def data_options(sets: Sequence[str]) -> DataOptions:
    """The options of the data as words of --set name them, for a program without a detector.

    Raises:
        ConfigError: another section, an unknown key, a value of another type or out of range.
    """
    merged = _layered([("--set", parse_override(text)) for text in sets], [])
    if others := [section for section in merged if section != "data"]:
        raise ConfigError(f"--set: expected data.KEY=VALUE; found the section {others[0]!r}")
    found: DataOptions = _build(DataOptions, "data", merged.get("data", {}))
    return found


def resolve(detector: str, layers: Layers) -> Config:
    """Builds the configuration of a detector from layers of (where from, nested dict), later ones
    win. Sections: the detector's name, train, data, score.

    Raises:
        ConfigError: unknown section or key, a value of another type or out of range.
    """
    kind = detectors.load(detector).Options
    merged = _layered(layers, [detector])
    named = merged.pop("detector", detector)
    if named != detector:
        raise ConfigError(
            f"the configuration is for detector {named!r}; found --detector {detector}"
        )
    common = [_build(of, section, merged.get(section, {})) for section, of in COMMON.items()]
    return Config(detector, _build(kind, detector, merged.get(detector, {})), *common)
