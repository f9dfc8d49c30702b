"""The detector of phase test without PyTorch, where there is a graph of its network.

Importing PyTorch takes longer than a verdict. What it alone can do, it does: explanations, GPUs,
other detectors, precisions and options. Nothing here imports it.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from pathlib import Path

import detectors

from ..config import Config
from ..runtime.threads import thread_count
from ..scoring.graph_backend import GraphBackend
from ..weights import graph
from ..weights.cards import sha256
from ..weights.loaded import Loaded, WeightFile, card_of, locate
from ..weights.onnx_graph import is_onnx
from . import settings

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


def _needs_torch(args: argparse.Namespace) -> bool:
    """Whether flags ask for what PyTorch alone can do."""
    asked = args.torch or args.explain or args.compile or args.pretrain or args.backbone_weights
    elsewhere = args.gpu is not None or args.device not in (None, "cpu")
    if asked or elsewhere or args.precision not in (None, "fp32"):
        return True
    return args.device is None and _cuda_devices() > 0


def opened(
    args: argparse.Namespace, resumed: Path | None
) -> tuple[GraphBackend, Loaded, Config] | None:
    """The detector with its weights, and the configuration it has; None where PyTorch computes.

    Args:
        resumed: the folder of a run that goes on.

    Raises:
        WeightsError, ConfigError, OptionError: what was asked for does not exist or fit.
    """
    name = settings.detector_name(args)
    if detectors.arrays(name) is None or _needs_torch(args):
        return None
    path = locate(args.weights, name)
    card = None if is_onnx(path) else card_of(path)
    if card is None or card.detector != name or not graph.path_of(name).is_file():
        return None
    config = settings.resolve_config(args, name, WeightFile(path, {}, card, sha256(path)))
    network = graph.read_graph(graph.path_of(name))
    if network.options != config.as_dict()[name]:
        return None
    threads = thread_count(args.threads, True, resumed)
    loaded = graph.load(network, config.options, graph.open_weights(path, card), threads)
    return GraphBackend(loaded.model), loaded, config
