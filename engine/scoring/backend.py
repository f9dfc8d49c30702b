"""What computes the logits of pictures: PyTorch, or onnxruntime without it.

The scoring loop speaks to a `Backend` alone; `torch_backend.py` and `graph_backend.py` have them.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from detectors._arrays import Transform

from .probability import DECIMALS

# Logit, as tables have it, of each item of a batch, and the relevance that it rests on where it is
# to be explained, else None.
Results = list[tuple[float, Any]]
AT_ONCE = 4  # pictures of a forward pass on the CPU: tensors of more leave its cache


@dataclass(frozen=True)
class Computing:
    """What computes, as run.json states it: `backend`, library of the network; `device`, its name
    without its number, for cards of one name compute the same; `precision`; `threads`."""

    backend: str
    device: str
    precision: str
    threads: int


class Backend(Protocol):
    """A detector ready to score."""

    @property
    def given(self) -> Mapping[str, Any] | None:
        """What other programs say of pictures, by key, where the detector takes that."""

    def computing(self) -> Computing:
        """What computes."""

    def transform(self, validation: bool) -> Transform:
        """The transform of scoring, or that by which a training validates."""

    def prepare(self) -> None:
        """Makes this process ready for many pictures, before the first."""

    @property
    def ahead(self) -> int:
        """Number of batches that are computed while the results of an earlier one are awaited."""

    def submit(self, items: Sequence[Any], explain: bool) -> Callable[[], Results]:
        """Begins to compute items of the transform; the call of what it gives waits for them."""


def rounded(logits: Sequence[float]) -> list[float]:
    """Logits as tables have them. Adding zero turns -0.0, which reads like an error, into 0.0."""
    return [round(value, DECIMALS) + 0.0 for value in logits]


def in_steps(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Items of each forward pass, `size` of them but for the last."""
    return [items[first : first + size] for first in range(0, len(items), size)]
