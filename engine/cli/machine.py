"""The machine as flags name it: device, decoding processes, output folders apart from inputs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datasets._limits import UPRIGHT, Limits

from ..config import ConfigError
from ..runtime import distributed
from ..runtime.threads import decoders
from ..runtime.workers import Workers
from ..weights.onnx_graph import is_onnx

if TYPE_CHECKING:
    from ..runtime.device import Device

log = logging.getLogger(__name__)
MANY = 64  # pictures


def device(args: argparse.Namespace, precision: str | None) -> Device:
    """`--device` or `--gpu`, which falls back to the CPU with a warning; None means fp32.

    Raises:
        ConfigError: no such device.
    """
    import torch

    from ..runtime.device import open_device
    from ..weights.onnx import runs_on_cuda

    name, count = args.device, torch.cuda.device_count()
    numbered = args.gpu if args.gpu is not None and args.gpu < count else None
    if distributed.launched() > 1 and (numbered is not None or str(name).startswith("cuda:")):
        raise ConfigError(
            "--gpu, --device: expected none of several processes, each of which takes a GPU of its "
            f"own; found {args.device or f'--gpu {args.gpu}'}"
        )
    if name in (None, "cuda") and distributed.launched() > 1 and torch.cuda.is_available():
        name = f"cuda:{distributed.local_rank() % torch.cuda.device_count()}"
    if not name and is_onnx(args.weights) and torch.cuda.is_available() and not runs_on_cuda():
        name = "cpu"
    if args.gpu is not None:
        name = f"cuda:{args.gpu}"
        if args.gpu < 0 or args.gpu >= torch.cuda.device_count():
            log.warning("--gpu %d: no such GPU here; using the CPU", args.gpu)
            name = "cpu"
    return open_device(name, precision or "fp32")


def workers(args: argparse.Namespace, pictures: int, decoding: str = UPRIGHT) -> Workers:
    """How pictures are decoded: by `--workers` processes, else by as many as this process may
    use processors; a few pictures by one, for starting more takes longer than they do."""
    limits = Limits(args.max_megapixels, args.picture_memory, args.picture_seconds)
    if args.workers is not None:
        return Workers(args.workers, limits, decoding)
    return Workers(decoders() if pictures >= MANY else 1, limits, decoding)


def check_apart(output: Path, folders: Sequence[Path]) -> None:
    """Raises ConfigError when results would lie in a folder of pictures: some results are pictures,
    which the next run would take for data."""
    for folder in folders:
        if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"--output {output}: expected a folder outside of the pictures in {folder}; "
                "found one inside: name another --output"
            )
