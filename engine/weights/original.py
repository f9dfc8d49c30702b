"""Original files: torch.save files of other projects, turned into safetensors by a confined child.

`files.py` calls `to_safetensors`, and reads what it wrote. torch's own reader of tensors follows
the pickle, with a short list of classes that published checkpoints name; nothing else is called,
and no pickle of a stranger is read in this process.
"""

from __future__ import annotations

import pickle
import re
import reprlib
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from detectors._errors import WeightsError

from ..runtime.confined import ConfinedError, Limits, confined
from ..runtime.text import reason
from .cards import FORMAT

ALLOWANCE = 192 << 20  # bytes of memory beyond what a file's own tensors need
SECONDS = 20  # of the processor, beyond those that a file's size accounts for
BYTES_PER_SECOND = 20 << 20
CHUNK = 1 << 20
WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile

SCALAR = np.float64(0).__reduce__()[0]  # numpy's versions have it in different modules
# What published checkpoints hold beside tensors: SPAI's configuration, and numbers of numpy.
ALLOWED: list[Any] = [
    (OrderedDict, "yacs.config.CfgNode"),
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIqQefd"),
]


def bare_prefix(keys: list[str]) -> str:
    """The prefix that wrappers of a network put before all of its keys; often empty."""
    taken = ""
    while keys and (
        more := next((p for p in PREFIXES if all(k.startswith(taken + p) for k in keys)), "")
    ):
        taken += more
    return taken


def _kind(value: Any) -> str:
    sparse = isinstance(value, Tensor) and value.layout != torch.strided
    return f"a tensor of layout {value.layout}" if sparse else type(value).__name__


def _state(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict without the prefixes of wrappers, and those prefixes."""
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"expected a state dict of tensors; found {type(content).__name__}")
    for key, value in content.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided
        if not (isinstance(key, str) and plain):
            raise WeightsError(
                f"expected a state dict of tensors; found {_kind(value)} at "
                f"{reprlib.repr(key)}"  # shortened: a key may be a nest of tuples
            )
    prefix = bare_prefix(list(content))
    return {k.removeprefix(prefix): v for k, v in content.items()}, [prefix] if prefix else []


def flat(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in what a file holds, and the wrappers around it, outermost first: itself,
    that under one of WRAPPERS, or several by name, whose keys then start with the name and a dot.

    Raises:
        WeightsError: there is none of these, or it is a checkpoint of this project's training.
    """
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise WeightsError("is a training checkpoint; its weights are best.safetensors beside it")
    wrappers: list[str] = []
    while isinstance(content, dict):
        name = next((name for name in WRAPPERS if isinstance(content.get(name), dict)), None)
        if name is None:
            break
        wrappers.append(name)
        content = content[name]
    if isinstance(content, dict) and content and all(isinstance(v, dict) for v in content.values()):
        parts = {str(name): _state(part) for name, part in content.items()}
        state = {f"{n}.{key}": v for n, (part, _) in parts.items() for key, v in part.items()}
        return state, wrappers + sorted({prefix for _, taken in parts.values() for prefix in taken})
    state, taken = _state(content)
    return state, wrappers + taken


def separate(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with memory of its own, as safetensors wants."""
    seen: set[int] = set()
    own = {}
    for key, value in state.items():
        tensor = value.detach().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        own[key] = tensor
    return own


def _check_sums(path: Path) -> None:
    """Comparison of every checksum of a torch.save file of the zip format; none of another.

    Raises:
        WeightsError: damaged, compressed, a program, or of another kind of machine.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise WeightsError(
                    "expected a weight file; the rest of it is missing: get it again"
                )
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = {entry.filename.partition("/")[2]: entry for entry in entries}
        if "data.pkl" not in names:
            raise WeightsError("it is a zip, but none of torch.save: unpack it, name what is in it")
        if "constants.pkl" in names:
            raise WeightsError(
                "refused: it is TorchScript, a program: bring a file of tensors instead (of "
                "OpenAI's ViT-L-14.pt the entry clip-vit-l-14 of pretrained/manifest.yaml)"
            )
        # Before anything is read: what is stored as it is cannot grow.
        if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
            raise WeightsError("refused: it is compressed or encrypted; torch.save does neither")
        if len(names) != len(entries) or sum(e.file_size for e in entries) > path.stat().st_size:
            raise WeightsError("it is damaged: it has entries that overlap")
        for entry in entries:
            with archive.open(entry) as stream:  # which compares the checksum at its end
                while stream.read(CHUNK):
                    pass
        order = names.get("byteorder")
        if order and archive.read(order) != sys.byteorder.encode():
            raise WeightsError("refused: its numbers are in another machine's order of bytes")


def _reason(error: pickle.UnpicklingError) -> str:
    """The name that torch refused, out of its advice, which tells people to trust the file."""
    text = str(error)
    if named := re.search(r"GLOBAL (\S{1,200})", text):
        return f"it names {named[1]}"
    error_line = re.search(r"WeightsUnpickler error: ([^\n]+)", text)
    return error_line[1][:200] if error_line else "it is no weight file"


def load(path: Path) -> Any:
    """The content of a torch.save file that holds nothing but tensors, plain values and what is
    ALLOWED, its tensors mapped where the format allows it.

    Raises:
        WeightsError: damaged, or it names anything else.
    """
    try:
        _check_sums(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
            warnings.simplefilter("ignore")  # about programs, which are refused
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (WeightsError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"refused: {_reason(error)}; expected tensors and plain values"
        ) from error
    # torch raises almost any type on damaged files (IndexError, struct.error, AssertionError, ...).
    except Exception as error:
        raise WeightsError(f"expected a weight file; it is damaged: {reason(error)}") from error


def _rewrite(path: Path, target: Path, prefixes: tuple[str, ...]) -> list[str]:
    """The child's part of `to_safetensors`."""
    torch.set_num_threads(1)  # those of the parent did not come along with the fork
    state, wrappers = flat(load(path))
    wanted = {key: value for key, value in state.items() if key.startswith(prefixes)}
    save_file(separate(wanted), target)
    return wrappers


def _try(path: Path) -> None:
    torch.set_num_threads(1)
    load(path)


def _limits(path: Path) -> Limits:
    """By the file's size: it is mapped, and its tensors may be copied once."""
    size = path.stat().st_size
    return Limits(2 * size + ALLOWANCE, SECONDS + size // BYTES_PER_SECOND, 2 * size + ALLOWANCE)


def to_safetensors(path: Path, target: Path, prefixes: tuple[str, ...] = ("",)) -> list[str]:
    """Writes the tensors of a torch.save file whose keys start with one of the prefixes.

    Args:
        path: the torch.save file.
        target: the safetensors file to write.
        prefixes: beginnings of the keys to keep.

    Returns:
        Wrappers around them, outermost first: names of WRAPPERS, and prefixes of keys.

    Raises:
        WeightsError: damaged, no state dict, a pickle that names what it should not, or one that
            asks for more memory or time than a file of its size may.
    """
    try:
        wrappers: list[str] = confined(_rewrite, path, target, prefixes, limits=_limits(path))
    except ConfinedError as error:
        raise WeightsError(f"{path}: {error}") from error
    return wrappers


def check(path: Path) -> None:
    """Reads a torch.save file in a child process, so that the caller may `load` it. Raises
    WeightsError as `to_safetensors` does."""
    try:
        confined(_try, path, limits=_limits(path))
    except ConfinedError as error:
        raise WeightsError(f"{path}: {error}") from error
