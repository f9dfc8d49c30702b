"""Reads torch.save files that hold more than tensors, without running anything they name.

Their archive is a zip with a pickle, which `_inert` follows, and the values of the tensors.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectors._base import WeightsError

from ._hub import is_other_file
from ._inert import STORAGES, DamagedError, Machine, RefusedError, Storage, whole_numbers, wrong

CHUNK = 1 << 20


def _what_else(path: Path) -> str:
    """What a file is that is no torch.save file of the zip format."""
    if other := is_other_file(path):
        return other
    with path.open("rb") as stream:
        head = stream.read(2)
    if head == b"PK":
        return "the beginning of one, the rest is missing: get it again"
    if head.startswith(b"\x80"):
        return "a pickle of an older form: load and save it with a current torch where you trust it"
    return "something else"


class _Archive:
    """An open torch.save file. Tensors get their values by `fill`, so that nobody reads those of
    an optimizer to get at a network's."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        self.storages: dict[str, torch.UntypedStorage] = {}
        try:
            self.root = self._check(path.stat().st_size)
        except BaseException:
            self.zip.close()
            raise

    def _check(self, size: int) -> str:
        """The folder within the archive that everything is in."""
        names = self.zip.namelist()
        if len(set(names)) != len(names) or sum(i.file_size for i in self.zip.infolist()) > size:
            raise DamagedError("it has entries that overlap")
        roots = [n.removesuffix("/data.pkl") for n in names if re.fullmatch("[^/]+/data.pkl", n)]
        if len(roots) != 1:
            raise DamagedError("it is a zip, but none of torch.save: unpack it, name what is in it")
        if any(n.startswith((f"{roots[0]}/code/", f"{roots[0]}/constants.pkl")) for n in names):
            raise RefusedError(
                "it is TorchScript, a program: bring a file of tensors instead (of OpenAI's "
                "ViT-L-14.pt the entry clip-vit-l-14 of pretrained/manifest.yaml)"
            )
        order = f"{roots[0]}/byteorder"
        if order in names and self.zip.read(self._entry(order)) != sys.byteorder.encode():
            raise RefusedError("its numbers are in the byte order of another kind of machine")
        return roots[0]

    def _entry(self, name: str) -> zipfile.ZipInfo:
        info = self.zip.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise DamagedError(f"its entry {name} is compressed or encrypted")
        return info

    def content(self) -> Any:
        """What was saved; the values of its tensors are not read yet."""
        return Machine(self._storage).run(self.zip.read(self._entry(f"{self.root}/data.pkl")))

    def _storage(self, identity: Any) -> Storage:
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise wrong("a storage of another form")
        _, kind, key, _, count = identity
        module = getattr(kind, "module", None)
        dtype = STORAGES.get(kind.name) if module in ("torch", "torch.storage") else None
        if dtype is None:
            raise RefusedError(f"it has a storage of type {kind}")
        if type(key) is not str:
            raise wrong("a storage without name")
        size = self._entry(f"{self.root}/data/{key}").file_size
        if whole_numbers((count,))[0] * dtype.itemsize > size:
            raise wrong("a storage is shorter than it should be")
        if key not in self.storages:
            self.storages[key] = torch.UntypedStorage(size, device="cpu")
        return Storage(self.storages[key], dtype)

    def fill(self, tensors: Iterable[Tensor] | None = None) -> None:
        """Reads the values of these tensors, or of all."""
        wanted = None if tensors is None else {t.untyped_storage().data_ptr() for t in tensors}
        for key, storage in self.storages.items():
            if storage.nbytes() and (wanted is None or storage.data_ptr() in wanted):
                self._read(self._entry(f"{self.root}/data/{key}"), storage)

    def _read(self, info: zipfile.ZipInfo, storage: torch.UntypedStorage) -> None:
        target = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).numpy()
        position = 0
        with self.zip.open(info) as stream:  # which compares the checksum at the end
            while position < len(target):
                block = stream.read(CHUNK)
                if not block:
                    raise EOFError
                target[position : position + len(block)] = np.frombuffer(block, np.uint8)
                position += len(block)

    def __enter__(self) -> _Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.zip.close()


def _line(error: Exception) -> str:
    """An error's text as a short line; names in it come from a file, and may be anything."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text[:300])


def _reading(path: Path, use: Callable[[_Archive], Any]) -> Any:
    """`use` of the opened file; everything that goes wrong becomes a WeightsError of one line."""
    if not path.is_file():
        raise WeightsError(f"{path}: expected a weight file; found none")
    try:
        if not zipfile.is_zipfile(path):
            raise DamagedError(f"expected a zip of torch.save; found {_what_else(path)}")
        with _Archive(path) as archive:
            return use(archive)
    except WeightsError:
        raise
    except RefusedError as error:
        raise WeightsError(
            f"{path}: refused: {_line(error)}; expected tensors and plain values"
        ) from error
    except DamagedError as error:
        raise WeightsError(f"{path}: {_line(error)}") from error
    # Damaged zips and pickles raise almost any type (KeyError, struct.error, RecursionError, ...).
    except Exception as error:
        raise WeightsError(
            f"{path}: expected a weight file; it is damaged: {_line(error)}"
        ) from error


def read_inert(path: Path) -> Any:
    """Everything that a torch.save file of the zip format holds, on the CPU.

    Tensors, containers, plain values and numpy scalars are as they were saved; objects of other
    classes are a `StandIn`. Every value's checksum is compared.

    Raises:
        WeightsError: no such file, damaged, of another format (TorchScript, an older pickle), or a
            pickle that calls anything else.
    """

    def everything(archive: _Archive) -> Any:
        content = archive.content()
        archive.fill()
        return content

    return _reading(path, everything)


def _state(path: Path, content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path}: expected a state dict; found {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: expected a state dict of tensors; found {type(value).__name__} at "
                f"{key!r:.80}"
            )
    return dict(content)


def _flat(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, dict) and content:
        if isinstance(content.get("model"), dict):
            return _state(path, content["model"])
        if all(isinstance(part, dict) for part in content.values()):
            parts = {str(name): _state(path, part) for name, part in content.items()}
            return {f"{name}.{key}": v for name, part in parts.items() for key, v in part.items()}
    return _state(path, content)


def published_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a published file: the file's own, that under `model`, or several by name,
    whose keys then start with the name and a dot.

    Raises:
        WeightsError: as `read_inert`; or there is none of these.
    """

    def published(archive: _Archive) -> dict[str, Tensor]:
        state = _flat(path, archive.content())
        archive.fill(state.values())
        return state

    return _reading(path, published)
