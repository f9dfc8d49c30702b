"""What a frozen encoder makes of pictures, computed once where it would be the same every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets import Record
from datasets._images import Draw, Item, PictureDataset
from detectors._base import Detector

from .distributed import World
from .predict import Device, in_turn, move, row_of
from .progress import Progress
from .table import ScoreRow

AT_ONCE = 4096  # pictures that the trained part judges in one pass


@dataclass(frozen=True)
class Embedded(Dataset):
    """`values`: record's index -> what the frozen part made of it, float32 on the CPU. `errors`:
    index -> why a picture could not be read."""

    values: Mapping[int, Tensor] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values) + len(self.errors)

    def __getitem__(self, place: Draw) -> Item:
        """As PictureDataset gives it, without its size."""
        return Item(place.index, self.values.get(place.index), self.errors.get(place.index, ""))

    def rows(
        self, model: Detector, records: Sequence[Record], device: Device, degradation: str
    ) -> list[ScoreRow]:
        """The rows of the records by the trained part of a model."""
        logits: dict[int, float] = {}
        known = sorted(self.values)
        for first in range(0, len(known), AT_ONCE):
            some = known[first : first + AT_ONCE]
            with torch.inference_mode(), device.autocast():
                batch = torch.stack([self.values[i] for i in some]).to(device.device)
                logits |= zip(some, model.judge(batch).float().tolist(), strict=True)
        return [
            row_of(record, self[Draw(i, 0)], logits.get(i), degradation)
            for i, record in enumerate(records)
        ]


def embed(
    model: Detector,
    dataset: PictureDataset,
    device: Device,
    batch_size: int,
    workers: int,
    validation: bool,
    world: World,
) -> Embedded:
    """Runs the frozen part of a model over all pictures, shared among the processes, each of which
    gets all of it. `validation`: each picture has a seed of its own, as `in_turn` has it."""
    count = len(dataset)
    starts = range(0, count, batch_size)[world.rank :: world.size]
    own = [i for first in starts for i in range(first, min(first + batch_size, count))]
    records = [dataset.records[i] for i in own]
    part = PictureDataset(records, dataset.transform, dataset.degradation, dataset.seed)
    values: dict[int, Tensor] = {}
    errors: dict[int, str] = {}
    with Progress(count, "frozen encoder", shown=world.main) as progress:
        for items in in_turn(part, batch_size, workers, validation) if own else ():
            readable = [item for item in items if item.value is not None]
            errors |= {own[item.index]: item.error for item in items if item.value is None}
            if readable:
                batch = move(model.collate([item.value for item in readable]), device.device)
                with torch.no_grad(), device.autocast():
                    found = model.embed(batch).float().cpu()
                places = [own[item.index] for item in readable]
                values |= zip(places, found.unbind(), strict=True)
            progress.advance(len(items) * world.size)
    parts = world.gather((values, errors))
    return world.shared(
        lambda: Embedded(
            {i: value for some, _ in parts for i, value in some.items()},
            {i: error for _, some in parts for i, error in some.items()},
        )
    )
