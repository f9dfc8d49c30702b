"""The rule that fills the weights of the golden runs, and how a tensor is compared with its golden
summary; see golden/README.md."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detectors import ssp
from detectors._base import Detector
from detectors._spectral import frequency_mask

GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted((GOLDEN / "inputs").iterdir())
SMALL = ("bias", "q_bias", "v_bias", "cls_token", "pos_embed", "cls_pos_embed")
SMALL += ("actual_cls_token", "patch_aggregator", "alpha")


@cache
def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def fill(key: str, shape: list[int]) -> torch.Tensor:
    """The value that the golden run gave to a parameter: noise seeded by the key, scaled by role.
    `srm.kernel` and `mfvit.frequencies_mask` are no parameters: constants of the method."""
    if key == "srm.kernel":
        return ssp.srm_kernels()
    if key == "mfvit.frequencies_mask":
        return frequency_mask()
    last = key.rsplit(".", 1)[-1]
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    x = rng.standard_normal(shape, dtype=np.float32)
    if last == "num_batches_tracked":
        return torch.tensor(0)
    if last == "running_var":
        x = 1 + 0.1 * np.abs(x)
    elif last == "running_mean":
        x = 0.1 * x
    elif last == "weight" and len(shape) == 1:
        x = 1 + 0.1 * x
    elif last in SMALL:
        x = 0.02 * x
    else:
        inputs = shape[1:] if len(shape) > 1 else shape
        x = x / np.sqrt(np.prod(inputs, dtype=np.float32))
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


@cache
def published(file: str) -> dict[str, torch.Tensor]:
    """A state dict in the published layout of a weight file, without downloading it."""
    shapes = golden("state_dict_keys.json")[file]
    return {key: fill(key, shape) for key, shape in shapes.items()}


def layout(file: str) -> dict[str, torch.Tensor]:
    """The keys and shapes of a published weight file, without numbers."""
    shapes = golden("state_dict_keys.json")[file]
    counted = [key for key in shapes if key.endswith("num_batches_tracked")]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    return state | {key: state[key].long() for key in counted}


def empty(kind: type[Detector], options: Any) -> Detector:
    """A detector without numbers, for its keys, shapes and transforms."""
    with torch.device("meta"):
        return kind(options)


def assigned(kind: type[Detector], options: Any, state: dict[str, torch.Tensor]) -> Detector:
    """A detector in evaluation mode that has these very tensors: no random start is drawn for its
    tens of millions of weights."""
    model = empty(kind, options)
    model.load_state_dict(state, assign=True)
    return model.eval()


def check(tensor: torch.Tensor, summary: dict[str, Any], rtol: float, atol: float) -> None:
    """Compares a tensor with its golden summary."""
    assert list(tensor.shape) == summary["shape"]
    flat = tensor.double().flatten()
    np.testing.assert_allclose(flat[summary["flat_index"]], summary["values"], rtol, atol)
    found = [float(flat.mean()), float(flat.std(correction=0)), float(flat.norm())]
    np.testing.assert_allclose(found, [summary[k] for k in ("mean", "std", "l2")], rtol, atol)


def by_name(path: Path) -> str:
    return path.stem
