"""Training pictures on their way to the network: decoded, sorted out, and in batches.

The training loop draws its steps from a Feed. Which pictures a step has depends on the epoch and
the seed alone, never on what was interrupted, or how many processes decode or train.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from datasets import Record
from datasets._images import PictureDataset, Sample
from detectors._base import Detector

from ..config import TrainOptions
from ..runtime.device import Device
from ..runtime.distributed import World
from ..runtime.workers import Pool, Workers
from ..scoring import degradations
from .encoder_cache import Embedded, embed
from .schedule import draws, epoch_order, shares
from .step import Batch

log = logging.getLogger(__name__)


class Feed:
    """The training pictures of one process, epoch after epoch.

    `bad`: errors by key of the unreadable ones that all processes know of; `new_bad`: of those that
    this process alone knows of. `waited`: seconds that the network has waited for pictures in this
    epoch.
    """

    def __init__(
        self,
        model: Detector,
        records: Sequence[Record],
        options: TrainOptions,
        device: Device,
        workers: Workers,
        world: World,
    ) -> None:
        self.model, self.records, self.options = model, records, options
        self.device, self.workers, self.world = device, workers, world
        self.bad: dict[str, str] = {}
        self.new_bad: dict[str, str] = {}
        self.waited = 0.0
        self._source: Pool | Embedded | None = None

    def _dataset(self, embed_batch: int, check: Callable[[], None]) -> PictureDataset | Embedded:
        """The pictures as training looks at them, or the values of a frozen encoder for them."""
        transform = self.model.transform(train=self.options.augment)
        limits, decoding = self.workers.limits, self.workers.decoding
        degraded = degradations.choice(self.options.degrade, "train.degrade")
        pictures = PictureDataset(
            self.records, transform, degraded, self.options.seed, limits=limits, decoding=decoding
        )
        # Pictures that vary give an encoder something new each time, and nothing can be kept.
        if self.options.augment or degraded is not None or not self.model.embeds:
            return pictures
        log.info("pictures do not vary: what the frozen encoder makes of them is computed once")
        self.model.eval()  # as it is in scoring: its dropout would be frozen into the result
        embedded = embed(
            self.model, pictures, self.device, embed_batch, self.workers, False, self.world, check
        )
        assert embedded is not None
        return embedded

    def prepare(self, embed_batch: int, check: Callable[[], None]) -> None:
        """Makes the pictures ready, in the first epoch: a pool of processes that decode, or the
        values of a frozen encoder, `embed_batch` pictures at a time with a `check` after each."""
        if self._source is not None:
            return
        dataset = self._dataset(embed_batch, check)
        self._source = dataset if isinstance(dataset, Embedded) else Pool(dataset, self.workers)

    def close(self) -> None:
        """Ends the processes that decode."""
        if isinstance(self._source, Pool):
            self._source.close()
        self._source = None

    def epoch(self, number: int, steps: int, first: int) -> Iterator[list[Batch]]:
        """The `accumulate` batches of each step of an epoch.

        Args:
            number: of the epoch, from 0.
            steps: that the epoch has.
            first: the step that a resumed epoch goes on with.
        """
        assert self._source is not None
        # The whole epoch is drawn, then cut: a resumed one sees what it would have seen.
        drawn = draws(epoch_order(self.records, self.options, number), number)
        own = shares(drawn, self.options, steps, self.world.rank, self.world.size)
        at_once = self.options.accumulate
        self.waited = 0.0
        # One stream over all steps, so that the next batch is decoded while the network computes.
        stream = self._source.batches(own[first * at_once :])
        for _ in range(first, steps):
            asked = time.monotonic()
            batches = [self._batch(next(stream)) for _ in range(at_once)]
            self.waited += time.monotonic() - asked
            yield batches

    def _batch(self, items: list[Sample]) -> Batch:
        """The batch of the readable pictures; the others are noted as bad files."""
        for item in items:
            # By key: a picture that is drawn again in an epoch is one bad file.
            key = self.records[item.index].key
            if item.value is None and key not in self.bad:
                self.new_bad.setdefault(key, item.error)
        readable = [item for item in items if item.value is not None]
        records = [self.records[item.index] for item in readable]
        values = [item.value for item in readable]
        # Labels and keys below are of the readable ones, in the order of the tensor's rows.
        embedded = isinstance(self._source, Embedded)
        collate: Callable[[list[Any]], Any] = torch.stack if embedded else self.model.collate
        return Batch(
            collate(values) if values else None,
            # Pre-training has no labels, and does not look at these.
            [float(record.label or 0) for record in records],
            [record.key for record in records],
            embedded,
        )

    def share_bad(self) -> None:
        """Makes the unreadable pictures of each process known to all."""
        parts = self.world.gather(self.new_bad)
        self.bad |= self.world.run_on_main(_merged, parts)
        self.new_bad = {}

    def too_many_bad(self) -> bool:
        """Whether more are unreadable, in all processes together, than the recipe allows."""
        most = self.options.most_bad(len(self.records))
        [new] = self.world.total([len(self.new_bad)])
        if len(self.bad) + new <= most:
            return False
        self.share_bad()  # a picture may count twice so far: in two processes
        return len(self.bad) > most


def _merged(parts: Sequence[dict[str, str]]) -> dict[str, str]:
    """The entries of all parts."""
    return {key: error for part in parts for key, error in part.items()}
