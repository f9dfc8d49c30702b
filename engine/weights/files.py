"""Weight files on the disk, read and written with their cards.

Training and the scripts write them, `loading.py` and `fetch.py` read them. A file of another
project is read through `original.py`; code from a file never runs.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detectors._errors import WeightsError
from detectors._packed import is_packed

from ..runtime.files import is_other_file, naming, replacing, write_file
from .cards import Card, arrays_digest, card_metadata, check_sum, read_card
from .original import bare_prefix, to_safetensors

OPEN_ANEW = 32
EVERYTHING = ("",)
UNWRAPPED = "%s: unwrapped %s"
log = logging.getLogger(__name__)


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """A hash of a state dict: of its keys and their values, whatever their order."""
    tensors = ((key, value.detach().cpu().contiguous()) for key, value in sorted(state.items()))
    # By bytes, for numpy lacks bfloat16.
    return arrays_digest((key, t.view(-1).view(torch.uint8).numpy()) for key, t in tensors)


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
            keys = list(file.keys())
        wrapper = bare_prefix(keys)
        if is_packed(keys):  # no weights yet: rounding waits for what is made of them
            dtype = None
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
