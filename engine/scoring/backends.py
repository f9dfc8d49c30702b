"""Detectors opened to score pictures: with PyTorch, or without it where there is a graph.

Importing PyTorch takes longer than a verdict. What it alone can do, it does: explanations, GPUs,
other detectors, precisions and options. `engine/api.py` and phase test's request open here; nothing
here imports torch before it is needed.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import detectors

from ..config import Config
from ..runtime import distributed, threads
from ..weights import graph
from ..weights.cards import sha256
from ..weights.choice import Choice
from ..weights.loaded import Loaded, WeightFile, card_of, file_of, locate
from ..weights.onnx_graph import is_onnx
from .backend import Backend
from .graph_backend import GraphBackend

if TYPE_CHECKING:
    from ..runtime.device import Device

Opened = tuple[Backend, Loaded, Config]
NVIDIA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"  # the driver's library


def _cuda_devices() -> int:
    """Number of CUDA devices, as the driver tells; PyTorch asks it, too."""
    try:
        driver = ctypes.CDLL(NVIDIA)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    known = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if known else 0


def _needs_torch(choice: Choice, device: str | None, precision: str | None) -> bool:
    """Whether PyTorch alone can do what is asked for, whatever the weights."""
    asked = choice.compile or choice.pretrain or choice.backbones
    if asked or device not in (None, "cpu") or precision not in (None, "fp32"):
        return True
    return device is None and _cuda_devices() > 0


def by_graph(
    choice: Choice,
    device: str | None = None,
    precision: str | None = None,
    asked_threads: int | None = None,
    resumed: Path | None = None,
) -> tuple[GraphBackend, Loaded, Config] | None:
    """The detector with its weights, and the configuration it has, computed by onnxruntime; None
    where PyTorch must compute.

    Args:
        choice: of the detector.
        device: as --device names it; None = the first of CUDA and CPU that is there.
        precision: as --precision names it; None = fp32.
        asked_threads, resumed: as `threads.thread_count` has them.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    if _needs_torch(choice, device, precision):
        return None
    name = choice.detector
    if detectors.arrays(name) is None:
        return None
    path = file_of(locate(choice.weights, name))
    card = None if is_onnx(path) else card_of(path)
    if card is None or card.detector != name or not graph.path_of(name).is_file():
        return None
    config = choice.resolve(WeightFile(path, {}, card, sha256(path)))
    network = graph.read_graph(graph.path_of(name))
    if network.options != config.as_dict()[name]:
        return None
    count = threads.thread_count(asked_threads, True, resumed)
    loaded = graph.load(network, config.options, graph.open_weights(path, card), count)
    return GraphBackend(loaded.model), loaded, config


def by_torch(
    choice: Choice, on: Device, asked_threads: int | None = None, resumed: Path | None = None
) -> Opened:
    """The detector with its weights, computed by PyTorch, whose number of threads it sets, and the
    configuration it has.

    Args:
        choice: of the detector.
        on: where it computes.
        asked_threads, resumed: as `threads.thread_count` has them.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    from ..weights import opening
    from .torch_backend import TorchBackend

    threads.set_threads(asked_threads, on.device, distributed.ALONE, resumed)
    loaded, config = opening.load(choice, on)
    return TorchBackend(loaded.model, on), loaded, config
