"""Scoring by PyTorch: every detector, on every device, with explanations.

Phase eval, training and the scripts score by it, phase test where it cannot do without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from detectors._base import Detector, Transform

from ..runtime.device import Device, reuse_memory
from .backend import AT_ONCE, Computing, Results, in_steps, rounded

BACKEND = "torch"


def move(batch: Any, device: torch.device) -> Any:
    """A collated batch on a device: a tensor, or a list of what makes a batch. Memory that is
    pinned for CUDA is copied while the host and the device do other things."""
    if isinstance(batch, list):
        return [move(part, device) for part in batch]
    if device.type == "cuda" and batch.device.type == "cpu":
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream of copies to a CUDA device, beside that which computes."""
    return torch.cuda.Stream(device)


def _kept_for(stream: torch.cuda.Stream, batch: Any) -> None:
    """Keeps the memory of a batch from being used anew before a stream is through with it."""
    if isinstance(batch, list):
        for part in batch:
            _kept_for(stream, part)
    else:
        batch.record_stream(stream)


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

    @property
    def ahead(self) -> int:
        return 1 if self._on_cuda else 0

    @property
    def _on_cuda(self) -> bool:
        return self.device.device.type == "cuda"

    def submit(self, items: Sequence[Any], explain: bool) -> Callable[[], Results]:
        step = AT_ONCE if self.device.device.type == "cpu" else max(1, len(items))
        pending = [self._forward(few, explain) for few in in_steps(items, step)]
        return lambda: [pair for results in pending for pair in results()]

    def _sent(self, batch: Any) -> Any:
        """A collated batch on the device, copied while that computes the one before."""
        device = self.device.device
        if not self._on_cuda:
            return move(batch, device)
        copies, computes = _copies(device), torch.cuda.current_stream(device)
        with torch.cuda.stream(copies):
            batch = move(batch, device)
        computes.wait_stream(copies)
        _kept_for(computes, batch)
        return batch

    def _forward(self, items: Sequence[Any], explain: bool) -> Callable[[], Results]:
        """The results of one forward pass, which on CUDA is then still in work."""
        batch = self.model.collate(list(items))
        with torch.inference_mode(), self.device.autocast():
            batch = self._sent(batch)
            if self.model._compiled_call_impl is not None and isinstance(batch, torch.Tensor):
                # Or the last batch, which is smaller, would be compiled anew.
                torch._dynamo.maybe_mark_dynamic(batch, 0)
            relevance: list[Any] = [None] * len(items)
            if explain:
                values, relevance = self.model.explain(batch)
            else:
                values = self.model(batch)
            logits = values.float().to("cpu", non_blocking=self._on_cuda)
        done = torch.cuda.Event() if self._on_cuda else None
        if done is not None:
            # Waits for this pass alone, not for those that are submitted before it is asked for.
            done.record(torch.cuda.current_stream(self.device.device))

        def results() -> Results:
            if done is not None:
                done.synchronize()
            return list(zip(rounded(logits.tolist()), relevance, strict=True))

        return results
