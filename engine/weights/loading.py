"""A detector's weights: their files located, checked to fit, and loaded.

Phases and scripts come here through `opening.py`. Every key of a file must be one of the
network's and the other way round; nothing is loaded in part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import detectors
from detectors._base import Detector
from detectors._errors import WeightsError

from ..config import resolve
from . import manifest
from .cards import Card, sha256
from .files import cast, read_weights
from .hub import with_config
from .loaded import Loaded, WeightFile, file_of, not_there
from .manifest import BEST, PUBLISHED_BEST, WEIGHTS

HEAD = re.compile(r"(fc|classifier|head)\.[^.]+$")  # keys of a last layer


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
    kinds = [
        f"{k} {state[k].dtype}, {state[k].layout}"
        for k in expected.keys() & state.keys()
        if state[k].is_floating_point() != expected[k].is_floating_point()
        or state[k].layout != torch.strided
    ]
    if kinds:
        problems.append(f"other kinds of numbers: {_some(kinds)}")
    if problems:
        raise WeightsError(f"{path}: not the weights of this detector: {'; '.join(problems)}")


def load_exact(
    model: Detector, state: dict[str, Tensor], path: Path, optional: tuple[str, ...] = ()
) -> None:
    """Copies a state dict into the model; every key must be there, and no other. What begins with
    one of `optional` may be missing, and stays as it is."""
    own = model.state_dict()
    expected = {k: v for k, v in own.items() if k in state or not k.startswith(optional)}
    check_keys(state, expected, path)
    model.load_state_dict({**own, **state})


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
    heads = {key for key in outside if HEAD.search(key)}
    expected = {k: v for k, v in own.items() if k.split(".")[0] in roots and k not in heads}
    check_keys(part, expected, path)
    model.load_state_dict({**own, **part})


def _part_file(kind: type[Detector], folder: Path, part: str) -> Path | None:
    """The file of a part below a folder: a published one, or what training left there, ours or the
    published program's."""
    names = (*kind.part_files(part), f"{part}/{BEST}", f"{part}/{PUBLISHED_BEST}")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _own(kind: type[Detector], state: dict[str, Tensor], card: Card | None) -> dict[str, Tensor]:
    """A file's tensors with the detector's own keys and sign. A card says that they are; without
    one, which it may have lost, their keys tell."""
    return kind.renamed(state) if card else kind.convert(state)


def _trained_part(kind: type[Detector], name: str, place: Path, part: str) -> Path | None:
    """The weights that the training of a part left in a folder, or such a file, as their card says;
    None where they are of something else."""
    path = place / BEST if place.is_dir() else place
    card = read_weights(path)[1] if path.is_file() else None
    if card is None or card.detector != name or not card.options:
        return None
    options = resolve(name, [(str(path), {name: card.options})]).options
    return path if kind.weight_parts(options) == (part,) else None


def read_folder(name: str, folder: Path, parts: Sequence[str], *others: Path) -> WeightFile:
    """The parts of a detector as one state dict, each converted, out of a folder of several parts,
    or what the trainings of single ones left.

    Raises:
        WeightsError: a part is missing, or two are of other variants.
    """
    state: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    variants: dict[str, Path] = {}  # which the cards name
    kind = detectors.load(name)
    places = (folder, *others)
    for part in parts:
        paths = (
            _part_file(kind, place, part) or _trained_part(kind, name, place, part)
            for place in places
        )
        path = next((path for path in paths if path), None)
        if path is None:
            published = ", ".join([*kind.part_files(part)[:1], f"{part}/{BEST}"])
            raise WeightsError(
                f"{', '.join(map(str, places))}: expected {published} or {part}/{PUBLISHED_BEST} "
                "in it; found none of them: name the --output of each part's training by --weights "
                "FOLDER,FOLDER"
            )
        tensors, card = read_weights(path)
        if card and card.detector != name:
            raise WeightsError(
                f"{path}: expected weights of {name}; found those of {card.detector}"
            )
        if card and kind.CHOICE[0] in card.options:
            variants.setdefault(str(card.options[kind.CHOICE[0]]), path)
        state |= _own(kind, tensors, card)
        digest.update(bytes.fromhex(sha256(path)))
    if len(variants) > 1:
        raise WeightsError(f"{folder}: expected one variant; found {_some(variants)}")
    options = {kind.CHOICE[0]: next(iter(variants))} if variants else {}
    return WeightFile(folder, state, Card(name, options), digest.hexdigest())


def open_weights(path: Path, detector: str, parts: Sequence[str] = ()) -> WeightFile:
    """A weight file of a detector, of a folder where it was trained, or of one with its `parts`.

    Raises:
        WeightsError: see `read_weights`; or the file's card names another detector.
    """
    path = file_of(path)
    if path.is_dir():
        if not parts:
            raise WeightsError(
                f"{path}: expected a weight file of {detector}, or a folder with {BEST}, which "
                f"training leaves, or {WEIGHTS}; found a folder without"
            )
        return read_folder(detector, path, parts)
    state, card = read_weights(path)
    card = with_config(path, card)
    if card and card.detector != detector:
        raise WeightsError(
            f"{path}: expected weights of {detector}; found those of {card.detector}"
        )
    return WeightFile(path, _own(detectors.load(detector), state, card), card, sha256(path))


def _read_backbone(
    kind: type[Detector], path: Path, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Tensors of a file of frozen parts, under the detector's keys."""
    state, _ = read_weights(path, kind.BACKBONE_KEYS, dtype)
    return {key: cast(value, dtype) for key, value in kind.convert_backbone(state).items()}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.startswith(prefix)}


def missing_parts(
    kind: type[Detector], options: Any, state: Mapping[str, Tensor]
) -> dict[str, str]:
    """The frozen parts that a state dict leaves out: prefix -> name of the manifest's entry."""
    parts = kind.external(options).items()
    return {p: name for p, name in parts if not any(key.startswith(p) for key in state)}


def external_state(
    kind: type[Detector],
    options: Any,
    state: Mapping[str, Tensor],
    backbones: Sequence[Path],
    dtype: torch.dtype | None,
) -> tuple[dict[str, Tensor], dict[str, Path]]:
    """Frozen parts of a detector that `state` leaves out, from the user's files or from where the
    manifest's entries are on this machine.

    Args:
        kind, options: of the detector.
        state: its weights, under its own keys.
        backbones: the user's files, asked first.
        dtype: of the parts; None = as the files have them.

    Returns:
        State dict of those parts, and the file that each came from, by the entry's name.

    Raises:
        WeightsError: a part is nowhere; the message says how to get it.
    """
    parts: dict[str, Tensor] = {}
    origins: dict[str, Path] = {}
    missing = missing_parts(kind, options, state)
    for path in backbones:
        held = _read_backbone(kind, path, dtype)
        for prefix, name in missing.items():
            if name not in origins and (part := _below(held, prefix)):
                parts |= part
                origins[name] = path
    for prefix, name in missing.items():
        if name not in origins and (fetched := manifest.find(name)) is not None:
            parts |= _below(_read_backbone(kind, fetched, dtype), prefix)
            origins[name] = fetched
        if not _below(parts, prefix):
            raise not_there(name)
    return parts, origins


def build(
    name: str,
    options: Any,
    file: WeightFile,
    backbones: Sequence[Path] = (),
    dtype: torch.dtype | None = None,
) -> Loaded:
    """A detector with a file's weights, in evaluation mode, without initialising it first.

    Args:
        name, options: of the detector.
        file: its weights.
        backbones: local files for the frozen parts that the weights leave out.
        dtype: of those frozen parts; None = as the files have them.

    Raises:
        WeightsError: other keys than the detector's, or a frozen part is missing.
    """
    kind = detectors.load(name)
    with torch.device("meta"):
        model = kind(options)
    state = dict(file.state)
    external, origins = external_state(kind, options, state, backbones, dtype)
    frozen = tuple(kind.external(options))
    for key, value in state.items():
        small = dtype if dtype and frozen and key.startswith(frozen) else torch.float32
        state[key] = cast(value, small)
    state |= external
    check_keys(state, model.state_dict(), file.path)
    model.load_state_dict(state, assign=True)
    model.to(memory_format=torch.channels_last)
    card = file.card or Card(name, {})
    learnt = (card.extra or {}).get("trained_on") or manifest.trained_on(file.path)
    return Loaded(
        model.eval(), name, file.path, file.sha256, card.threshold, card.band, origins,
        trained_on=tuple(learnt), until=card.until,
    )  # fmt: skip
