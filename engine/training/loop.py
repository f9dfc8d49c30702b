"""The training loop: one for every detector; recipes are configurations.

Phase train makes a Trainer of a network and a TrainRequest, and runs it in each process. A run that
was interrupted, at whatever moment, and resumed must end with the weights, to the bit, of one that
was not.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detectors._base import Detector

from ..config import ConfigError
from ..runtime.device import reuse_memory, training_device
from ..runtime.distributed import ALONE, World
from ..runtime.progress import Progress
from ..runtime.run_folder import other_settings
from ..runtime.signals import Interrupted, stop_requests
from ..scoring.scorer import listing_digest
from ..weights.manifest import BEST
from .batches import Feed
from .checkpoint import (
    Averaged,
    anchored,
    frozen_digest,
    own_state,
    random_states,
    read_checkpoint,
    restore_own,
    restore_random_states,
    save_checkpoint,
)
from .outputs import (
    BAD_FILES,
    BOARD,
    CHECKPOINT,
    EPOCH,
    FINAL,
    LOG,
    best_row,
    keep_weights,
    shown,
    write_bad,
    write_history,
)
from .schedule import lr_at, scaled, steps_per_epoch
from .start import TrainRequest
from .step import Batch, Stepper, StepResult
from .validation import Validation, calmer

log = logging.getLogger(__name__)


@dataclass
class State:
    """The position of a run, as plain values for the checkpoint."""

    epoch: int = 0
    step: int = 0  # within the epoch
    seen: int = 0  # pictures of the epoch, readable ones
    loss_sum: float = 0.0  # over them
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """One run, in one of its processes: model, optimizer, state, and the folder that the main
    process writes to."""

    def __init__(
        self,
        model: Detector,
        request: TrainRequest,
        world: World = ALONE,
    ) -> None:
        config, pictures = request.config, request.pictures
        self.request = request
        self.options = scaled(config.train, world.size)
        self.config = config
        self.output = request.output
        self.world = world
        self.device = training_device(request.device, config.train.precision)
        self.model = model.to(request.device)
        self.averaged = Averaged(self.model, self.options.ema) if self.options.ema else None
        self.start: dict[str, Tensor] | None = None
        if self.options.anchor:
            self.start = {k: v.clone() for k, v in own_state(self.model).items()}
        self.stepper = Stepper(self.model, self.options, self.device, world, request.compiled)
        self.stop: list[int] = []  # the signals that came
        self.steps = steps_per_epoch(pictures.train, self.options, world.size)
        self.state = State()
        self.feed = Feed(
            self.model, pictures.train, self.options, self.device, request.workers, world
        )
        self.bad_written = 0
        self.validation = Validation(
            pictures, config, self.device, request.workers, world, self._heed_signals
        )

    def model_to_validate(self) -> Detector:
        """The model whose validation counts, and whose weights are kept: the running average if
        there is one, drawn towards the start weights as `anchor` says; the same in all processes.
        """
        model: nn.Module = self.averaged.model if self.averaged else self.model
        if self.start is not None:
            model = anchored(model, self.start, self.options.anchor)
        # Each process has batch norm statistics of its own pictures.
        self.world.from_main(model.buffers())
        return model.eval()  # type: ignore[return-value]

    # --- checkpoints

    def save(self) -> None:
        """Writes the checkpoint that `resume` goes on from."""
        self.feed.share_bad()
        random = self.world.gather(random_states())
        if not self.world.main:
            return
        state = {
            "config": json.dumps(self.config.as_dict()),
            "identity": self.identity,
            "state": json.dumps(vars(self.state)),
            "bad": json.dumps(self.feed.bad),
            "model": own_state(self.model),
            "averaged": own_state(self.averaged.model) if self.averaged else None,
            "start": self.start,
            **self.stepper.state(),
            "random": random,
        }
        save_checkpoint(self.output / CHECKPOINT, state)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Values that a resumed run must have in common with the one it goes on with, beside the
        configuration, by the words that a message names them with."""
        pictures = self.request.pictures
        origins = self.request.start.origins()
        return {
            "pictures": listing_digest([*pictures.train, *pictures.val]),
            "number of processes": self.world.size,
            "weights to start from": [origin["sha256"] for origin in origins],
            "frozen parts": frozen_digest(self.model),
            "kind of device": self.device.device.type,
            "precision": self.device.precision,
            "--compile": self.stepper.compiled,
            "--test_csv": {name: listing_digest(part) for name, part in pictures.tests.items()},
        }

    def _saved(self) -> dict[str, Any] | None:
        """The folder's checkpoint. Raises ConfigError when it is of another run."""
        saved, note = read_checkpoint(self.output / CHECKPOINT)
        if note:
            log.warning("%s; going on from the one before", note)
        if saved is None:
            return None
        if keys := other_settings(json.loads(saved["config"]), self.config):
            raise ConfigError(f"--resume: the run in {self.output} had other {', '.join(keys)}")
        now = self.identity
        if others := [name for name, value in now.items() if saved["identity"][name] != value]:
            raise ConfigError(
                f"--resume: the run in {self.output} had other {', '.join(others)}: give the same, "
                "or use --overwrite or another --output"
            )
        return saved

    def resume(self) -> bool:
        """Goes on from the folder's checkpoint; False when there is none yet.

        Raises:
            ConfigError: it was made with another configuration, of other data, or otherwise.
        """
        saved = self.world.run_on_main(self._saved)
        if saved is None:
            return False
        self.state = State(**json.loads(saved["state"]))
        self.feed.bad = json.loads(saved["bad"])
        renamed = type(self.model).renamed
        restore_own(self.model, renamed(saved["model"]))
        if self.averaged:
            restore_own(self.averaged.model, renamed(saved["averaged"]))
        self.start = renamed(saved["start"])
        self.stepper.restore(saved)
        restore_random_states(saved["random"][self.world.rank])
        return True

    # --- one epoch

    def _set_train_mode(self) -> None:
        """Puts the network into training mode, but for batch norms that the recipe freezes."""
        self.model.train()
        if self.options.freeze_batchnorm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _step(self, batches: Sequence[Batch], global_step: int) -> StepResult:
        """The result of one optimizer step, which the running average follows."""
        rate = lr_at(self.options, global_step, self.steps)
        result = self.stepper.step(batches, rate)
        if result.trouble:
            self._refuse(result)
        # Without readable pictures nothing was learnt, and the average stays.
        if result.pictures and self.averaged:
            self.averaged.update(self.model, global_step)
        return result

    def _refuse(self, result: StepResult) -> None:
        """Raises ConfigError for a loss or gradient that is no number. The weights are as before
        the step."""
        keys = [key for part in self.world.gather(result.suspects) for key in part]
        log.error("pictures of the step whose %s: %s", result.trouble, ", ".join(keys))
        saved = self.output / CHECKPOINT
        raise ConfigError(
            f"the {result.trouble} at epoch {self.state.epoch + 1}, step {self.state.step + 1}: "
            f"{calmer(self.device)}; {LOG} names its pictures"
            + (f" (the state before is in {saved})" if saved.exists() else "")
        )

    def _refuse_bad(self) -> None:
        """Raises ConfigError for too many unreadable pictures."""
        self.feed.share_bad()
        bad, count = self.feed.bad, len(self.feed.records)
        if self.world.main:
            write_bad(self.output, bad)
        raise ConfigError(
            f"{len(bad)} of {count} training pictures ({100 * len(bad) / count:.1f} %) "
            f"could not be read, {self.output / BAD_FILES} names them: expected at most "
            f"{self.options.most_bad(count)}; repair them, or allow more by --set "
            "train.max_bad=SHARE"
        )

    def _train_epoch(self) -> None:
        """Trains the rest of an epoch: all of it, or what an interrupted run left of it."""
        self.feed.prepare(self.config.score.batch_size, self._heed_signals)
        self._set_train_mode()
        pictures = self.options.batch_size * self.options.accumulate * self.world.size
        total, before = self.steps * pictures, self.state.step * pictures
        what = f"epoch {self.state.epoch + 1}/{self.options.epochs}"
        begun = time.monotonic()
        steps = self.feed.epoch(self.state.epoch, self.steps, self.state.step)
        with Progress(total, what, before, shown=self.world.main) as progress:
            for batches in steps:
                result = self._step(batches, self.state.epoch * self.steps + self.state.step)
                self.state.loss_sum += result.loss * result.pictures
                self.state.seen += result.pictures
                self.state.step += 1
                progress.advance(pictures, **self._shown())
                self._after_step()
        spent = time.monotonic() - begun
        share = 100 * self.feed.waited / max(spent, 1e-9)
        log.info("%s: %.0f s, %.0f %% of them waiting for pictures", what, spent, share)

    def _shown(self) -> dict[str, str]:
        """Values that stand behind the progress bar."""
        rate = self.stepper.optimizer.param_groups[0]["lr"]
        mean = self.state.loss_sum / max(1, self.state.seen)
        bad = len(self.feed.bad) + len(self.feed.new_bad)
        values = {"loss": f"{mean:.4f}", "lr": f"{rate:.1e}"}
        return {**values, "unreadable": str(bad)} if bad else values

    def _after_step(self) -> None:
        """Ends or saves the run, where there is reason to, in all processes alike."""
        if self.feed.too_many_bad():
            self._refuse_bad()
        self._heed_signals()
        if (every := self.options.save_every) and self.state.step % every == 0:
            self.save()

    def _heed_signals(self) -> None:
        """Ends the run in all processes when a signal came to one, with its state saved: within an
        epoch, or before a validation, which is done again."""
        [stops] = self.world.total([len(self.stop)])
        if stops:
            self.save()
            number = self.stop[0] if self.stop else int(signal.SIGTERM)
            raise Interrupted(number, self.output)

    # --- validation and the whole run

    def _finish_epoch(self, board: Any) -> None:
        """Validates an epoch, keeps its weights, and moves on to the next one; `board`:
        TensorBoard's writer or None."""
        model = self.model_to_validate()
        values = self.validation(model)
        number = self.state.epoch + 1
        rate = lr_at(self.options, number * self.steps - 1, self.steps)
        loss = self.state.loss_sum / max(1, self.state.seen)
        row = {"epoch": number, "loss": loss, "lr": rate, **values}
        self.state.history.append(row)
        log.info(
            "epoch %d/%d: loss %.4f, lr %.2e%s",
            number, self.options.epochs, loss, rate,
            f", validation {shown(values)}" if values else "",
        )  # fmt: skip
        if board is not None:
            for name, value in row.items():
                if name != "epoch":
                    board.add_scalar(name, value, number)
            board.flush()
        self._keep(model, row)
        self.state.epoch, self.state.step = number, 0
        self.state.seen, self.state.loss_sum = 0, 0.0
        self._write_tables()
        # Last: a run that is killed before goes on from an older state, and writes all of it again.
        self.save()

    def _keep(self, model: Detector, row: dict[str, float]) -> None:
        """Writes the weights of an epoch under the names that they deserve."""
        names = []
        if self.request.pictures.val and best_row(self.state.history, self.options) is row:
            names.append(BEST)
        # Counted from 0, as in the published programs.
        if (every := self.options.save_epochs) and self.state.epoch % every == 0:
            names.append(EPOCH.format(self.state.epoch))
        if self.state.epoch + 1 == self.options.epochs:
            names.append(FINAL)
        if self.world.main:
            learnt = sorted({r.generator for r in self.feed.records if r.generator})
            for name in names:
                until = self.request.pictures.until
                keep_weights(self.output / name, model, self.config, row, learnt, until)

    def _write_tables(self) -> None:
        """Writes the history and its curves, and the list of bad files where it has grown."""
        self.feed.share_bad()
        if self.world.main:
            history = self.state.history
            best = best_row(history, self.options)
            write_history(self.output, history, best, self.model.title)
            if len(self.feed.bad) != self.bad_written:
                write_bad(self.output, self.feed.bad)
                self.bad_written = len(self.feed.bad)

    def run(self) -> list[dict[str, float]]:
        """Trains until the last epoch. Returns the history, a dict per epoch.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            ConfigError: the loss is no longer finite, or too many pictures cannot be read.
        """
        if self.device.device.type == "cpu":
            reuse_memory()
        board = _tensorboard(self.output, self.state.epoch + 1) if self.world.main else None
        try:
            with stop_requests() as self.stop:
                self.world.run_on_main(self.validation.check_there)
                while self.state.epoch < self.options.epochs:
                    self._train_epoch()
                    self._finish_epoch(board)
                    self._heed_signals()
        finally:
            self.feed.close()
            if board is not None:
                board.close()
        return self.state.history


def _tensorboard(output: Path, epoch: int) -> Any:
    """TensorBoard's writer when it is installed, else None. What an interrupted run wrote about
    `epoch` (1-based) and later ones is dropped."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(output / BOARD), purge_step=epoch)
