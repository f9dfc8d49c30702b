"""Weight files as they are on the disk: reading and writing them. Never runs code from a file."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detectors._base import WeightsError

from . import unpickle
from .files import naming, replacing, write_file
from .plain_data import parse_json

FORMAT = "synthetic-picture-detectors/1"
BEST = "best.safetensors"  # what training keeps
PUBLISHED_BEST = "best_model.pth"  # and what CO-SPY's published training does
OPEN_ANEW = 32
Wanted = Callable[[str], bool]


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


def sha256(path: Path) -> str:
    """Hex digest of a file; of one that did not change, taken once."""
    found = path.stat()
    return _digest(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, _size: int, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def card_metadata(card: Card) -> dict[str, str]:
    """What a weight file says of itself, for its metadata; `read_card` reads it."""
    values = {
        "format": FORMAT,
        "detector": card.detector,
        "options": card.options,
        "threshold": card.threshold,
        "band": card.band,
        "extra": card.extra or {},
    }
    # One entry: safetensors writes several in random order, and equal weights would get other sums.
    return {"card": json.dumps(values)}


def save_weights(path: Path, state: dict[str, Tensor], card: Card) -> None:
    """Writes a safetensors file that carries its card. Raises OSError, which names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    # By way of memory: safetensors' own files are, until they are whole, of a random name that a
    # kill leaves there, and a full disk is no OSError.
    write_file(path, save(tensors, card_metadata(card)))


def write_pickle(path: Path, content: Any) -> None:
    """Writes a torch.save file, which is on the disk when this returns. Raises OSError."""
    try:
        with path.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except RuntimeError as error:
        # After a failed write torch fails to end its file, too, which hides what the system said.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def save_published(path: Path, content: dict[str, Any]) -> None:
    """Writes what a detector's `publish` gives as a torch.save file of plain tensors. Raises
    OSError, which names the file."""
    with naming(path), replacing(path) as temporary:
        write_pickle(temporary, content)


def _tensors(path: Path, wanted: Wanted, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The wanted tensors of a safetensors file, in its order.

    They stay in the mapped file, except those that would be copied sooner or later: converted ones,
    and kernels of convolutions, whose layout changes. For these the file is opened anew every few
    tensors, so that what was read of it does not stay in memory beside them.
    """
    with safe_open(path, framework="pt") as file:
        keys = [key for key in file.keys() if wanted(key)]  # noqa: SIM118
        ranks = {key: len(file.get_slice(key).get_shape()) for key in keys}
        copied = [key for key in keys if dtype or ranks[key] == 4]
        state = {key: file.get_tensor(key) for key in keys if not (dtype or ranks[key] == 4)}
    for first in range(0, len(copied), OPEN_ANEW):
        with safe_open(path, framework="pt") as file:
            for key in copied[first : first + OPEN_ANEW]:
                value = file.get_tensor(key)
                state[key] = cast(value, dtype) if dtype else value.clone()
    return {key: state[key] for key in keys}


def cast(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """As `dtype` where it is a floating point number and `dtype` is given."""
    return value.to(dtype) if dtype and value.dtype.is_floating_point else value


def _everything(_: str) -> bool:
    return True


def _read_safetensors(
    path: Path, wanted: Wanted, dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], Card | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = _tensors(path, wanted, dtype)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: expected a safetensors file; found {error}") from error
    return state, read_card(path, metadata) if "card" in metadata else None


def read_card(path: Path, metadata: Mapping[str, str]) -> Card:
    """The card in a weight file's metadata. Raises WeightsError when it is broken."""
    try:
        values = parse_json(metadata["card"])
        if values["format"] != FORMAT:
            raise WeightsError(f"{path}: is of format {values['format']}; expected {FORMAT}")
        threshold, given = float(values["threshold"]), values["band"]
        band = (float(given[0]), float(given[1])) if given else None
        low, high = band or (0.0, 1.0)
        if not (0 <= threshold <= 1 and 0 <= low <= high <= 1):
            raise ValueError(f"threshold {threshold} and band {band} are no probabilities")
        name, options = str(values["detector"]), dict(values["options"])
        return Card(name, options, threshold, band, dict(values["extra"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"{path}: its card is broken ({error!r}); fetch it again") from error


def read_pickle(path: Path) -> Any:
    """The content of a torch.save file that holds nothing but tensors and plain values; mapped
    into memory where the file's format allows it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of programs, which are refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused: it holds more than tensors and plain values, or is no weight file"
        ) from error
    # torch raises almost any type on damaged files (IndexError, struct.error, AssertionError, ...).
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: expected a weight file; it is damaged: {reason}") from error


def _flat(content: Any, path: Path) -> dict[str, Tensor]:
    """A state dict, or several by name, whose keys then start with the name."""
    if isinstance(content, dict):
        if all(isinstance(part, dict) for part in content.values()):
            content = {f"{n}.{k}": v for n, part in content.items() for k, v in part.items()}
        if all(isinstance(v, Tensor) for v in content.values()):
            return content
    raise WeightsError(f"{path}: expected a state dict of tensors; found {type(content).__name__}")


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = read_pickle(path)
    except WeightsError:
        # Published checkpoints hold optimizers and configurations as well; their objects stay out.
        if not is_zipfile(path):
            raise
        return unpickle.published_state(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise WeightsError(f"{path}: is a training checkpoint; its weights are {BEST} beside it")
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    return _flat(content, path)


def read_weights(
    path: Path, wanted: Wanted = _everything, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor], Card | None]:
    """State dict of a .safetensors, .pth or .pt file; the card when this project wrote it.

    Args:
        path: the file; a checkpoint's weights may stand below `model`, or be several by name.
        wanted: which keys to read.
        dtype: what floating point numbers are converted to as they are read; None = as they are.

    Raises:
        WeightsError: no such file, damaged, not a state dict, or a pickle that would run code.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weight file; found none")
    if other := unpickle.is_other_file(path):
        raise WeightsError(f"{path}: expected a weight file; found {other}")
    if path.suffix.lower() == ".onnx":
        raise WeightsError(
            f"{path}: expected .safetensors, .pth or .pt; found an ONNX file, which serves --phase "
            "test and eval alone: name the weights that it was made of"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path, wanted, dtype)
    return {k: cast(v, dtype) for k, v in _read_torch(path).items() if wanted(k)}, None
