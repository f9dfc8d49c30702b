"""ONNX files of this project: their cards, and their networks run by onnxruntime.

`scripts/export_onnx.py` writes them. A detector of several networks has a file for each: users name
the first, `x.onnx`; the others lie beside it as `x.<part>.onnx`, and the first holds their sha256.
Each has its card in its metadata, as weight files do, and under `extra` the entry `export`: its
`part`, the sha256 of its `siblings`, and the weights it is of. onnxruntime sees no file here before
`onnx_graph.py` has checked its structure and a confined child has tried it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import detectors
from detectors._base import Detector, Part, Transform
from detectors._errors import OptionError, WeightsError

from ..config import ConfigError, resolve
from ..runtime.confined import ConfinedError, Limits, confined
from ..runtime.device import Device
from .cards import Card, check_sum, read_card, sha256
from .loaded import Loaded, WeightFile
from .onnx_graph import SCRIPT, SUFFIX, check_structure, network_digest, read_metadata
from .session import CPU, open_session

EXPORT = "export"
# Of the trial of a network on one picture, beside what its weights need.
TRIAL_MEMORY, TRIAL_SECONDS = 2 << 30, 120
TRIAL_BYTES_PER_SECOND = 10 << 20


def sibling(path: Path, part: str) -> Path:
    """Where another part of an exported detector lies: `x.onnx` -> `x.<part>.onnx`."""
    return path.with_name(f"{path.stem}.{part}{SUFFIX}")


# --- cards


def onnx_card(path: Path) -> Card:
    """The card of an exported file.

    Raises:
        WeightsError: damaged, or not made by this project.
    """
    metadata = read_metadata(path)
    if "card" not in metadata:
        raise WeightsError(
            f"{path}: expected an ONNX file made by {SCRIPT}; found one without this project's card"
        )
    card = read_card(path, metadata)
    export = (card.extra or {}).get(EXPORT)
    if not (isinstance(export, dict) and isinstance(export.get("siblings"), dict)):
        raise WeightsError(f"{path}: its card is broken (no {EXPORT}); make it again by {SCRIPT}")
    check_sum(path, metadata, network_digest(path))
    return card


def open_onnx(path: Path, detector: str) -> WeightFile:
    """An exported file as a weight file without tensors, which stay in it.

    Raises:
        WeightsError: see `onnx_card`; or it is of another detector, or its second part.
    """
    card = onnx_card(path)
    if card.detector != detector:
        raise WeightsError(
            f"{path}: expected an ONNX file of {detector}; found one of {card.detector}"
        )
    return WeightFile(path, {}, card, sha256(path))


def part_files(path: Path, card: Card, parts: Mapping[str, Part]) -> dict[str, Path]:
    """The file of each of a detector's parts, `path` being that of the first.

    Raises:
        WeightsError: `path` is not the first, another is missing or of another export.
    """
    first, *others = parts
    export = (card.extra or {})[EXPORT]
    if export.get("part") != first:
        raise WeightsError(
            f"{path}: expected the {first} of an exported {card.detector}; found its "
            f"{export.get('part')}: name the file of the {first}"
        )
    files = {first: path}
    for part in others:
        files[part] = sibling(path, part)
        if not files[part].is_file():
            raise WeightsError(
                f"{files[part]}: expected the {part} that goes with {path.name}; found none: put "
                f"it there, or make both again by {SCRIPT}"
            )
        if sha256(files[part]) != export["siblings"].get(part):
            raise WeightsError(
                f"{files[part]}: expected the {part} that was exported with {path.name}; found "
                f"another file: make both again by {SCRIPT}"
            )
    return files


# --- running


def runs_on_cuda() -> bool:
    """Whether the installed onnxruntime is made for CUDA."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _providers(device: torch.device) -> list[Any]:
    """onnxruntime's names for where to compute. Raises ConfigError for what it cannot."""
    if device.type == "cpu":
        return [CPU]
    if device.type != "cuda":
        raise ConfigError(f"--device {device}: expected cpu or cuda with an ONNX file")
    if not runs_on_cuda():
        raise ConfigError(
            f"--device {device}: the installed onnxruntime has no CUDA: pip install "
            "onnxruntime-gpu in its place, or use --device cpu"
        )
    options = {"device_id": device.index or 0, "use_tf32": 0}
    return [("CUDAExecutionProvider", options), CPU]


def _signature(session: Any) -> Any:
    """Names of a session's inputs, with the shape of each but for the first dimension, and of its
    outputs."""
    inputs = [(node.name, list(node.shape[1:])) for node in session.get_inputs()]
    return [inputs, [node.name for node in session.get_outputs()]]


def _shapes(values: Sequence[Any]) -> list[list[int]]:
    return [list(value.shape) for value in values]


def _trial(path: Path, name: str, example: np.ndarray, expected: Any) -> list[list[int]]:
    """Shapes of a network's outputs for an example. Runs in a child process."""
    session = open_session(path, [CPU], threads=1)
    if (signature := _signature(session)) != expected:
        raise WeightsError(
            f"expected a network with input and outputs {expected}; found {signature}"
        )
    return _shapes(session.run(expected[1], {name: example}))


def _expected(part: Part, count: int) -> list[list[int]]:
    """Shapes of the outputs of a part, on the meta device, for so many examples."""
    batch = torch.empty(count, *part.example.shape[1:], dtype=part.example.dtype, device="meta")
    with torch.inference_mode():
        outputs = part.module(batch)
    return _shapes(outputs if isinstance(outputs, tuple) else (outputs,))


def _check_shapes(path: Path, shapes: list[list[int]], expected: list[list[int]]) -> None:
    if shapes != expected:
        raise WeightsError(
            f"{path}: expected outputs of shapes {expected}; found {shapes}: make it again by "
            f"{SCRIPT}"
        )


def _check_network(path: Path, part: Part) -> None:
    """Trial of a part's file on one example, in a child process.

    Raises:
        WeightsError: damaged, of another structure than exports have, of another signature or
            with other shapes than the part, or it needs more memory or time than its size explains.
    """
    check_structure(path)
    example, size = part.example[:1], path.stat().st_size
    signature = [[(part.input, list(example.shape[1:]))], list(part.outputs)]
    limits = Limits(3 * size + TRIAL_MEMORY, TRIAL_SECONDS + size // TRIAL_BYTES_PER_SECOND)
    try:
        shapes = confined(_trial, path, part.input, example.numpy(), signature, limits=limits)
    except ConfinedError as error:
        raise WeightsError(f"{path}: {error}: make it again by {SCRIPT}") from error
    _check_shapes(path, shapes, _expected(part, 1))


class Network:
    """A part of a detector, computed by onnxruntime: a tensor -> a tuple of tensors.

    Raises:
        WeightsError: see `_check_network`.
        ConfigError: onnxruntime is not there, or not for the device.
    """

    def __init__(self, path: Path, part: Part, device: torch.device) -> None:
        providers = _providers(device)
        _check_network(path, part)
        self.expected = cache(partial(_expected, part))
        self.session = open_session(path, providers, torch.get_num_threads())
        if self.session.get_providers()[0] != _name(providers[0]):
            raise ConfigError(
                f"--device {device}: onnxruntime does not find its CUDA libraries: install them, "
                "or use --device cpu"
            )
        self.path, self.input, self.outputs = path, part.input, part.outputs

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        values = {self.input: x.cpu().contiguous().numpy()}
        outputs = self.session.run(list(self.outputs), values)
        _check_shapes(self.path, _shapes(outputs), self.expected(len(x)))
        return tuple(torch.from_numpy(value).to(x.device) for value in outputs)


def _name(provider: Any) -> str:
    return provider if isinstance(provider, str) else provider[0]


class OnnxDetector(Detector):
    """A detector whose networks are exported ones; all else is the detector's own.

    It has neither parameters nor buffers, and cannot be trained.
    """

    Options = object  # those of `plan`

    def __init__(
        self, plan: Detector, run: Mapping[str, Callable[[Tensor], tuple[Tensor, ...]]]
    ) -> None:
        """`plan`: the detector on the meta device; `run`: its parts."""
        super().__init__(plan.options)
        self.title = plan.title  # type: ignore[misc]  # of this one, not of the class
        # In a tuple it is no submodule, whose missing weights `to` would try to move.
        self._plan = (plan,)
        self._run = run

    def transform(self, train: bool) -> Transform:
        return self._plan[0].transform(train)

    def collate(self, items: list[Any]) -> Any:
        return self._plan[0].collate(items)

    def forward(self, batch: Any) -> Tensor:
        return self._plan[0].run_parts(self._run, batch)[0]

    def check_explain(self) -> None:
        if all(len(part.outputs) == 1 for part in self._plan[0].parts().values()):
            raise OptionError(
                f"--explain: an ONNX file of {self.title} gives logits alone: name the weights "
                "that it was made of"
            )

    def explain(self, batch: Any) -> tuple[Tensor, list[Tensor]]:
        self.check_explain()
        logits, relevance = self._plan[0].run_parts(self._run, batch)
        assert relevance is not None
        return logits, relevance

    def parts(self) -> dict[str, Part]:
        raise OptionError(f"{self.title}: expected PyTorch's weights to export; found an ONNX file")

    def overlay(self, image: Image.Image, relevance: Tensor) -> Image.Image:
        return self._plan[0].overlay(image, relevance)


def check_options(name: str, options: Any, file: WeightFile) -> None:
    """Raises OptionError when a detector's options are others than the file was exported with."""
    assert file.card is not None
    exported = resolve(name, [(str(file.path), {name: file.card.options})]).options
    free = detectors.load(name).OUTSIDE_PARTS
    for key in (field.name for field in fields(options) if field.name not in free):
        was, asked = getattr(exported, key), getattr(options, key)
        if was != asked:
            raise OptionError(
                f"{name}.{key}: {file.path} was exported with {was}; found {asked}: leave it out, "
                f"or export again with it by {SCRIPT}"
            )


def load_onnx(name: str, options: Any, file: WeightFile, on: Device, compiled: bool) -> Loaded:
    """A detector that computes by exported networks, ready to score.

    Args:
        name, options: of the detector.
        file: what `open_onnx` gave.
        on: where to compute; only fp32.
        compiled: whether torch.compile was asked for, which there is nothing to apply to.

    Raises:
        WeightsError: a part is missing, damaged, or of another export.
        OptionError: options that the networks were not exported with.
        ConfigError: a device, precision or package that is not there.
    """
    if on.precision != "fp32":
        raise ConfigError(
            f"--precision {on.precision}: expected fp32 with an ONNX file, which computes in that"
        )
    if compiled:
        raise ConfigError("--compile: expected PyTorch's weights; found an ONNX file: leave it out")
    assert file.card is not None
    check_options(name, options, file)
    with torch.device("meta"):
        plan = detectors.load(name)(options).eval()
    parts = plan.parts()
    files = part_files(file.path, file.card, parts)
    run = {part: Network(files[part], parts[part], on.device) for part in parts}
    model = OnnxDetector(plan, run).eval()
    return Loaded(model, name, file.path, file.sha256, file.card.threshold, file.card.band)
