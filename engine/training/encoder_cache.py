"""Values of a frozen encoder, computed once where they would be the same every epoch.

Training's batches and its validation take them in place of pictures. A network learns from them
exactly what it would learn from the pictures; where these vary, nothing may be computed ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets import Record
from datasets._images import Draw, PictureDataset, Sample
from detectors._base import Detector

from ..runtime.device import Device
from ..runtime.distributed import World
from ..runtime.progress import Progress
from ..runtime.workers import Workers, in_turn
from ..scoring.backend import rounded
from ..scoring.loop import row_of
from ..scoring.table import ScoreRow
from ..scoring.torch_backend import move

AT_ONCE = 4096  # pictures of a pass of the trained part, which is small


@dataclass(frozen=True)
class Embedded:
    """The frozen part's `values` (N, ...) for the readable ones of some records, float32 on the
    CPU. `rows_of`: the row in them of each record, by its index; `errors`: of the unreadable
    ones."""

    values: Tensor
    rows_of: Mapping[int, int]
    errors: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.rows_of) + len(self.errors)

    def __getitem__(self, draw: Draw) -> Sample:
        """The item of a picture, without its size."""
        row = self.rows_of.get(draw.index)
        value = None if row is None else self.values[row]
        return Sample(draw.index, value, self.errors.get(draw.index, ""))

    def batches(self, batches: Iterable[Sequence[Draw]]) -> Iterator[list[Sample]]:
        """Items of each batch, in order, as a Pool gives them."""
        return ([self[draw] for draw in batch] for batch in batches)

    def rows(
        self, model: Detector, records: Sequence[Record], device: Device, degradation: str
    ) -> list[ScoreRow]:
        """Rows of the records by the trained part of a model, without the pictures' sizes.

        Args:
            model: whose trained part classifies the values.
            records: that the values were computed for, all of them.
            device: where the model is.
            degradation: name of what the pictures went through.
        """
        logits: list[float] = []
        for chunk in self.values.split(AT_ONCE):
            with torch.inference_mode(), device.autocast():
                logits += rounded(model.classify(chunk.to(device.device)).float().tolist())
        known = {index: logits[row] for index, row in self.rows_of.items()}
        return [
            row_of(record, self[Draw(i, 0)], known.get(i), degradation)
            for i, record in enumerate(records)
        ]


class _Own:
    """The values of one process, in one tensor that is as large as it may become: joining small
    ones would take twice the memory."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.values = torch.empty(0)
        self.indices: list[int] = []
        self.errors: dict[int, str] = {}

    def add(self, indices: Sequence[int], values: Tensor) -> None:
        """Adds the values (n, ...) of the records at n indices."""
        if not self.indices:
            self.values = torch.empty(self.most, *values.shape[1:])
        self.values[len(self.indices) : len(self.indices) + len(indices)] = values
        self.indices += indices

    def part(self) -> tuple[list[int], Tensor, dict[int, str]]:
        """Indices, values and errors for the other processes."""
        filled = self.values[: len(self.indices)]
        whole = len(self.indices) == len(self.values)
        # Pickled, a view would bring all that it is a view of.
        return self.indices, filled if whole else filled.clone(), self.errors


def _joined(parts: Sequence[tuple[list[int], Tensor, dict[int, str]]]) -> Embedded:
    """The values of all processes, as one."""
    order = [index for indices, _, _ in parts for index in indices]
    filled = [values for indices, values, _ in parts if indices]
    values = filled[0] if len(filled) == 1 else torch.cat(filled or [torch.empty(0)])
    errors = {index: error for _, _, unread in parts for index, error in unread.items()}
    return Embedded(values, {index: row for row, index in enumerate(order)}, errors)


def embed(
    model: Detector,
    dataset: PictureDataset,
    device: Device,
    batch_size: int,
    workers: Workers,
    validation: bool,
    world: World,
    check: Callable[[], None] = lambda: None,
) -> Embedded | None:
    """Runs the frozen part of a model over all pictures, shared among the processes.

    Args:
        validation: each picture has a seed of its own, as `in_turn` has it, and the main process
            alone gets the result, the others None; without, all of them do.
        check: called by all processes after each of their batches, as often by each.
    """
    count = len(dataset)
    batches = [range(i, min(i + batch_size, count)) for i in range(0, count, batch_size)]
    own_indices = [i for batch in batches[world.rank :: world.size] for i in batch]
    records = [dataset.records[i] for i in own_indices]
    part = PictureDataset(
        records, dataset.transform, dataset.degradation, dataset.seed, None, dataset.limits,
        dataset.decoding,
    )  # fmt: skip
    turns = in_turn(part, batch_size, workers, validation) if own_indices else iter(())
    own = _Own(len(own_indices))
    with Progress(count, "frozen encoder", shown=world.main) as progress:
        for _ in range(0, len(batches), world.size):
            items = next(turns, [])
            own.errors |= {own_indices[i.index]: i.error for i in items if i.value is None}
            if readable := [item for item in items if item.value is not None]:
                batch = move(model.collate([item.value for item in readable]), device.device)
                with torch.no_grad(), device.autocast():
                    values = model.embed(batch).float().cpu()
                own.add([own_indices[item.index] for item in readable], values)
            progress.advance(len(items) * world.size)
            check()
    parts = world.gather(own.part())
    if validation:
        return _joined(parts) if world.main else None
    return world.run_on_main(_joined, parts)
