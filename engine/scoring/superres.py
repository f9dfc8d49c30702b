"""Super-resolution networks of others as a degradation: pictures reduced, then enlarged by one.

`degradations` asks which network stands for the step `superres`; scripts/derive.py and
scripts/study.py name its weights for as long as they run, and nothing else may: a network takes
minutes where other steps take a moment. Weights are read by the project's own reader, and spandrel
tells the architecture by them. Imports torch only where a network is read or computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ..config import ConfigError
from .picture_size import check_size

OPTION = "degrade.superres"  # of --set
# px of the reduced picture that a network takes at a time, and that it sees around them: what one
# of 64 channels computes then stays below 500 MB, and seams below what 8 bits show.
TILE, MARGIN = 192, 32


@dataclass(frozen=True)
class Network:
    """A super-resolution network, by its weight file. `scale`: of both sides; `digest`: the first
    hexadecimal digits of the file's SHA-256, which results name it by."""

    path: Path
    scale: int
    digest: str


_current: ContextVar[Network | None] = ContextVar("network", default=None)


def current() -> Network | None:
    """The network that stands for the step `superres` here; None where none was named."""
    return _current.get()


@contextmanager
def standing(path: Path | None) -> Iterator[None]:
    """Lets the network of a weight file stand for `superres` inside the block; None = none.

    Raises:
        WeightsError: no weight file, or not one of a super-resolution network.
        ConfigError: the package spandrel is not installed.
    """
    token = _current.set(read(path) if path else None)
    try:
        yield
    finally:
        _current.reset(token)


def read(path: Path) -> Network:
    """The network of a weight file. Raises as `standing`."""
    from ..weights.cards import sha256

    scale = _model(path).scale
    return Network(path, scale, sha256(path)[:8])


def _network_of(state: dict[str, Any]) -> dict[str, Any]:
    """The state dict of the network in a file of BasicSR's trainer, of its averaged weights if
    there; of other files the whole."""
    for name in ("params_ema.", "params."):
        if part := {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}:
            return part
    return state


@lru_cache(maxsize=1)
def _model(path: Path) -> Any:
    """spandrel's description of a network, ready to compute; read once in each process."""
    from detectors._errors import WeightsError

    from ..weights.files import read_weights

    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ImportError as error:
        raise ConfigError(
            f"{OPTION}: expected the package spandrel; found none (pip install '.[derive]')"
        ) from error
    state, _ = read_weights(path)
    try:
        model = ModelLoader(device="cpu").load_from_state_dict(_network_of(state))
    # Detection goes by a few keys; what then does not fit ends in any of these.
    except (UnsupportedModelError, RuntimeError, KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{path}: expected weights of a super-resolution network that spandrel knows; found "
            "others"
        ) from error
    kind = model.architecture.name
    channels = model.input_channels, model.output_channels
    if not isinstance(model, ImageModelDescriptor) or model.scale == 1 or channels != (3, 3):
        raise WeightsError(
            f"{path}: expected a network from RGB to larger RGB; found {kind} of scale "
            f"{model.scale}, channels {channels[0]} to {channels[1]}"
        )
    return model.float().eval()


def _computed(model: Any, image: Image.Image) -> Image.Image:
    """A picture as the network enlarges it."""
    import numpy as np
    import torch

    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    threads = torch.get_num_threads()
    # One thread: a forked process must not wait for others', and the last digits of a sum would
    # depend on their number.
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            larger = model(values).clamp(0, 1)
    finally:
        torch.set_num_threads(threads)
    pixels = (larger[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy())


def superres(image: Image.Image, network: Network) -> Image.Image:
    """An 8-bit RGB picture reduced by the network's scale (bilinear, antialiased, as in the study)
    and enlarged by it, in tiles."""
    model, scale = _model(network.path), network.scale
    width, height = (max(1, side // scale) for side in image.size)
    check_size(width * scale, height * scale)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    result = Image.new("RGB", (width * scale, height * scale))
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            first, above = max(0, left - MARGIN), max(0, top - MARGIN)
            last, below = min(width, left + TILE + MARGIN), min(height, top + TILE + MARGIN)
            tile = _computed(model, small.crop((first, above, last, below)))
            right, bottom = min(width, left + TILE), min(height, top + TILE)
            inner = tile.crop(
                (
                    scale * (left - first), scale * (top - above),
                    scale * (right - first), scale * (bottom - above),
                )
            )  # fmt: skip
            result.paste(inner, (scale * left, scale * top))
    return result
