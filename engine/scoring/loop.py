"""THE scoring loop: records -> rows. Phases test, eval and train's validation all use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets import Record
from datasets._images import SCORING_SEED, Extras, Lookup, PictureDataset, Sample
from detectors._base import Detector

from ..runtime.device import Device, reuse_memory
from ..runtime.workers import IN_PROCESS, Workers, in_turn
from .answer import Answer
from .degradations import NONE, Degradation
from .probability import DECIMALS, score_of
from .table import ScoreRow

AT_ONCE = 4  # pictures of a forward pass on the CPU: tensors of more leave its cache
NOT_FINITE = "the detector's logit is not finite"
Show = Callable[[Record, Tensor], None]


@dataclass
class Tally:
    """How many pictures went through the network, and how many were known from earlier runs."""

    scored: int = 0
    reused: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.scored + other.scored, self.reused + other.reused)


def row_of(record: Record, item: Sample, logit: float | None, degradation: str) -> ScoreRow:
    error = item.error
    if logit is not None and not math.isfinite(logit):
        logit, error = None, NOT_FINITE
    return ScoreRow(
        key=record.key,
        source=record.source,
        generator=record.generator,
        label=None if record.label is None else int(record.label),
        logit=logit,
        score=None if logit is None else score_of(logit),
        error=error,
        degradation=degradation,
        width=item.width,
        height=item.height,
        digest=item.digest,
    )


def move(batch: Any, device: torch.device) -> Any:
    """A collated batch on a device: a tensor, or a list of what makes a batch."""
    if isinstance(batch, list):
        return [move(part, device) for part in batch]
    return batch.to(device, non_blocking=True)


def _logits(
    model: Detector, items: list[Sample], device: Device, explain: bool
) -> list[tuple[float, Tensor | None]]:
    """Logit and, to explain it, relevance of each item."""
    step = AT_ONCE if device.device.type == "cpu" else len(items)
    found = []
    for first in range(0, len(items), step):
        found += _forward(model, items[first : first + step], device, explain)
    return found


def _forward(
    model: Detector, items: list[Sample], device: Device, explain: bool
) -> list[tuple[float, Tensor | None]]:
    """One pass of `_logits`."""
    batch = model.collate([item.value for item in items])
    with torch.inference_mode(), device.autocast():
        batch = move(batch, device.device)
        relevance: list[Any] = [None] * len(items)
        if explain:
            values, relevance = model.explain(batch)
        else:
            values = model(batch)
    return list(zip(rounded(values), relevance, strict=True))


def rounded(logits: Tensor) -> list[float]:
    """Logits as tables have them. Adding zero turns -0.0, which reads like an error, into 0.0."""
    return [round(value, DECIMALS) + 0.0 for value in logits.float().tolist()]


def score(
    model: Detector,
    records: Sequence[Record],
    device: Device,
    batch_size: int,
    workers: Workers = IN_PROCESS,
    degradation: Degradation | None = None,
    seed: int = SCORING_SEED,
    show: Show | None = None,
    lookup: Lookup | None = None,
    tally: Tally | None = None,
    validation: bool = False,
) -> Iterator[list[ScoreRow]]:
    """Yields the rows of `records` in their order, a batch at a time.

    The model is used as it is: in evaluation mode, on its device. Unreadable pictures give rows
    with their error. Logits are rounded to 6 decimals; the score derives from the rounded logit.
    `show` gets each readable picture's record and the relevance that its logit rests on. With
    `lookup` rows carry the digest of the picture's file, and what it knows is not scored again.
    `tally` counts. With `validation` the pictures are seen as training validates: by the detector's
    `val_transform`, each with a seed of its own.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    if device.device.type == "cpu":
        reuse_memory()
    transform = model.val_transform() if validation else model.transform(train=False)
    decoded = (workers.limits, workers.decoding)
    dataset = PictureDataset(records, transform, degradation, seed, lookup, *decoded)
    names = [degradation.name if degradation else NONE]
    for items in in_turn(dataset, batch_size, workers, validation):
        found = _answers(model, records, items, device, names, show)
        if tally is not None:
            tally.scored += sum(item.value is not None for item in items)
            tally.reused += sum(item.known is not None for item in items)
        yield [answer.row for answer in found]


def answers(
    model: Detector,
    records: Sequence[Record],
    device: Device,
    batch_size: int,
    workers: Workers = IN_PROCESS,
    seed: int = SCORING_SEED,
    show: Show | None = None,
    views: Sequence[Degradation] = (),
) -> Iterator[list[Answer]]:
    """Yields what `score` does, with notes on each picture and the rows of its `views`: so many
    pictures at a time that they and their views are about `batch_size`, which bounds the memory."""
    if device.device.type == "cpu":
        reuse_memory()
    dataset = PictureDataset(
        records, model.transform(train=False), seed=seed, limits=workers.limits,
        decoding=workers.decoding, extras=Extras(tuple(views), notes=True),
    )  # fmt: skip
    names = [NONE, *(view.name for view in views)]
    for items in in_turn(dataset, pictures_at_a_time(batch_size, views), workers):
        yield _answers(model, records, items, device, names, show)


def pictures_at_a_time(batch_size: int, views: Sequence[Degradation]) -> int:
    """How many pictures go through `answers` together."""
    return max(1, batch_size // (1 + len(views)))


def _answers(
    model: Detector,
    records: Sequence[Record],
    items: Sequence[Sample],
    device: Device,
    names: Sequence[str],
    show: Show | None,
) -> list[Answer]:
    """The answers of a batch; `names` of the degradations of an item and of its views."""
    own = _results(model, items, device, show is not None)
    # Nobody sees what the views rest on.
    others = _results(model, [view for item in items for view in item.views], device, False)
    answers = []
    for item, (logit, relevance) in zip(items, own, strict=True):
        record = records[item.index]
        row = row_of(record, item, logit, names[0])
        views = [
            row_of(record, view, next(others)[0], name)
            for view, name in zip(item.views, names[1:], strict=bool(item.views))
        ]
        answers.append(Answer(row, tuple(views), item.notes))
        if show is not None and relevance is not None:
            show(record, relevance)
    return answers


def _results(
    model: Detector, items: Sequence[Sample], device: Device, explain: bool
) -> Iterator[tuple[float | None, Tensor | None]]:
    """Logit and relevance of each item, None where it has none."""
    readable = [item for item in items if item.value is not None]
    found = iter(_logits(model, readable, device, explain) if readable else [])
    for item in items:
        yield next(found) if item.value is not None else (item.known, None)
