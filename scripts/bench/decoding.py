"""The measures `decoders` and `workers`: other decoders of JPEGs, and how many processes decode.

Both ask what phase test could gain: whether another library gives the same pixels faster, and
whether the number of processes that --workers takes by itself is the right one on this machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from datasets._images import decode
from datasets._limits import Limits
from engine.runtime.threads import decoders
from engine.runtime.workers import Workers
from engine.scoring.graph_backend import GraphBackend

from .subjects import detailed_jpegs, scored_by, shipped_graph
from .timing import REPEATS, SLOW_REPEATS, Figure, all_of, at_least, seconds

OURS = "ours"
Decode = Callable[[bytes], Image.Image]
# Side lengths, and pictures of a pass.
SIZES = (((640, 480), 40), ((4000, 3000), 3))
MEGAPIXEL = (1152, 864)
# Pictures of a pass: the second network takes a third of a second for each.
FREE_PICTURES, SHIPPED_PICTURES = 200, 64
FEW_WORKERS = (0, 1, 2)


# --- decoders


def _by_product(content: bytes) -> Image.Image:
    return decode(content, Limits())


def _by_torchvision(content: bytes) -> Image.Image:
    # Read-only memory, as bytes have it, would be warned of.
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    decoded: torch.Tensor = decode_jpeg(values, ImageReadMode.RGB)
    return Image.fromarray(decoded.permute(1, 2, 0).numpy())


def _simplejpeg() -> Decode | None:
    """A decoder by simplejpeg, which this project does not need; None where it is not installed."""
    try:
        library: Any = importlib.import_module("simplejpeg")
    except ImportError:
        return None
    # Its faster transform and enlargement of colours, which it takes by default, change pixels.
    exact = {"fastdct": False, "fastupsample": False}
    return lambda content: Image.fromarray(library.decode_jpeg(content, "RGB", **exact))


def _difference(one: Decode, other: Decode, contents: Sequence[bytes]) -> int:
    """The largest difference of a pixel's value between two decoders, in 0 to 255."""
    pairs = ((np.asarray(way(content), np.int16) for way in (one, other)) for content in contents)
    return max(int(np.abs(a - b).max()) for a, b in pairs)


def measure_decoders(folder: Path) -> Iterator[Figure]:
    """JPEGs decoded to an RGB picture in one process: the product's way, which is Pillow's, against
    other libraries, and whether the pixels are the same."""
    others: dict[str, Decode | None] = {
        "torchvision.io": _by_torchvision,
        "simplejpeg": _simplejpeg(),
    }
    for size, count in SIZES:
        named = "{} x {}".format(*size)
        files = detailed_jpegs(folder / named, count, size)
        contents = [path.read_bytes() for path in files]
        ways = {OURS: _by_product} | {k: way for k, way in others.items() if way is not None}
        took = seconds({k: partial(all_of, way, contents) for k, way in ways.items()})
        for name, way in others.items():
            what = f"{name} against our decoding, JPEGs of {named}"
            if way is None:
                yield Figure(what, "none: not installed")
                continue
            rates = [count / took[each] for each in (name, OURS)]
            apart = _difference(_by_product, way, contents)
            details = f"{rates[0]:.3g} against {rates[1]:.3g} a second; pixels differ by {apart}"
            yield Figure(what, f"{rates[0] / rates[1]:.2f} x ({details})")


# --- processes that decode


def _free(shipped: GraphBackend) -> GraphBackend:
    """A backend with the transform of the shipped detector, whose network costs nothing."""
    model: Any = SimpleNamespace(
        transform=shipped.model.transform,
        threads=shipped.model.threads,
        logits=lambda items: np.zeros(len(items), np.float32),
    )
    return GraphBackend(model)


def measure_workers(folder: Path) -> Iterator[Figure]:
    """The scoring loop of phase test by numbers of processes that decode: what --workers takes by
    itself against the best of them."""
    paths = detailed_jpegs(folder / "pictures", FREE_PICTURES, MEGAPIXEL)
    shipped, usual = shipped_graph(), decoders()
    counts = sorted({*FEW_WORKERS, usual})
    for what, backend, count, repeats in (
        ("a network that costs nothing", _free(shipped), FREE_PICTURES, REPEATS),
        ("the shipped network", shipped, SHIPPED_PICTURES, SLOW_REPEATS),
    ):
        own = paths[:count]
        ways = {str(n): partial(scored_by, backend, own, Workers(n)) for n in counts}
        took = seconds(ways, repeats)
        ratios = {n: took[str(usual)] / took[str(n)] for n in counts}
        others = ", ".join(f"{n}: {ratios[n]:.2f} x" for n in counts)
        details = f"{others} of {count / took[str(usual)]:.3g} JPEGs of 1 megapixel a second"
        best = max(ratios.values())
        yield at_least(f"--workers {usual}, the default, against the best, {what}",
                       1 / best, 0.9, details)  # fmt: skip
