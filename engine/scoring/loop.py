"""The scoring loop: from records of pictures to their rows, a batch at a time.

The only one: phases test and eval, the validation of a training and the scripts all score through
it, so that a picture has one score wherever it is asked for. It never changes the model, never lets
a picture's score depend on how many others, processes or views there are, and imports no torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Record
from datasets._images import (
    SCORING_SEED,
    Extras,
    Inspect,
    Lookup,
    PictureDataset,
    Sample,
    Transform,
)

from ..runtime.workers import IN_PROCESS, Workers, in_turn, streamed
from .answer import Answer
from .backend import Backend
from .degradations import NONE, Degradation
from .probability import score_of
from .table import ScoreRow

NOT_FINITE = "the detector's logit is not finite"
Show = Callable[[Record, Any], None]


@dataclass
class Tally:
    """Counts of the pictures that went through the network, and of those known from earlier
    runs."""

    scored: int = 0
    reused: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.scored + other.scored, self.reused + other.reused)

    def count(self, items: Sequence[Sample]) -> None:
        """Adds a batch; pictures that could not be read are neither scored nor reused."""
        self.scored += sum(item.value is not None for item in items)
        self.reused += sum(item.known is not None for item in items)


@dataclass(frozen=True)
class ScoringOptions:
    """The options of scoring, beside the backend.

    `batch_size`: pictures that are decoded and handed on together; `seed`: of what a transform or
    degradation draws; `degradation`: what each picture goes through first, None = nothing;
    `validation`: see pictures as training validates, by the detector's `val_transform`, each with a
    seed of its own; `views`: degradations under which `answers` scores each picture once more;
    `inspect`: what `answers` tells of each file besides, made of its bytes where it is decoded.

    `show` gets each readable picture's record and the relevance that its logit rests on. `lookup`
    knows pictures by the digest of their file, which rows then carry, and what it knows is not
    scored again. `tally` counts both kinds.
    """

    batch_size: int
    workers: Workers = IN_PROCESS
    seed: int = SCORING_SEED
    degradation: Degradation | None = None
    validation: bool = False
    views: tuple[Degradation, ...] = ()
    inspect: Inspect | None = None
    show: Show | None = None
    lookup: Lookup | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def pictures_at_a_time(self) -> int:
        """Pictures of a batch of `answers`: they and their views are about `batch_size` together,
        which bounds the memory."""
        return max(1, self.batch_size // (1 + len(self.views)))


def row_of(record: Record, item: Sample, logit: float | None, degradation: str) -> ScoreRow:
    """Row of a picture, whose item gives size, digest and error.

    Args:
        record: whose picture it is.
        item: as a PictureDataset gives it.
        logit: rounded; None where the picture could not be read.
        degradation: name of what the picture went through.
    """
    error = item.error
    # A table holds finite numbers alone: an overflow is an error of that picture.
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


def score(
    backend: Backend, records: Sequence[Record], options: ScoringOptions
) -> Iterator[list[ScoreRow]]:
    """Rows of `records` in their order, a batch at a time.

    Logits are rounded to 6 decimals; the score derives from the rounded logit.

    Args:
        backend: the detector, and what computes it.
        records: of the pictures; unreadable ones give rows with their error.
        options: all else; its views are not looked at.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    transform = backend.transform(options.validation)
    workers = options.workers
    dataset = PictureDataset(
        records, transform, options.degradation, options.seed, options.lookup, workers.limits,
        workers.decoding,
    )  # fmt: skip
    names = [options.degradation.name if options.degradation else NONE]
    turns = in_turn(dataset, options.batch_size, workers, options.validation)
    batches = ((records, items) for items in turns)
    for batch in _scored(backend, batches, options, names):
        yield [answer.row for answer in batch]


def answers(
    backend: Backend, records: Iterable[Record], options: ScoringOptions
) -> Iterator[list[Answer]]:
    """Answers of phase test on `records` in their order: what `score` gives, with notes on each
    picture and the rows of its views, `pictures_at_a_time` together.

    Args:
        backend: as `score` has it.
        records: any number of them, which are taken as they are scored; no list is made.
        options: all else; phase test degrades nothing and looks nothing up.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    names = [NONE, *(view.name for view in options.views)]
    batches = decoded(backend.transform(validation=False), records, options)
    yield from _scored(backend, batches, options, names)


def decoded(
    transform: Transform, records: Iterable[Record], options: ScoringOptions
) -> Iterator[tuple[list[Record], list[Sample]]]:
    """The first half of `answers`, which needs no network: the records of each batch, and items.

    Args:
        transform: the backend's.
        records, options: as `answers` has them.

    Raises:
        ConfigError: a process that decodes cannot be started.
    """
    workers = options.workers
    dataset = PictureDataset(
        (), transform, seed=options.seed, limits=workers.limits, decoding=workers.decoding,
        extras=Extras(options.views, notes=True, inspect=options.inspect),
    )  # fmt: skip
    yield from streamed(dataset, records, options.pictures_at_a_time, workers)


def answered(
    backend: Backend, records: Sequence[Record], items: Sequence[Sample], options: ScoringOptions
) -> list[Answer]:
    """The second half of `answers`, on a batch of `decoded`, maybe another machine's.

    Args:
        backend, options: as `answers` has them.
        records, items: of the batch.
    """
    names = [NONE, *(view.name for view in options.views)]
    return _submitted(backend, records, items, names, options.show)()


def _scored(
    backend: Backend,
    batches: Iterable[tuple[Sequence[Record], list[Sample]]],
    options: ScoringOptions,
    names: Sequence[str],
) -> Iterator[list[Answer]]:
    """Answers of pictures, a batch at a time and in order.

    Args:
        backend: which may compute some batches `ahead`, so that a device need not wait for this
            process.
        batches: the items of each, and the records that their indices are of.
        names: of the degradations of an item and of its views, in their order.
    """
    backend.prepare()
    pending: deque[Callable[[], list[Answer]]] = deque()
    for records, items in batches:
        pending.append(_submitted(backend, records, items, names, options.show))
        options.tally.count(items)
        if len(pending) > backend.ahead:
            yield pending.popleft()()
    while pending:
        yield pending.popleft()()


def _with_given(
    backend: Backend, records: Sequence[Record], items: Sequence[Sample]
) -> Sequence[Sample]:
    """Items with what other programs say of their pictures, where the detector takes that."""
    if (given := backend.given) is None:
        return items
    return [
        item
        if item.value is None
        else replace(item, value=[*item.value, given[records[item.index].key]])
        for item in items
    ]


def _submitted(
    backend: Backend,
    records: Sequence[Record],
    items: Sequence[Sample],
    names: Sequence[str],
    show: Show | None,
) -> Callable[[], list[Answer]]:
    """Begins to compute a batch; `names` as `_scored` has them. The call of what it gives waits for
    the answers."""
    items = _with_given(backend, records, items)
    results = _results(backend, items, show is not None)
    # Apart from the pictures, for nobody sees what a view rests on.
    results_of_views = _results(backend, [view for item in items for view in item.views], False)

    def answers_of_batch() -> list[Answer]:
        of_views = results_of_views()
        answers = []
        for item, (logit, relevance) in zip(items, results(), strict=True):
            record = records[item.index]
            row = row_of(record, item, logit, names[0])
            # A picture that cannot be read has no views.
            views = [
                row_of(record, view, next(of_views)[0], name)
                for view, name in zip(item.views, names[1:], strict=bool(item.views))
            ]
            answers.append(Answer(row, tuple(views), item.notes, item.inspected))
            if show is not None and relevance is not None:
                show(record, relevance)
        return answers

    return answers_of_batch


def _results(
    backend: Backend, items: Sequence[Sample], explain: bool
) -> Callable[[], Iterator[tuple[float | None, Any]]]:
    """Begins to compute items. The call of what it gives waits for the logit and relevance of each:
    computed, or known from an earlier run; None where it has none."""
    # A network never sees an empty batch, as one of unreadable pictures alone would be.
    values = [item.value for item in items if item.value is not None]
    pending = backend.submit(values, explain) if values else list

    def results() -> Iterator[tuple[float | None, Any]]:
        computed = iter(pending())
        for item in items:
            yield next(computed) if item.value is not None else (item.known, None)

    return results
