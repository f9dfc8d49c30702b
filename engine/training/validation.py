"""Validation and test pictures of a training: scored after each epoch, and measured.

The training loop calls a Validation in all processes alike; the best epoch is chosen by it. The
same weights must give the same numbers, after whichever epoch, in however many processes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from datasets import Record
from datasets._images import PictureDataset
from detectors._base import Detector

from ..config import Config, ConfigError
from ..evaluation import estimates, metrics
from ..reporting.training_curves import VAL_LOSS
from ..runtime.device import Device
from ..runtime.distributed import World
from ..runtime.progress import Progress
from ..runtime.workers import Workers
from ..scoring import degradations
from ..scoring.loop import NOT_FINITE
from ..scoring.scorer import TableScorer, score_share
from ..scoring.table import ScoreRow
from ..scoring.torch_backend import TorchBackend
from .encoder_cache import Embedded, embed
from .outputs import VALIDATED
from .start import Pictures

log = logging.getLogger(__name__)


def calmer(device: Device) -> str:
    """Advice about numbers that became too large, for the end of a message."""
    return "lower train.lr" + (", or use --precision fp32" if device.precision != "fp32" else "")


class Validation:
    """The pictures `val` that an epoch is chosen by, and `tests`, which choose nothing, by name.

    `heed` is called between batches, in all processes alike, and may raise to end the run.
    """

    def __init__(
        self,
        pictures: Pictures,
        config: Config,
        device: Device,
        workers: Workers,
        world: World,
        heed: Callable[[], None],
    ) -> None:
        self.val, self.tests = pictures.val, pictures.tests
        self.config = config
        self.device = device
        self.workers = workers
        self.world = world
        self.heed = heed
        self.degradation = degradations.parse(config.train.val_degrade, "train.val_degrade")
        self._encoded = False
        self._embedded: Embedded | None = None  # what the main process has once they are encoded
        # Sets whose unreadable pictures the log has; a test may be called validation, too.
        self._logged: set[tuple[str, bool]] = set()

    def __call__(self, model: Detector) -> dict[str, float]:
        """Loss, AP, AUROC, accuracy and balanced accuracy of a model on the validation pictures;
        then the same of each test, whose name stands before. Nothing without such pictures.

        Raises:
            ConfigError: a logit is no number, too many validation pictures cannot be read, or those
                that can are of one class.
        """
        if not self.val:
            return {}
        rows = self._embedded_rows(model) if model.embeds else self._rows(model, self.val, True)
        values = self._measured("validation", rows, needed=True)
        for name, records in self.tests.items():
            tested = self._measured(name, self._rows(model, records, False), needed=False)
            values |= {f"{name} {key}": value for key, value in tested.items()}
        return values

    def check_there(self) -> None:
        """Raises ConfigError when too many validation pictures are missing: better now than after
        an epoch."""
        missing = [record.key for record in self.val if not record.path.exists()]
        self._check_share(missing, "are not there")

    def _check_share(self, bad: Sequence[str], what: str) -> None:
        """Raises ConfigError when more validation pictures are bad than the recipe allows."""
        most = self.config.train.most_bad(len(self.val))
        if len(bad) > most:
            raise ConfigError(
                f"{len(bad)} of {len(self.val)} validation pictures, such as {bad[0]}, {what}: "
                f"expected at most {most}; repair them, or allow more by --set "
                "train.max_bad=SHARE"
            )

    def _embedded_rows(self, model: Detector) -> list[ScoreRow]:
        """Rows of the validation pictures, which are encoded once in a run."""
        if not self._encoded:
            self._encoded = True
            score = self.config.score
            transform = model.val_transform()
            pictures = PictureDataset(
                self.val, transform, self.degradation, score.seed, None, self.workers.limits,
                self.workers.decoding,
            )  # fmt: skip
            self._embedded = embed(
                model, pictures, self.device, score.batch_size, self.workers, True, self.world,
                self.heed,
            )  # fmt: skip
        if self._embedded is None:
            return []
        return self._embedded.rows(model, self.val, self.device, self.config.train.val_degrade)

    def _rows(self, model: Detector, records: Sequence[Record], validation: bool) -> list[ScoreRow]:
        """Rows of records by a model, in the main process; an empty list in the others."""
        backend = TorchBackend(model, self.device)
        scorer = TableScorer(backend, self.config, self.workers, validation=validation)
        degradation = self.config.train.val_degrade if validation else degradations.NONE
        everything = range(len(records))
        turns = score_share(self.world, scorer, records, everything, degradation, self.heed)
        rows: list[ScoreRow] = []
        with Progress(len(records), "validation", shown=self.world.main) as progress:
            for batch in turns:
                rows += batch
                progress.advance(len(batch))
        return rows

    def _measured(self, name: str, rows: Sequence[ScoreRow], needed: bool) -> dict[str, float]:
        """Metrics of the main process's rows, in all processes; NaN where they lack a class and
        both are not needed."""

        def measure() -> dict[str, float]:
            self._check(name, rows, needed)
            results = metrics.evaluate_rows(rows, threshold=0.5, resamples=1)
            if results.n_real and results.n_synthetic:
                values = {key: results.estimates[key].value for key in VALIDATED}
                return {VAL_LOSS: results.estimates[estimates.LOG_LOSS].value, **values}
            text = f"{name} needs readable pictures of both classes; found one class"
            if needed:
                raise ConfigError(text)
            log.warning("%s", text)
            return dict.fromkeys((VAL_LOSS, *VALIDATED), math.nan)

        return self.world.run_on_main(measure)

    def _check(self, name: str, rows: Sequence[ScoreRow], needed: bool) -> None:
        """Logs once for each set how many pictures could not be read. Raises ConfigError when they
        are too many of the validation's, or for a logit that is no number: to go by the rest would
        flatter the network."""
        if wrong := [row.key for row in rows if row.error == NOT_FINITE]:
            raise ConfigError(
                f"{name}: the logits of {len(wrong)} of {len(rows)} pictures, such as {wrong[0]}, "
                f"are no numbers: {calmer(self.device)}"
            )
        bad = [row.key for row in rows if row.error]
        if needed:
            self._check_share(bad, "could not be read")
        if bad and (name, needed) not in self._logged:
            log.warning("%s: %d of %d pictures could not be read", name, len(bad), len(rows))
        self._logged.add((name, needed))
