"""Training checkpoints: all that a resumed run needs to end as an uninterrupted one would.

The training loop writes and reads them; they hold tensors and plain values. A kill at any moment
must leave a whole one, and reading a stranger's must run none of its code.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectors._base import Detector
from detectors._errors import WeightsError

from ..runtime.files import naming, replace_file
from ..weights import original
from ..weights.files import tensors_digest, write_pickle


class Averaged:
    """The exponential moving average of a model's weights and buffers. Early on the average is
    short: decay min(ema, (1 + step) / (10 + step)), as TensorFlow's has it."""

    def __init__(self, model: Detector, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards `model` after optimizer step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own, other = self.model.state_dict().values(), model.state_dict().values()
        for average, value in zip(own, other, strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value, 1 - decay)
            else:  # counters, as batch norms have them, have no average
                average.copy_(value)


def is_head(name: str) -> bool:
    """Whether a parameter belongs to the classifier, which no pretrained backbone has."""
    return name.split(".")[-2:-1] == ["fc"]


def own_state(model: Detector) -> dict[str, Tensor]:
    """The state dict without the frozen parts that come from files of their own."""
    outside = tuple(type(model).external(model.options))
    return {k: v for k, v in model.state_dict().items() if not k.startswith(outside)}


def frozen_digest(model: Detector) -> str:
    """A digest of the parts that `own_state` leaves out; '' where there are none."""
    outside = tuple(type(model).external(model.options))
    frozen = {k: v for k, v in model.state_dict().items() if outside and k.startswith(outside)}
    return tensors_digest(frozen) if frozen else ""


def restore_own(model: Detector, saved: dict[str, Tensor]) -> None:
    """Loads a state of `own_state` into a model; its other parts stay."""
    model.load_state_dict({**model.state_dict(), **saved})


@torch.no_grad()
def anchored(model: nn.Module, start: dict[str, Tensor], share: float) -> nn.Module:
    """A copy of a model that is drawn towards its start: fine-tuning then forgets less of what it
    did not see (WiSE-FT, arXiv 2109.01903).

    Args:
        model: as it is now.
        start: the weights that it started from; others, and the classifier, stay.
        share: of the start in the copy, 0 to 1.
    """
    blend = copy.deepcopy(model).eval().requires_grad_(False)
    for name, value in blend.state_dict().items():
        if name in start and value.dtype.is_floating_point and not is_head(name):
            value.lerp_(start[name].to(value.device), share)  # a resumed start is on the CPU
    return blend


def random_states() -> dict[str, Any]:
    """States of torch's generators, the only global ones in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_states(states: dict[str, Any]) -> None:
    """Sets torch's generators back; CUDA's only when there are as many devices."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint; the last one becomes `<name>.previous`.

    At any moment one of the three files that `read_checkpoint` looks at is whole.
    """
    temporary = path.with_name(path.name + ".part")
    with naming(path):
        write_pickle(temporary, {"format": original.FORMAT, **state})
    if path.exists():
        path.replace(path.with_name(path.name + ".previous"))
    replace_file(temporary, path)


def read_checkpoint(path: Path) -> tuple[dict[str, Any] | None, str]:
    """The newest whole checkpoint, or None, and a note on a damaged one that was passed over.

    Raises:
        WeightsError: files are there, but none of them is whole.
    """
    note = ""
    # In this order: between the two renames of `save_checkpoint` the newest state is in `.part`.
    for suffix in ("", ".part", ".previous"):
        candidate = path.with_name(path.name + suffix)
        if not candidate.exists():
            continue
        try:
            original.check(candidate)  # a stranger's run may be resumed, too
            state = original.load(candidate)
        except WeightsError as error:
            note = str(error)
            continue
        if isinstance(state, dict) and state.get("format") == original.FORMAT:
            if suffix == ".part":
                candidate.replace(path)  # the run was killed just before this
            return state, note
        note = f"{candidate}: not a checkpoint of this program"
    if note:
        raise WeightsError(f"{note}; no whole checkpoint is left: start again with --overwrite")
    return None, ""
