"""A detector's weights as they are chosen and described: where they lie, and what was loaded.

What needs no tensors, and so no torch: a picture can be scored without it. `loading.py` makes a
PyTorch detector of them, `graph.py` one that onnxruntime computes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from detectors._errors import WeightsError
from detectors._options import describe_options

from ..config import ConfigError
from . import hub, manifest
from .cards import Card, read_card, sha256
from .manifest import BEST, WEIGHTS
from .onnx_graph import is_onnx, read_metadata


@dataclass(frozen=True)
class WeightFile:
    """A weight file as read: its tensors, or arrays, under the detector's own keys and with its
    sign, and its card, None when it has none."""

    path: Path
    state: dict[str, Any]
    card: Card | None
    sha256: str


@dataclass(frozen=True)
class Loaded:
    """A detector ready to score, and where its weights came from. `model`: a Detector, or a
    GraphDetector."""

    model: Any
    name: str
    path: Path
    sha256: str
    threshold: float
    band: tuple[float, float] | None
    external: dict[str, Path] = field(default_factory=dict)  # manifest entry -> its file
    members: list[Loaded] = field(default_factory=list)  # of an ensemble
    compiled: bool = False
    trained_on: tuple[str, ...] = ()  # generators that it learnt from, where the files say so
    until: str = ""  # the --until of its training, where it had one


def describe_member(member: Loaded) -> dict[str, Any]:
    """Description of a member in a fitted ensemble and in run.json: plain values of JSON."""
    described = {
        "detector": member.name,
        "options": describe_options(member.model.options),
        "weights": member.path.name,
        "sha256": member.sha256,
    }
    return json.loads(json.dumps(described))


def locate(weights: str | None, detector: str, flag: str = "--weights") -> Path:
    """The file or folder that `--weights`, or another flag, means: a path, a name of the manifest,
    or a repository of the hub, which is brought.

    Without `weights`, the manifest's entry named like the detector.

    Raises:
        WeightsError: neither a path nor a known name, or a known file that is not there yet.
    """
    try:
        if brought := manifest.hub_of(weights):
            return hub.bring(brought, str(weights))
        path = manifest.locate(weights, detector, flag)
    except ConfigError as error:
        raise WeightsError(str(error)) from error
    # Also by its path: the file that ships is named so as often as not.
    entry = manifest.entry_at(path)
    if entry is None and not (weights and Path(weights).exists()):
        entry = manifest.entry_named(weights or detector)
    sums = entry.sums if entry else [None]
    if path.is_file() and None not in sums and sha256(path) not in sums:
        raise WeightsError(f"{path}: its sha256 is not the manifest's: fetch the file again")
    return path


def not_there(entry: str) -> WeightsError:
    """The error that a frozen part, an entry of the manifest, is not on this machine."""
    how = manifest.how_to_get(manifest.entry_named(entry))
    return WeightsError(
        f"{entry}, which these weights build on, is not there yet: {how}; or name its file by "
        "--backbone_weights"
    )


def detector_of(weights: str) -> str | None:
    """The detector that the card of weights, as --weights names them, is of; None where they have
    no card, or are not there. Raises WeightsError as `locate` and `card_of` do."""
    card = card_of(locate(weights, "") if manifest.hub_of(weights) else Path(weights))
    return card.detector if card else None


def file_of(path: Path) -> Path:
    """The one weight file of a folder where a training kept its best or scripts/publish.py wrote;
    any other path as it is."""
    files = (path / name for name in (BEST, WEIGHTS))
    return next((file for file in files if file.is_file()), path)


def card_of(path: Path) -> Card | None:
    """The card of a weight file, of a folder with one, or of an ONNX file; None for one that has
    none, or cannot be read.

    Raises:
        WeightsError: the card is broken.
    """
    path = file_of(path)
    try:
        if is_onnx(path):
            metadata = read_metadata(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
        else:
            return None
    # Whoever reads the whole file says what is wrong with it.
    except (WeightsError, SafetensorError, OSError):
        return None
    return hub.with_config(path, read_card(path, metadata) if "card" in metadata else None)
