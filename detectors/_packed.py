"""Weights of a large frozen network at a byte a number: how they are packed, and unpacked at load.

Matrices become int8 with a scale for each output row; the rest is float16. Products of int8
numbers saturate on processors without instructions for them, so nothing computes with the packed
form: it is how files of encoders are kept, and `unpack` gives float32 back.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Suffix of the largest magnitude of each row, which stands beside the row's int8 numbers. The
# magnitude, not the step of 1/127 of it: steps of CLIP lie below float16's normal numbers.
LARGEST = ".largest"
STEPS = 127
# What is packed ends so: layers. Embeddings and CLIP's projection, which is stored the other
# way round, are small, and would lose a hundredth of their norm.
WEIGHT = "weight"


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers' weights (out, in) as int8 and magnitudes (out,) float16; the rest as float16.

    A matrix that int8 numbers with a step for each row gave is packed without further loss but that
    of its step, 5e-4 of it at most.
    """
    packed: dict[str, Tensor] = {}
    for key, value in state.items():
        if value.ndim != 2 or not key.endswith(WEIGHT):
            packed[key] = value.half()
            continue
        largest = value.abs().amax(dim=1).half()
        step = largest.float() / STEPS
        rows = value / torch.where(step > 0, step, 1.0)[:, None]
        packed[key] = rows.round().clamp(-STEPS, STEPS).to(torch.int8)
        packed[key + LARGEST] = largest
    return packed


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` was given, float32; a state dict that is not packed comes back as it is."""
    if not any(key.endswith(LARGEST) for key in state):
        return dict(state)
    unpacked: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.endswith(LARGEST):
            largest = state.get(key + LARGEST)
            step = 1.0 if largest is None else (largest.float() / STEPS)[:, None]
            unpacked[key] = value.float() * step
    return unpacked
