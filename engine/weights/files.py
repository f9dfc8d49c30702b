"""Weight files on the disk, read and written with their cards.

Training and the scripts write them, `loading.py` and `fetch.py` read them. A file of another
project is read through `original.py`; code from a file never runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detectors._base import WeightsError

from ..plain_data import parse_json
from ..runtime.files import is_other_file, naming, replacing, write_file
from ..runtime.text import reason
from .original import FORMAT, bare_prefix, to_safetensors

OPEN_ANEW = 32
EVERYTHING = ("",)
SUM = "sum"  # of a card: what notices a flipped bit
UNWRAPPED = "%s: unwrapped %s"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Card:
    """The card of a weight file of this project: what it is of and how its scores are read.

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
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """A hash of a state dict: of its keys and their values, whatever their order."""
    digest = hashlib.sha256()  # which processors have instructions for
    for key, value in sorted(state.items()):
        content = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(key.encode() + b"\0")
        digest.update(content.numpy().data)
    return digest.hexdigest()


def _sealed(values: Mapping[str, Any], content: str) -> str:
    """A hash of a card's values and of the content that they are about, itself given as a hash."""
    known = {key: value for key, value in values.items() if key != SUM}
    return hashlib.sha256((content + json.dumps(known)).encode()).hexdigest()


def card_metadata(card: Card, content: str) -> dict[str, str]:
    """Metadata of a weight file: its card, which `read_card` reads, under a sum that `check_sum`
    compares with the `content`, a hash of all else in the file."""
    values = {
        "format": FORMAT,
        "detector": card.detector,
        "options": card.options,
        "threshold": card.threshold,
        "band": card.band,
        "extra": card.extra or {},
    }
    values[SUM] = _sealed(values, content)
    # One entry: safetensors writes several in random order, and equal weights would get other sums.
    return {"card": json.dumps(values)}


def save_weights(path: Path, state: dict[str, Tensor], card: Card) -> None:
    """Writes a safetensors file that carries its card. Raises OSError, which names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    # By way of memory: safetensors' own files are, until they are whole, of a random name that a
    # kill leaves there, and a full disk is no OSError.
    write_file(path, save(tensors, card_metadata(card, tensors_digest(tensors))))


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


def save_original(path: Path, content: dict[str, Any]) -> None:
    """Writes a file in the layout of the original program, which a detector's `publish` gives, by
    torch.save. Raises OSError, which names the file."""
    with naming(path), replacing(path) as temporary:
        write_pickle(temporary, content)


def _tensors(path: Path, prefixes: tuple[str, ...], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Tensors of a safetensors file whose keys start with a prefix, in the file's order.

    They stay in the mapped file, except those that would be copied sooner or later: converted ones,
    and kernels of convolutions, whose layout changes. For these the file is opened anew every few
    tensors, so that what was read of it does not stay in memory beside them.
    """
    with safe_open(path, framework="pt") as file:
        keys = [key for key in file.keys() if key.startswith(prefixes)]  # noqa: SIM118
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
    """The tensor as `dtype`, if that is given and it holds floating point numbers."""
    return value.to(dtype) if dtype and value.dtype.is_floating_point else value


def _read_safetensors(
    path: Path, prefixes: tuple[str, ...], dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], Card | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            wrapper = bare_prefix(list(file.keys()))
        wanted = tuple(wrapper + prefix for prefix in prefixes)
        state = _tensors(path, wanted, dtype)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: expected a safetensors file; found {error}") from error
    if "card" not in metadata:
        if wrapper:
            log.info(UNWRAPPED, path, wrapper)
        return {key.removeprefix(wrapper): value for key, value in state.items()}, None
    card = read_card(path, metadata)
    if prefixes == EVERYTHING and dtype is None:  # the sum is of all tensors, as they are
        check_sum(path, metadata, tensors_digest(state))
    return state, card


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
        text = f"{path}: its card is broken ({reason(error)}); fetch it again"
        raise WeightsError(text) from error


def check_sum(path: Path, metadata: Mapping[str, str], content: str) -> None:
    """Raises WeightsError when a file's card, one that `read_card` takes, or the `content` that it
    was written for has changed. Files of earlier versions have no sum."""
    values = json.loads(metadata["card"])
    if SUM in values and values[SUM] != _sealed(values, content):
        raise WeightsError(
            f"{path}: expected the sum that its card names; found another: the file is damaged: "
            "get it again"
        )


def _read_torch(
    path: Path, prefixes: tuple[str, ...], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        safe = Path(folder, "weights.safetensors")
        if wrappers := to_safetensors(path, safe, prefixes):
            log.info(UNWRAPPED, path, ", ".join(wrappers))
        try:
            return _tensors(safe, prefixes, dtype)  # mapped: they outlive the file's name
        except SafetensorError as error:
            raise WeightsError(f"{path}: expected a state dict of tensors; {error}") from error


def read_weights(
    path: Path, prefixes: tuple[str, ...] = EVERYTHING, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor], Card | None]:
    """State dict of a .safetensors, .pth or .pt file; the card when this project wrote it.

    Args:
        path: the file; a checkpoint's weights may be wrapped (see `original.flat`), or several by
            name.
        prefixes: beginnings of the keys to read.
        dtype: what floating point numbers are converted to as they are read; None = as they are.

    Raises:
        WeightsError: no such file, damaged, not a state dict, or a pickle that names more than
            tensors and plain values or asks for more memory or time than its size explains.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weight file; found none")
    if other := is_other_file(path):
        raise WeightsError(f"{path}: expected a weight file; found {other}")
    if path.suffix.lower() == ".onnx":
        raise WeightsError(
            f"{path}: expected .safetensors, .pth or .pt; found an ONNX file, which serves --phase "
            "test and eval alone: name the weights that it was made of"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path, prefixes, dtype)
    return _read_torch(path, prefixes, dtype), None
