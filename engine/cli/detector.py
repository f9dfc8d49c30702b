"""What the flags of the command line choose: detector, configuration, device and weights."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import detectors
from datasets._limits import PUBLISHED, UPRIGHT
from detectors._base import Detector, WeightsError

from ..config import CONFIGS, DETECTION, Config, ConfigError, parse_override, read_yaml, resolve
from ..runtime.device import PRECISIONS, Device
from ..weights.fetch import fetch
from ..weights.files import sha256
from ..weights.loading import (
    Loaded,
    WeightFile,
    build,
    check_keys,
    describe_member,
    external_state,
    is_run,
    load_backbone,
    load_exact,
    locate,
    missing_parts,
    open_weights,
    read_folder,
)
from ..weights.manifest import BEST, PUBLISHED_BEST, epoch_files, several
from ..weights.onnx import card_of, is_onnx, load_onnx, open_onnx
from . import rules

ENSEMBLE = "ensemble"
COSPY_CHOICE = ("train_dataset", "mode", "branch")
MIXING = ("feat_interp", "feat_interp_alpha", "feat_interp_ratio")
log = logging.getLogger(__name__)


def detector_name(args: argparse.Namespace) -> str:
    """That of `rules.detector_named`, else of the card of `--weights`, else default."""
    if named := rules.detector_named(args):
        return named
    path = Path(args.weights)
    if args.phase == "eval" and args.epochs is not None:
        path = next(iter(epoch_files(path, args.epochs).values()))
    card = card_of(path)
    return card.detector if card else "default"


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The flags of these names that were given."""
    values = {name: getattr(args, name) for name in names}
    return {k: v for k, v in values.items() if v is not None and v is not False and v != []}


def _cospy_layer(args: argparse.Namespace) -> dict[str, Any]:
    training = MIXING if args.phase == "train" else ()
    return {"cospy": given(args, (*COSPY_CHOICE, *training))}


def _flag_layer(args: argparse.Namespace) -> dict[str, Any]:
    train = given(args, ("batch_size", "seed", "precision"))
    if args.phase != "train":
        score = given(args, ("batch_size", "seed"))
        return {"train": train, "score": score, "data": given(args, ("split",))}
    if args.epochs:
        [train["epochs"]] = args.epochs
    train |= given(args, ("accumulate", "save_every"))
    if args.save_all:
        train["save_epochs"] = 1
    return {"train": train, "data": given(args, ("leak_free",))}


def _objective(layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """What is learnt, as the last layer that says so has it."""
    sections = [layer["train"] for _, layer in layers if isinstance(layer.get("train"), dict)]
    named = [section["objective"] for section in sections if "objective" in section]
    return str(named[-1]) if named else DETECTION


def _own_config(name: str, layers: Sequence[tuple[str, dict[str, Any]]]) -> Path:
    """The detector's YAML; CO-SPY has one for each variant and each part that is trained, a
    backbone's pre-training its own."""
    if name != "cospy":
        objective = _objective(layers)
        return CONFIGS / (f"{name}.yaml" if objective == DETECTION else f"{name}_{objective}.yaml")
    chosen: dict[str, Any] = {}
    for _, layer in layers:
        if isinstance(layer.get(name), dict):
            chosen |= {k: v for k, v in layer[name].items() if k in COSPY_CHOICE}
    options = resolve(name, [("", {name: chosen})]).options
    return CONFIGS / f"cospy_{options.train_dataset}_{part_of(options)}.yaml"


def _is_members(override: str) -> bool:
    """Whether a --set is about a member of the ensemble, not about itself."""
    section = override.split(".")[0]
    return section != ENSEMBLE and section in detectors.available()


def resolve_config(args: argparse.Namespace, name: str, file: WeightFile | None) -> Config:
    """Layers: the detector's YAML, what the weights were trained with, --config, flags, --set."""
    layers = []
    if file is not None and file.card is not None:
        layers.append((str(file.path), {name: file.card.options}))
    if args.config:
        layers.append((str(args.config), read_yaml(args.config)))
    if name == "cospy":
        layers.append(("flags", _cospy_layer(args)))
    layers.append(("flags", _flag_layer(args)))
    sets = [text for text in args.set if name != ENSEMBLE or not _is_members(text)]
    layers += [("--set", parse_override(text)) for text in sets]
    own = _own_config(name, layers)
    if own.exists():
        layers.insert(0, (str(own), read_yaml(own)))
    return resolve(name, layers)


def decoding(config: Config, usual: str) -> str:
    """How pictures are decoded: as data.decoding says, else as is `usual`; a line says when they
    are not as viewers show them."""
    chosen = config.data.decoding or usual
    for line in decoded_otherwise(chosen):
        log.info("%s", line)
    return chosen


def decoded_otherwise(decoding: str) -> list[str]:
    """A line for whoever reads results of pictures that are not decoded as a viewer shows them."""
    if decoding != PUBLISHED:
        return []
    return [
        "pictures are decoded as the published programs do, not turned by EXIF, 16 bit clipped: "
        f"data.decoding={PUBLISHED}; {UPRIGHT} is how viewers show them"
    ]


def part_of(options: Any) -> str:
    """What of CO-SPY is meant: semantic, artifact, fusion or end2end."""
    return options.branch if options.mode == "branch" else options.mode


def cospy_folder(ckpt: Path, options: Any) -> Path:
    """Where CO-SPY's training puts its weights: below --ckpt, by variant and mode or branch."""
    return ckpt / options.train_dataset / part_of(options)


def train_folder(args: argparse.Namespace, name: str, config: Config) -> Path:
    """Where training puts its results without --output."""
    if name == "cospy":
        return cospy_folder(args.ckpt, config.options)
    objective = config.train.objective
    return Path("runs", name, "train" if objective == DETECTION else objective)


def output(args: argparse.Namespace, usual: Path) -> Path:
    """The folder of a run's results: --output, else the usual one; in it that of --tag."""
    return (args.output or usual) / (args.tag or "")


def _cospy_file(args: argparse.Namespace) -> WeightFile:
    """CO-SPY's weights: those of --weights, the published ones, or those trained below --ckpt."""
    options = resolve_config(args, "cospy", None).options
    part = part_of(options)
    parts = ("semantic", "artifact", "fusion") if part == "fusion" else (part,)
    if args.weights:
        return open_weights(locate(args.weights, "cospy"), "cospy", parts)
    if args.pretrain:
        return open_weights(fetch(f"cospy-{options.train_dataset}"), "cospy", parts)
    folder = cospy_folder(args.ckpt, options)
    trained = folder / BEST
    if not trained.is_file():
        if (folder / PUBLISHED_BEST).is_file():
            return open_weights(folder.parent, "cospy", parts)
        raise WeightsError(
            f"{trained}: not there yet: --phase train makes it; --pretrain takes the published "
            "weights; or name a file or folder by --weights, such as the --output of its training"
        )
    return open_weights(trained, "cospy")


def backbones(args: argparse.Namespace) -> list[Path]:
    """The files of --backbone_weights, each a path or a name of the manifest. Raises WeightsError
    when one is neither."""
    return [locate(str(path), "", "--backbone_weights") for path in args.backbone_weights]


def weight_file(args: argparse.Namespace, name: str) -> WeightFile:
    """The file of `--weights`, else the detector's own.

    Raises:
        WeightsError: not there, or not this detector's.
    """
    if is_onnx(args.weights):
        return open_onnx(locate(args.weights, name), name)
    if name == "cospy":
        return _cospy_file(args)
    return open_weights(locate(args.weights, name), name)


def _check_variant(file: WeightFile, options: Any) -> None:
    """Raises WeightsError when CO-SPY's weights are of another variant or part than is asked for:
    their keys may be the same."""
    for key, was in (file.card.options if file.card else {}).items():
        found = getattr(options, key, was)
        if key in COSPY_CHOICE and found != was and (key != "branch" or options.mode == "branch"):
            raise WeightsError(
                f"{file.path}: holds CO-SPY with {key} {was}; found --{key} {found}: leave it out, "
                "or name other weights"
            )


def load(args: argparse.Namespace, on: Device) -> tuple[Loaded, Config]:
    """The detector with its weights, on the device, and the configuration it has.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    name = detector_name(args)
    if name == ENSEMBLE:
        return _load_ensemble(args, on)
    file = weight_file(args, name)
    config = resolve_config(args, name, file)
    if is_onnx(file.path):
        return load_onnx(name, config.options, file, on, args.compile), config
    if name == "cospy":
        _check_variant(file, config.options)
    if args.pretrain and not args.backbone_weights:
        kind = detectors.load(name)
        for entry in missing_parts(kind, config.options, file.state).values():
            fetch(entry)
    loaded = build(name, config.options, file, backbones(args), PRECISIONS[on.precision])
    loaded.model.optimise()
    loaded.model.to(on.device)
    if args.compile:
        loaded.model.compile()
    return replace(loaded, compiled=args.compile), config


def _member_args(args: argparse.Namespace, name: str, weights: str | None) -> argparse.Namespace:
    """The command line as if it asked for one member: CO-SPY's flags are CO-SPY's, and a --set of
    `member.key` is the member's."""
    own = [text for text in args.set if text.split(".")[0] == name]
    changes: dict[str, Any] = {"detector": name, "weights": weights, "set": own, "config": None}
    if name == "cospy":
        changes["weights"] = weights or f"cospy-{args.train_dataset or 'sd-v1_4'}"
        changes["pretrain"] = args.pretrain and weights is None
        if changes["pretrain"]:
            changes["weights"] = None
    else:
        changes |= {"train_dataset": None, "mode": None, "branch": None, "pretrain": False}
    return argparse.Namespace(**{**vars(args), **changes})


def load_members(args: argparse.Namespace, options: Any, on: Device) -> list[tuple[Loaded, Config]]:
    """The ensemble's members with their weights, each as its own command line would load it."""
    weights = options.weights or [None] * len(options.members)
    pairs = zip(options.members, weights, strict=True)
    return [load(_member_args(args, name, weight), on) for name, weight in pairs]


def _check_members(path: Path, members: Sequence[Loaded], fitted: Any) -> None:
    """Raises WeightsError when an ensemble was fitted with other weights or options."""
    found = [describe_member(member) for member in members]
    if [member.get("sha256") for member in fitted] != [member["sha256"] for member in found]:
        raise WeightsError(
            f"{path}: was fitted with other weights of its members: name those by --set "
            "ensemble.weights=[...], or fit it again"
        )
    for then, now in zip(fitted, found, strict=True):
        for key, value in then["options"].items():
            if now["options"].get(key) != value:
                raise WeightsError(
                    f"{path}: was fitted with {now['detector']}.{key}={value}; found "
                    f"{now['options'].get(key)}: give it by --set, or fit it again"
                )


def _load_ensemble(args: argparse.Namespace, on: Device) -> tuple[Loaded, Config]:
    """The ensemble: fitted, by --weights; else the average of its members' probabilities."""
    kind: Any = detectors.load(ENSEMBLE)
    file = open_weights(locate(args.weights, ENSEMBLE), ENSEMBLE) if args.weights else None
    config = resolve_config(args, ENSEMBLE, file)
    fitted = file is not None and file.card is not None
    if config.options.fusion == "fitted" and not fitted:
        raise ConfigError(
            "ensemble.fusion=fitted: expected --weights of a fitted ensemble; found none: "
            "--phase train --detector ensemble makes them"
        )
    members = [loaded for loaded, _ in load_members(args, config.options, on)]
    model = kind(config.options, [member.model for member in members]).eval()
    model.to(on.device)
    external = {f"{m.name}: {part}": p for m in members for part, p in m.external.items()}
    sums = [member.sha256 for member in members]
    digest = hashlib.sha256("".join(sums).encode()).hexdigest()
    if file is None or file.card is None:
        log.warning(
            "the members' probabilities are averaged as they are; --phase train --detector "
            "ensemble calibrates them on a labelled set"
        )
        path = Path("+".join(member.path.name for member in members))
        return Loaded(model, ENSEMBLE, path, digest, 0.5, None, external, members), config
    _check_members(file.path, members, (file.card.extra or {}).get("members", []))
    check_keys(file.state, model.fusion.state_dict(prefix="fusion."), file.path)
    model.fusion.load_state_dict({k.removeprefix("fusion."): v for k, v in file.state.items()})
    model.fusion.to(on.device)
    card, digest = file.card, hashlib.sha256((digest + file.sha256).encode()).hexdigest()
    threshold, band = card.threshold, card.band
    return Loaded(model, ENSEMBLE, file.path, digest, threshold, band, external, members), config


@dataclass(frozen=True)
class Start:
    """What training goes on from: `file`, the weights, None = afresh; `backbones`, files that hold
    frozen parts, or that a backbone starts from."""

    file: WeightFile | None
    backbones: list[Path]

    def origins(self) -> list[dict[str, str]]:
        """The files, as run.json names them."""
        found = [(file.path, file.sha256) for file in (self.file,) if file]
        found += [(path, sha256(path)) for path in self.backbones]
        return [{"file": str(path), "sha256": digest} for path, digest in found]


def start_file(args: argparse.Namespace, name: str) -> WeightFile | None:
    """The file of --weights that training goes on from; None without it, or when it names folders
    of branches to be fused."""
    one = len(several(args.weights)) == 1 and name != ENSEMBLE
    path = locate(args.weights, name) if one else None
    return open_weights(path, name) if path and (is_run(path) or not path.is_dir()) else None


def start_of(args: argparse.Namespace, name: str, config: Config, file: WeightFile | None) -> Start:
    """What training goes on from: `start_file`, or for CO-SPY's fusion its two trained branches.

    Raises:
        WeightsError: it is not there, or of another variant.
    """
    if name == "cospy" and config.options.mode == "fusion" and file is None:
        trained = cospy_folder(args.ckpt, config.options).parent
        places = [locate(each, name) for each in several(args.weights)] or [trained]
        file = read_folder(places[0], ("semantic", "artifact"), *places[1:])
    elif args.weights and file is None:
        raise WeightsError(f"{args.weights}: expected a weight file of {name}; found a folder")
    if name == "cospy" and file is not None:
        _check_variant(file, config.options)
    return Start(file, backbones(args))


def check_start(name: str, config: Config, start: Start) -> None:
    """Looks whether all is there that `model_to_train` needs, and raises what that does, except for
    weights that are there but do not fit."""
    kind = detectors.load(name)
    state = dict(start.file.state) if start.file else {}
    if kind.external(config.options):
        external_state(kind, config.options, state, start.backbones, None)


def adapted(config: Config, start: Start) -> Config:
    """The configuration of a training with what it starts from: frozen batch norms need statistics
    that a fresh network has not, and so they learn theirs there."""
    if not config.train.freeze_batchnorm or start.backbones or start.file:
        return config
    log.warning(
        "train.freeze_batchnorm: false here, for without --weights and --backbone_weights the "
        "network starts afresh and has no statistics to keep"
    )
    return replace(config, train=replace(config.train, freeze_batchnorm=False))


def model_to_train(name: str, config: Config, start: Start) -> Detector:
    """A detector as training starts it: fresh, from a backbone, or from weights.

    Raises:
        WeightsError: these do not fit.
    """
    kind = detectors.load(name)
    if config.train.objective != DETECTION:
        return kind.objectives()[config.train.objective](config.options)
    model = kind(config.options)
    outside = kind.external(config.options)
    state = dict(start.file.state) if start.file else {}
    # All backbones of CO-SPY are such; a part without one passes over what the others need.
    if outside or name == "cospy":
        state |= external_state(kind, config.options, state, start.backbones, None)[0]
        if start.file is None:
            fresh = tuple(k for k in model.state_dict() if not k.startswith(tuple(outside)))
            load_exact(model, state, Path(name), fresh)
        else:
            # Branches, whose fusion is yet to be learnt.
            fused = getattr(config.options, "mode", None) == "fusion"
            load_exact(model, state, start.file.path, ("fc.",) if fused else ())
        return model
    for path in start.backbones:
        load_backbone(model, path)
    if start.file:
        load_exact(model, state, start.file.path)
    if not (start.file or start.backbones):
        model.start_from_nothing()
    return model
