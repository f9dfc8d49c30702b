"""Weights of a large frozen network at a byte a number: how they are packed, and unpacked at load.

Matrices become int8 with a scale for each output row; the rest is float16. Products of int8
numbers saturate on processors without instructions for them, so nothing computes with the packed
form: it is how files of encoders are kept, and `unpack` gives float32 back. Arrays in and out, so
that weights are the same whether PyTorch computes with them or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]
# Suffix of the largest magnitude of each row, which stands beside the row's int8 numbers. The
# magnitude, not the step of 1/127 of it: steps of CLIP lie below float16's normal numbers.
LARGEST = ".largest"
STEPS = 127
# What is packed ends so: layers. Embeddings and CLIP's projection, which is stored the other
# way round, are small, and would lose a hundredth of their norm.
WEIGHT = "weight"


def pack(state: Arrays) -> dict[str, np.ndarray]:
    """Layers' weights (out, in) as int8 and magnitudes (out,) float16; the rest as float16.

    A matrix that int8 numbers with a step for each row gave is packed without further loss but that
    of its step, 5e-4 of it at most.
    """
    packed: dict[str, np.ndarray] = {}
    for key, value in state.items():
        if value.ndim != 2 or not key.endswith(WEIGHT):
            packed[key] = value.astype(np.float16)
            continue
        largest = np.abs(value).max(axis=1).astype(np.float16)
        step = largest.astype(np.float32) / STEPS
        rows = value / np.where(step > 0, step, np.float32(1))[:, None]
        packed[key] = rows.round().clip(-STEPS, STEPS).astype(np.int8)
        packed[key + LARGEST] = largest
    return packed


def is_packed(keys: Iterable[str]) -> bool:
    """Whether a state dict with these keys is what `pack` gives."""
    return any(key.endswith(LARGEST) for key in keys)


def unpack(state: Arrays) -> dict[str, np.ndarray]:
    """What `pack` was given, float32."""
    unpacked: dict[str, np.ndarray] = {}
    for key, value in state.items():
        if key.endswith(LARGEST):
            continue
        unpacked[key] = value.astype(np.float32)
        if key + LARGEST in state:
            unpacked[key] *= (state[key + LARGEST].astype(np.float32) / STEPS)[:, None]
    return unpacked
