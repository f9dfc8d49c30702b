"""Scoring on the CPU without PyTorch: a graph that onnxruntime computes, for phase test.

`backends.py` chooses it. Nothing here may import torch, which takes longer than a verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from detectors._arrays import Transform

from ..weights.graph import GraphDetector
from .backend import AT_ONCE, Computing, Results, in_steps, rounded


@dataclass(frozen=True)
class GraphBackend:
    """A detector that onnxruntime computes."""

    model: GraphDetector
    given = None
    ahead = 0

    def computing(self) -> Computing:
        """As `Backend` has it, like all that follows."""
        return Computing("onnxruntime", "cpu", "fp32", self.model.threads)

    def transform(self, validation: bool) -> Transform:  # noqa: ARG002 - it trains nothing
        return self.model.transform

    def prepare(self) -> None:
        return

    def submit(self, items: Sequence[Any], explain: bool) -> Callable[[], Results]:
        assert not explain, "PyTorch alone explains"
        logits = [x for few in in_steps(items, AT_ONCE) for x in self.model.logits(few).tolist()]
        results: Results = [(logit, None) for logit in rounded(logits)]
        return lambda: results
