"""The training loop: one for every detector. Recipes are configurations."""

from __future__ import annotations

import csv
import json
import logging
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import Record
from datasets._images import Item, PictureDataset
from detectors._base import Detector, describe_options

from . import degrade, metrics
from .checkpoint import (
    Averaged,
    anchored,
    differing_keys,
    is_head,
    own_state,
    random_states,
    read_checkpoint,
    restore_own,
    restore_random_states,
    save_checkpoint,
)
from .config import Config, ConfigError, TrainOptions
from .listing import listing_digest
from .predict import Device, as_list, leave_signals, move, reuse_memory, score
from .progress import Progress
from .run import log_to, open_output, run_info, write_json
from .schedule import epoch_order, lr_at, steps_per_epoch
from .weights import BEST, Card, replace_file, save_weights

CHECKPOINT, HISTORY, BAD_FILES = "last.pt", "history.csv", "bad_files.csv"
VALIDATED = (metrics.AP, metrics.AUROC, metrics.ACCURACY, metrics.BALANCED_ACCURACY)
LOG, RUN, BOARD = "training.log", "run.json", "tensorboard"
OUTPUTS = (
    CHECKPOINT,
    CHECKPOINT + ".part",
    CHECKPOINT + ".previous",
    BEST,
    HISTORY,
    BAD_FILES,
    LOG,
    RUN,
    BOARD,
)
log = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training was asked to stop and has saved its state."""


@dataclass
class State:
    """Where a run stands; goes into the checkpoint as plain values."""

    epoch: int = 0
    step: int = 0  # within the epoch
    loss_sum: float = 0.0
    best: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, to be heeded after the current step; the second one kills."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether SPAI's recipe lets weight decay shrink a parameter: not biases, not vectors."""
    return parameter.ndim > 1 and not name.endswith("bias")


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Optimizer groups; the classifier (`fc`) learns at `head_lr` times the rate, and vectors
    decay as `decay_vectors` says."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = not options.decay_vectors and not decays(name, parameter)
            scale = options.head_lr if is_head(name) else 1.0
            decay = 0.0 if spared else options.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
    return [{"params": p, "scale": s, "weight_decay": d} for (s, d), p in groups.items()]


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Adam (L2 penalty) or AdamW (decoupled weight decay), as the recipe says."""
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(
        parameter_groups(model, options),
        lr=options.lr,
        betas=options.betas,
        weight_decay=options.weight_decay,
    )


def training_device(device: torch.device, precision: str | None) -> Device:
    """Mixed precision on CUDA unless told otherwise: bf16 where the card has it, else fp16."""
    if precision is None:
        if device.type != "cuda":
            precision = "fp32"
        else:
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision fp16: expected a GPU; use bf16 or fp32 on the CPU")
    return Device(device, precision)


class Trainer:
    """One run: model, optimizer, state, and the folder it writes to."""

    def __init__(
        self,
        model: Detector,
        config: Config,
        train: Sequence[Record],
        val: Sequence[Record],
        device: torch.device,
        output: Path,
        workers: int = 0,
    ) -> None:
        self.options = config.train
        self.config = config
        self.train, self.val = list(train), list(val)
        self.output = output
        self.workers = workers
        self.device = training_device(device, config.train.precision)
        self.model = model.to(device)
        self.averaged = Averaged(self.model, self.options.ema) if self.options.ema else None
        self.start: dict[str, Tensor] | None = None
        if self.options.anchor:
            self.start = {k: v.clone() for k, v in own_state(self.model).items()}
        self.optimizer = make_optimizer(self.model, self.options)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.device.precision == "fp16")
        self.steps = steps_per_epoch(self.train, self.options)
        self.state = State()
        self.val_degradation = degrade.parse(self.options.val_degrade)

    def judged(self) -> Detector:
        """The model whose validation counts and whose weights are kept: the running average if
        there is one, drawn towards the start weights as `anchor` says."""
        model: nn.Module = self.averaged.model if self.averaged else self.model
        if self.start is not None:
            model = anchored(model, self.start, self.options.anchor)
        return model.eval()  # type: ignore[return-value]

    # --- checkpoints

    def save(self) -> None:
        """Writes the checkpoint that `resume` goes on from."""
        state = {
            "config": json.dumps(self.config.as_dict()),
            "listing": listing_digest(self.train + self.val),
            "state": json.dumps(vars(self.state)),
            "model": own_state(self.model),
            "averaged": own_state(self.averaged.model) if self.averaged else None,
            "start": self.start,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states(),
        }
        save_checkpoint(self.output / CHECKPOINT, state)

    def resume(self) -> bool:
        """Goes on from the folder's checkpoint; False when there is none yet.

        Raises:
            ConfigError: it was made with another configuration or other data.
        """
        saved, note = read_checkpoint(self.output / CHECKPOINT)
        if note:
            log.warning("%s; going on from the one before", note)
        if saved is None:
            return False
        if keys := differing_keys(saved["config"], json.dumps(self.config.as_dict())):
            raise ConfigError(f"--resume: the run in {self.output} had other {', '.join(keys)}")
        if saved["listing"] != listing_digest(self.train + self.val):
            raise ConfigError(f"--resume: the run in {self.output} was trained on other pictures")
        self.state = State(**json.loads(saved["state"]))
        restore_own(self.model, saved["model"])
        if self.averaged:
            restore_own(self.averaged.model, saved["averaged"])
        self.start = saved["start"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        restore_random_states(saved["random"])
        return True

    # --- one epoch

    def _set_train_mode(self) -> None:
        self.model.train()
        if self.options.freeze_batchnorm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _loader(self) -> DataLoader:
        """Batches of items that the epoch has left."""
        order = epoch_order(self.train, self.options, self.state.epoch)
        dataset = PictureDataset(
            [self.train[i] for i in order],
            self.model.transform(train=True),
            seed=self.options.seed,
            epoch=self.state.epoch,
        )
        taken = range(self.state.step * self.options.batch_size, len(order))
        return DataLoader(
            dataset,
            self.options.batch_size,
            sampler=list(taken),
            num_workers=self.workers,
            collate_fn=as_list,
            worker_init_fn=leave_signals,
            generator=torch.Generator(),
        )

    def _readable(self, items: list[Item]) -> tuple[list[Any], list[float]]:
        """Values and labels of the readable pictures; the others are noted as bad files."""
        dataset = self._epoch_records
        values, labels = [], []
        for item in items:
            record = dataset[item.index]
            if item.value is None:
                self.state.bad.setdefault(record.key, item.error)
            else:
                values.append(item.value)
                labels.append(float(record.label or 0))
        return values, labels

    def _step(self, batch: Any, labels: Tensor, global_step: int) -> float:
        """One optimizer step. Returns the loss."""
        rate = lr_at(self.options, global_step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        smooth = self.options.label_smoothing
        with self.device.autocast():
            loss = self.model.loss(batch, labels * (1 - smooth) + smooth / 2)
        value = float(loss.detach())
        if not math.isfinite(value):
            saved = self.output / CHECKPOINT
            raise ConfigError(
                f"the loss became {value} at epoch {self.state.epoch + 1}, step "
                f"{self.state.step + 1}: lower train.lr, or use --precision fp32"
                + (f" (the state before is in {saved})" if saved.exists() else "")
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.options.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged:
            self.averaged.update(self.model, global_step)
        return value

    def _train_epoch(self, stop: list[int]) -> None:
        self._set_train_mode()
        loader = self._loader()
        self._epoch_records = loader.dataset.records  # type: ignore[attr-defined]
        done = self.state.step * self.options.batch_size
        total = self.steps * self.options.batch_size
        what = f"epoch {self.state.epoch + 1}/{self.options.epochs}"
        with Progress(total, what, initial=done) as progress:
            for items in loader:
                if self.state.step >= self.steps:
                    break
                values, labels = self._readable(items)
                if values:
                    batch = move(self.model.collate(values), self.device.device)
                    target = torch.tensor(labels, device=self.device.device)
                    global_step = self.state.epoch * self.steps + self.state.step
                    self.state.loss_sum += self._step(batch, target, global_step)
                self.state.step += 1
                progress.advance(len(items), loss=f"{self.state.loss_sum / self.state.step:.4f}")
                every = self.options.save_every
                if stop or (every and self.state.step % every == 0):
                    self.save()
                if stop:
                    raise Interrupted(f"stopped by signal {stop[0]} after saving {self.output}")

    # --- validation and the whole run

    def validate(self, model: Detector) -> dict[str, float]:
        """AP, AUROC, accuracy and balanced accuracy of a model on the validation pictures."""
        rows = []
        with Progress(len(self.val), "validation") as progress:
            for batch in score(
                model,
                self.val,
                self.device,
                self.config.score.batch_size,
                self.workers,
                self.val_degradation,
                self.config.score.seed,
            ):
                rows += batch
                progress.advance(len(batch))
        found = metrics.evaluate_rows(rows, threshold=0.5, resamples=1)
        if not (found.n_real and found.n_synthetic):
            raise ConfigError("validation needs readable pictures of both classes; found one class")
        return {name: found.estimates[name].value for name in VALIDATED}

    def _finish_epoch(self, board: Any) -> None:
        judged = self.judged()
        values = self.validate(judged)
        number = self.state.epoch + 1
        rate = lr_at(self.options, number * self.steps - 1, self.steps)
        loss = self.state.loss_sum / max(1, self.state.step)
        self.state.history.append({"epoch": number, "loss": loss, "lr": rate, **values})
        log.info(
            "epoch %d/%d: loss %.4f, lr %.2e, validation %s",
            number, self.options.epochs, loss, rate,
            ", ".join(f"{k} {100 * v:.2f}" for k, v in values.items()),
        )  # fmt: skip
        for name, value in {"loss": loss, "lr": rate, **values}.items():
            if board is not None:
                board.add_scalar(name, value, number)
        # Ties go to the later epoch, as in CO-SPY's training script.
        if values[self.options.select] >= self.state.best:
            self.state.best = values[self.options.select]
            extra = {"config": self.config.as_dict(), "epoch": number, "validation": values}
            card = Card(self.config.detector, describe_options(judged.options), extra=extra)
            save_weights(self.output / BEST, own_state(judged), card)
        self.state.epoch, self.state.step, self.state.loss_sum = number, 0, 0.0
        self._write_tables()
        self.save()

    def _write_tables(self) -> None:
        rows = self.state.history
        _write_csv(self.output / HISTORY, list(rows[0]), [list(row.values()) for row in rows])
        if self.state.bad:
            _write_csv(self.output / BAD_FILES, ["key", "error"], sorted(self.state.bad.items()))
            log.warning("%d unreadable training pictures, see %s", len(self.state.bad), BAD_FILES)

    def run(self) -> list[dict[str, float]]:
        """Trains until the last epoch. Returns the history, a dict per epoch.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            ConfigError: the loss is no longer finite.
        """
        if self.device.device.type == "cpu":
            reuse_memory()
        board = _tensorboard(self.output, self.state.epoch + 1)
        with stop_requests() as stop:
            while self.state.epoch < self.options.epochs:
                self._train_epoch(stop)
                self._finish_epoch(board)
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


def _write_csv(path: Path, header: list[str], rows: Sequence[Sequence[Any]]) -> None:
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerows([header, *rows])
    replace_file(temporary, path)


def seed_everything(seed: int) -> None:
    """Seeds torch, the only global generator in use: initial weights and dropout."""
    torch.manual_seed(seed)


def start(
    model: Detector,
    config: Config,
    train: Sequence[Record],
    val: Sequence[Record],
    device: torch.device,
    output: Path,
    workers: int,
    how: str,
    resume: bool,
    overwrite: bool,
) -> list[dict[str, float]]:
    """Trains a model in a folder, afresh or resumed. Returns the history, a dict per epoch.

    Raises:
        ConfigError: the folder holds another run; see also `Trainer.resume` and `Trainer.run`.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    trainer = Trainer(model, config, train, val, device, output, workers)
    open_output(output, OUTPUTS, resume, overwrite)
    handler = log_to(output / LOG)
    try:
        if resume and trainer.resume():
            log.info("going on at epoch %d, step %d", trainer.state.epoch + 1, trainer.state.step)
        log.info("%d pictures to train on, %d for validation: %s", len(train), len(val), how)
        info = run_info(config, trainer.device, None)
        info |= {"listing": listing_digest([*train, *val]), "split": how}
        write_json(output / RUN, info)
        return trainer.run()
    finally:
        logging.getLogger("engine").removeHandler(handler)
        handler.close()
