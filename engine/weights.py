"""Weight files: finding, checking, reading and writing them. Never runs code from a file."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import detectors
from detectors._base import Detector, WeightsError

from .config import ROOT, read_yaml

PRETRAINED = ROOT / "pretrained"
MANIFEST = PRETRAINED / "manifest.yaml"
FORMAT = "synthetic-picture-detectors/1"


@dataclass(frozen=True)
class Card:
    """What a weight file of this project says about itself.

    `threshold`: probability above which a picture counts as synthetic. `band`: (low, high)
    probabilities between which the verdict is "uncertain", or None. `extra`: free notes.
    """

    detector: str
    options: dict[str, Any]
    threshold: float = 0.5
    band: tuple[float, float] | None = None
    extra: dict[str, Any] | None = None


@dataclass(frozen=True)
class WeightFile:
    """A weight file as read: `card` is None when it is a published one."""

    path: Path
    state: dict[str, Tensor]
    card: Card | None
    sha256: str


@dataclass(frozen=True)
class Loaded:
    """A detector ready to score, and where its weights came from."""

    model: Detector
    name: str
    path: Path
    sha256: str
    threshold: float
    band: tuple[float, float] | None


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def replace_file(temporary: Path, final: Path) -> None:
    """Puts a finished file in place so that a crash leaves the old or the new one, never half."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(final)


def save_weights(path: Path, state: dict[str, Tensor], card: Card) -> None:
    """Writes a safetensors file that carries its card."""
    # One entry: safetensors writes several in random order, and equal weights would get other sums.
    metadata = {
        "card": json.dumps(
            {
                "format": FORMAT,
                "detector": card.detector,
                "options": card.options,
                "threshold": card.threshold,
                "band": card.band,
                "extra": card.extra or {},
            }
        ),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary, metadata)
    temporary.chmod(0o644)  # safetensors makes it readable to its owner alone
    replace_file(temporary, path)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Card | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: expected a safetensors file; found {error}") from error
    if "card" not in metadata:
        return state, None
    try:
        values = json.loads(metadata["card"])
        if values["format"] != FORMAT:
            raise WeightsError(f"{path}: is of format {values['format']}; expected {FORMAT}")
        band = values["band"]
        card = Card(
            str(values["detector"]),
            dict(values["options"]),
            float(values["threshold"]),
            (float(band[0]), float(band[1])) if band else None,
            dict(values["extra"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"{path}: its card is broken ({error!r}); fetch it again") from error
    return state, card


def read_pickle(path: Path) -> Any:
    """The content of a torch.save file that holds nothing but tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused: it holds more than tensors and plain values, or is no weight file"
        ) from error
    # torch raises almost any type on damaged files (IndexError, struct.error, AssertionError, ...).
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: expected a weight file; it is damaged: {reason}") from error


def read_weights(path: Path) -> tuple[dict[str, Tensor], Card | None]:
    """State dict of a .safetensors, .pth or .pt file; the card when this project wrote it.

    Raises:
        WeightsError: no such file, damaged, not a state dict, or a pickle that holds other
            objects than tensors and plain values.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weight file; found none")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_pickle(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise WeightsError(
            f"{path}: is a training checkpoint; its weights are best.safetensors beside it"
        )
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"{path}: expected a state dict of tensors; found {type(content).__name__}"
        )
    return content, None


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def check_keys(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Raises WeightsError naming missing, unexpected and wrongly shaped keys, if any."""
    problems = []
    if missing := expected.keys() - state.keys():
        problems.append(f"missing {_some(missing)}")
    if unexpected := state.keys() - expected.keys():
        problems.append(f"unexpected {_some(unexpected)}")
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected.keys() & state.keys()
        if state[k].shape != expected[k].shape
    ]
    if shapes:
        problems.append(f"other shapes: {_some(shapes)}")
    if problems:
        raise WeightsError(f"{path}: not the weights of this detector: {'; '.join(problems)}")


def load_exact(model: Detector, state: dict[str, Tensor], path: Path) -> None:
    """Copies a state dict into the model; every key must be there, and no other."""
    check_keys(state, model.state_dict(), path)
    model.load_state_dict(state)


def load_backbone(model: Detector, path: Path) -> None:
    """Starts a model's backbone from a published file, all of it or an error."""
    state, card = read_weights(path)
    if card is not None:
        raise WeightsError(f"{path}: expected a backbone; found weights of {card.detector}")
    part = type(model).convert_backbone(state)
    own = model.state_dict()
    # Modules of which the file has nothing (SSP's fixed filters) and classifiers stay as they are.
    roots = {key.split(".")[0] for key in part or own}
    outside = own.keys() - part.keys()
    heads = {k for k in outside if k.rsplit(".", 1)[0].endswith(("fc", "classifier"))}
    expected = {k: v for k, v in own.items() if k.split(".")[0] in roots and k not in heads}
    check_keys(part, expected, path)
    model.load_state_dict({**own, **part})


def locate(weights: str | None, detector: str) -> Path:
    """The file that `--weights` means: a path, or a name of pretrained/manifest.yaml.

    Without `weights`, the manifest's entry named like the detector.

    Raises:
        WeightsError: neither a path nor a known name, or a known file that is not there yet.
    """
    if weights and Path(weights).is_file():
        return Path(weights)
    manifest = read_yaml(MANIFEST)
    name = weights or detector
    if name not in manifest:
        raise WeightsError(
            f"--weights: expected a file or one of {', '.join(sorted(manifest))}; found {name!r}"
        )
    entry = manifest[name]
    path = PRETRAINED / entry["file"]
    if not path.is_file():
        raise WeightsError(f"{path}: not there yet: {entry['where']}; or name a file by --weights")
    if entry.get("sha256") and sha256(path) != entry["sha256"]:
        raise WeightsError(f"{path}: its sha256 is not the manifest's: fetch the file again")
    return path


def open_weights(path: Path, detector: str) -> WeightFile:
    """Reads a weight file for a detector.

    Raises:
        WeightsError: see `read_weights`; or the file's card names another detector.
    """
    state, card = read_weights(path)
    if card and card.detector != detector:
        raise WeightsError(
            f"{path}: expected weights of {detector}; found those of {card.detector}"
        )
    return WeightFile(path, state, card, sha256(path))


def build(name: str, options: Any, file: WeightFile) -> Loaded:
    """A detector with a file's weights, in evaluation mode. Raises WeightsError on other keys."""
    kind = detectors.load(name)
    model = kind(options)
    load_exact(model, file.state if file.card else kind.convert(file.state), file.path)
    card = file.card or Card(name, {})
    return Loaded(model.eval(), name, file.path, file.sha256, card.threshold, card.band)
