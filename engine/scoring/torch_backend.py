"""Scoring by PyTorch: every detector, on every device, with explanations.

Phase eval, training and the scripts score by it, phase test where it cannot do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from detectors._base import Detector, Transform

from ..runtime.device import Device, reuse_memory
from .backend import AT_ONCE, Computing, in_steps, rounded

BACKEND = "torch"


def move(batch: Any, device: torch.device) -> Any:
    """A collated batch on a device: a tensor, or a list of what makes a batch."""
    if isinstance(batch, list):
        return [move(part, device) for part in batch]
    return batch.to(device, non_blocking=True)


def computing(on: Device) -> Computing:
    """What computes on a device, with the threads that are set."""
    name = on.device.type
    if name == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(on.device)})"
    return Computing(BACKEND, name, on.precision, torch.get_num_threads())


@dataclass(frozen=True)
class TorchBackend:
    """A detector that PyTorch computes. `model`: used as it is: in evaluation mode, on `device`."""

    model: Detector
    device: Device

    @property
    def given(self) -> Mapping[str, Any] | None:
        """As `Backend` has it, like all that follows."""
        return self.model.given

    def computing(self) -> Computing:
        return computing(self.device)

    def transform(self, validation: bool) -> Transform:
        return self.model.val_transform() if validation else self.model.transform(train=False)

    def prepare(self) -> None:
        if self.device.device.type == "cpu":
            reuse_memory()

    def results(self, items: Sequence[Any], explain: bool) -> list[tuple[float, Any]]:
        step = AT_ONCE if self.device.device.type == "cpu" else max(1, len(items))
        return [pair for few in in_steps(items, step) for pair in self._forward(few, explain)]

    def _forward(self, items: Sequence[Any], explain: bool) -> list[tuple[float, Any]]:
        """Results of one forward pass."""
        batch = self.model.collate(list(items))
        with torch.inference_mode(), self.device.autocast():
            batch = move(batch, self.device.device)
            relevance: list[Any] = [None] * len(items)
            if explain:
                values, relevance = self.model.explain(batch)
            else:
                values = self.model(batch)
        return list(zip(rounded(values.float().tolist()), relevance, strict=True))
