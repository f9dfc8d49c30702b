"""One optimizer step: over several batches, and over several processes.

The training loop calls a Stepper in each process with its batches. The step is that of one process
on all pictures at once, but for the statistics of batch norms; a loss or gradient that is no number
must change no weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detectors._base import Detector

from ..config import ConfigError, TrainOptions
from ..runtime.device import Device
from ..runtime.distributed import World
from ..scoring.torch_backend import move
from .checkpoint import is_head


@dataclass(frozen=True)
class Batch:
    """The readable pictures of a batch: their `values` collated, labels in [0, 1], and keys.
    Without a readable one `values` is None. `embedded`: whether they are values of the frozen
    part."""

    values: Any
    labels: list[float]
    keys: list[str]
    embedded: bool = False


class Losses(nn.Module):
    """A detector's loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Any, labels: Tensor, embedded: bool) -> Tensor:
        """The scalar loss of a batch; without pictures a zero that all parameters take part in, for
        the other processes wait for this one's gradients.

        Args:
            values: a collated batch, or values of the frozen part; None without pictures.
            labels: (B,) in [0, 1].
            embedded: which of the two `values` are.
        """
        if values is None:
            parts = [p.sum() * 0 for p in self.model.parameters() if p.requires_grad]
            return torch.stack(parts).sum()
        if embedded:
            return self.model.embedded_loss(values, labels)
        return self.model.loss(values, labels)


POSITIONS = ("pos_embed", "cls_token")


def decays(name: str, parameter: Tensor) -> bool:
    """Whether SPAI's recipe lets weight decay shrink a parameter: not biases, not vectors."""
    return parameter.ndim > 1 and not name.endswith("bias")


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Optimizer groups; the classifier (`fc`) learns at `head_lr` times the rate, and vectors and
    positions decay as `decay_vectors` and `decay_positions` say."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = not options.decay_vectors and not decays(name, parameter)
            spared |= not options.decay_positions and name.endswith(POSITIONS)
            scale = options.head_lr if is_head(name) else 1.0
            decay = 0.0 if spared else options.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": p, "scale": s, "weight_decay": d} for (s, d), p in groups.items()]


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Adam (L2 penalty) or AdamW (decoupled weight decay), as the recipe says.

    Raises:
        ConfigError: all of the model is frozen.
    """
    groups = parameter_groups(model, options)
    if not groups:
        raise ConfigError("expected parameters that training may change; found all of them frozen")
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(
        groups,
        lr=options.lr,
        betas=options.betas,
        weight_decay=options.weight_decay,
    )


@dataclass(frozen=True)
class StepResult:
    """The result of a step: mean `loss` over the `pictures` of all processes, and the length of
    their `gradient`. Where one of them is no number nothing was updated, and `suspects` are the
    keys of this process's pictures that may be why."""

    loss: float
    pictures: int
    gradient: float = 0.0
    suspects: list[str] = field(default_factory=list)

    @property
    def trouble(self) -> str:
        """Name and value of what is no number; '' where all is well."""
        if not math.isfinite(self.loss):
            return f"loss became {self.loss}"
        return "" if math.isfinite(self.gradient) else f"gradient became {self.gradient}"


class Stepper:
    """Model, optimizer and loss scaling of a run, in one of its processes."""

    def __init__(
        self,
        model: Detector,
        options: TrainOptions,
        device: Device,
        world: World,
        compiled: bool = False,
    ) -> None:
        self.model, self.options, self.device, self.world = model, options, device, world
        self.optimizer = make_optimizer(model, options)
        self.scaler = torch.amp.GradScaler(device.device.type, enabled=device.precision == "fp16")
        self.compiled = compiled
        self.losses: nn.Module = Losses(model)
        if compiled:
            self.losses.compile()
        if world.size > 1:
            self.losses = DistributedDataParallel(self.losses)

    def _together(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a backward pass: gradients are averaged over processes in the last one of
        a step only."""
        if last or not isinstance(self.losses, DistributedDataParallel):
            return nullcontext()
        return self.losses.no_sync()

    def _backward(self, batch: Batch, weight: float) -> float:
        """The loss of a batch, whose gradients times `weight` are added to the parameters'."""
        smooth = self.options.label_smoothing
        device = self.device.device
        # Smoothed towards an even chance, so that no logit is drawn to infinity.
        labels = torch.tensor(batch.labels, device=device) * (1 - smooth) + smooth / 2
        values = None if batch.values is None else move(batch.values, device)
        with self.device.autocast():
            loss = self.losses(values, labels, batch.embedded)
        self.scaler.scale(loss * weight).backward()
        return float(loss.detach())

    def step(self, batches: Sequence[Batch], rate: float) -> StepResult:
        """The result of one step, on all processes' batches, at a learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        # By the pictures that can be read, or unreadable ones would weaken the step.
        sizes = [len(batch.keys) for batch in batches]
        [pictures] = self.world.total([sum(sizes)])
        if not pictures:
            return StepResult(0.0, 0)
        own, suspects = 0.0, []
        for batch, size in zip(batches, sizes, strict=True):
            if size == 0 and self.world.size == 1:
                continue
            with self._together(batch is batches[-1]):
                # DistributedDataParallel divides by the number of processes.
                loss = self._backward(batch, size * self.world.size / pictures)
            own += loss * size
            suspects += [] if math.isfinite(loss) else batch.keys
        [total] = self.world.total([own])
        loss, gradient = total / pictures, 0.0
        # The mean of all processes decides, so that all of them update or none.
        if math.isfinite(loss):
            gradient = self._update()
            if not math.isfinite(gradient):
                suspects = [key for batch in batches for key in batch.keys]
        return StepResult(loss, int(pictures), gradient, suspects)

    def _update(self) -> float:
        """Updates the weights. Returns the length of the gradient; where it is no number they stay.
        fp16 expects that now and then, and scales the next losses down: the length is 0 there."""
        self.scaler.unscale_(self.optimizer)
        # Also without clipping: it measures the length, which says whether the step is sound.
        most = math.inf if self.options.clip_norm is None else self.options.clip_norm
        length = float(nn.utils.clip_grad_norm_(self.model.parameters(), most))
        fp16 = self.scaler.is_enabled()
        if fp16 or math.isfinite(length):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return 0.0 if fp16 else length

    def state(self) -> dict[str, Any]:
        """The state of optimizer and loss scaling, for the checkpoint."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Loads a state of `state`."""
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
