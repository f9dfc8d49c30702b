"""Networks as graphs without weights, which are computed with those of a weight file.

`scripts/export_onnx.py graph` writes pretrained/DETECTOR.graph.onnx: an ONNX file whose inputs are
a batch and every tensor of the detector's state dict, under its name. So weights exist once, in
memory too, and phase test scores without importing torch, which nothing here may do. Graphs lie
there alone: one that a stranger put beside weights never reaches onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

import detectors
from detectors._arrays import Transform
from detectors._errors import WeightsError

from ..runtime.text import reason
from . import manifest
from .cards import Card, arrays_digest, check_sum, read_card, sha256
from .loaded import Loaded, WeightFile, not_there
from .onnx_graph import SCRIPT, SUFFIX, network_digest, read_metadata
from .session import CPU, open_session

ENDING = f".graph{SUFFIX}"
BATCH = "batch"  # the input that is no weight
GRAPH = "graph"  # of a card's `extra`: what is said of the graph
Arrays = dict[str, np.ndarray]


def path_of(detector: str) -> Path:
    """Where the graph of a detector lies."""
    return manifest.PRETRAINED / f"{detector}{ENDING}"


@dataclass(frozen=True)
class Graph:
    """A graph's file, as its card describes it. `options`: of the detector that it computes,
    as JSON has them; `unused`: keys of the state dict that it does not take."""

    path: Path
    detector: str
    options: dict[str, Any]
    unused: frozenset[str]


def read_graph(path: Path) -> Graph:
    """A graph's description. Raises WeightsError when it is damaged, or none of this project."""
    metadata = read_metadata(path)
    try:
        card = read_card(path, metadata)
        unused = frozenset(map(str, (card.extra or {})[GRAPH]["unused"]))
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected a graph that {SCRIPT} wrote; found another"
        ) from error
    check_sum(path, metadata, network_digest(path))
    return Graph(path, card.detector, card.options, unused)


def _read(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Arrays and metadata of a safetensors file. Raises WeightsError."""
    try:
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    # bfloat16, which numpy lacks, is a TypeError.
    except (SafetensorError, OSError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected a safetensors file of float32, float16 or int8; found "
            f"{reason(error)}: --torch reads others"
        ) from error


def open_weights(path: Path, card: Card) -> WeightFile:
    """The arrays of a weight file with this card. Raises WeightsError when it is damaged."""
    arrays, metadata = _read(path)
    check_sum(path, metadata, arrays_digest(sorted(arrays.items())))
    return WeightFile(path, arrays, card, sha256(path))


def _frozen(name: str, options: Any, state: Arrays) -> tuple[Arrays, dict[str, Path]]:
    """Frozen parts that a state dict leaves out, and the file of each by its manifest entry.

    Raises:
        WeightsError: a part is not on this machine.
    """
    scoring = detectors.arrays(name)
    assert scoring is not None
    parts: Arrays = {}
    origins = {}
    for prefix, entry in scoring.external(options).items():
        if any(key.startswith(prefix) for key in state):
            continue
        path = manifest.find(entry)
        if path is None:
            raise not_there(entry)
        parts |= scoring.frozen(_read(path)[0])
        origins[entry] = path
    return parts, origins


def _inputs(graph: Graph, shapes: Mapping[str, list[int]], file: WeightFile) -> Arrays:
    """The arrays of a weight file that a graph takes, float32.

    Args:
        graph: whose inputs have these `shapes` by name.
        file: with all arrays of the state dict.

    Raises:
        WeightsError: other keys or shapes than the graph's.
    """
    again = f"use --torch, or write {graph.path.name} again by {SCRIPT}"
    if others := (shapes.keys() | graph.unused) ^ file.state.keys():
        raise WeightsError(
            f"{file.path}: expected the keys of its graph; {min(others)} differs: {again}"
        )
    for name, shape in shapes.items():
        if (found := list(file.state[name].shape)) != shape:
            raise WeightsError(
                f"{file.path}: expected {name} of shape {shape}; found {found}: {again}"
            )
    return {name: np.ascontiguousarray(file.state[name], np.float32) for name in shapes}


class GraphDetector:
    """A detector of one network, computed on the CPU by onnxruntime on `threads` threads.

    Raises:
        WeightsError: onnxruntime cannot load the graph, or the weights are not the graph's.
    """

    def __init__(self, graph: Graph, options: Any, file: WeightFile, threads: int) -> None:
        scoring = detectors.arrays(graph.detector)
        assert scoring is not None
        self.title, self.options, self.threads = scoring.title, options, threads
        self.transform: Transform = scoring.transform(options)
        self._session = open_session(graph.path, [CPU], threads)
        shapes = {node.name: list(node.shape) for node in self._session.get_inputs()}
        del shapes[BATCH]
        # As inputs they are computed with where they lie: onnxruntime copies tensors of its own.
        self._weights = _inputs(graph, shapes, file)

    def logits(self, items: Sequence[np.ndarray]) -> np.ndarray:
        """Logits (B,) float32 of items of the transform."""
        batch = np.ascontiguousarray(np.stack(items))
        [logits] = self._session.run(None, self._weights | {BATCH: batch})
        return np.asarray(logits)


def load(graph: Graph, options: Any, file: WeightFile, threads: int) -> Loaded:
    """A detector that a graph computes, ready to score.

    Args:
        graph: of the network with these options.
        options: of the detector.
        file: what `open_weights` gave.
        threads: that compute.

    Raises:
        WeightsError: the weights are not the graph's, or a frozen part is missing.
    """
    card = file.card or Card(graph.detector, {})
    parts, origins = _frozen(graph.detector, options, file.state)
    model = GraphDetector(graph, options, replace(file, state=file.state | parts), threads)
    learnt = (card.extra or {}).get("trained_on") or manifest.trained_on(file.path)
    # The graph decides a score as the weights do.
    external = origins | {GRAPH: graph.path}
    return Loaded(
        model, graph.detector, file.path, file.sha256, card.threshold, card.band, external,
        trained_on=tuple(learnt), until=card.until,
    )  # fmt: skip
