"""Schedules: learning rates, and the order in which an epoch takes its pictures.

Pure functions of the recipe, the epoch and the step, for the training loop and its batches: a
resumed run computes them anew, and nothing of them is in a checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from datasets import Record
from datasets._images import Draw

from ..config import ConfigError, TrainOptions, options_of

STEP_EVERY, STEP_FACTOR, POLYNOMIAL_POWER = 10, 0.9, 0.9


def _cosine(high: float, low: float, progress: float) -> float:
    """Half a cosine wave from `high` at progress 0 to `low` at 1."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress))


def scaled(options: TrainOptions, processes: int) -> TrainOptions:
    """The recipe with its learning rate scaled to the pictures of a step of all processes together,
    where it is meant for `lr_per` pictures (Goyal et al. 2017, arXiv 1706.02677)."""
    if options.lr_per is None:
        return options
    pictures = options.batch_size * options.accumulate * processes
    rate = options.lr * pictures / options.lr_per  # of which a slip makes one beyond all numbers
    return options_of(TrainOptions, "train", asdict(options) | {"lr": rate})


def lr_at(options: TrainOptions, step: int, steps_per_epoch: int) -> float:
    """Learning rate of a step.

    Args:
        options: the recipe.
        step: counted over all epochs, from 0.
        steps_per_epoch: that an epoch has.

    Sources: step = CO-SPY's progan recipe; cosine = its sd-v1_4 recipe with final_lr null;
    warm_cosine = SPAI's; polynomial = SSP's training script.
    """
    epoch = step // steps_per_epoch
    if options.schedule == "step":
        decays = sum(1 for past in range(1, epoch) if past % STEP_EVERY == 0)
        return options.lr * STEP_FACTOR**decays
    if options.schedule == "polynomial":
        return options.lr * (1 - (epoch + 1) / options.epochs) ** POLYNOMIAL_POWER
    warmup, total = options.warmup * steps_per_epoch, options.epochs * steps_per_epoch
    share = 1 / options.epochs if options.final_lr is None else options.final_lr
    low = options.lr * share
    if options.schedule == "warm_cosine":
        if step < warmup:
            first = low if options.warmup_lr is None else options.lr * options.warmup_lr
            return first + (options.lr - first) * step / warmup
        return _cosine(options.lr, low, step / total)
    if step < warmup:
        return options.lr * (step + 1) / (warmup + 1)
    if options.schedule == "constant":
        return options.lr
    return _cosine(options.lr, low, (step - warmup) / max(1.0, total - warmup))


def _weights(records: Sequence[Record], balance: float) -> tuple[np.ndarray, np.ndarray]:
    """Label and drawing weight of each record, (N,) both; the weights of each class sum to 1."""
    labels = np.array([int(r.label or 0) for r in records])
    groups = [(r.generator or r.source, int(r.label or 0)) for r in records]
    counts = Counter(groups)
    weights = np.array([counts[group] ** (balance - 1.0) for group in groups])
    for label in (0, 1):
        if not (labels == label).any():
            raise ConfigError(
                "train.balance: expected real and synthetic pictures; found one class"
            )
        weights[labels == label] /= weights[labels == label].sum()
    return labels, weights


def epoch_order(records: Sequence[Record], options: TrainOptions, epoch: int) -> list[int]:
    """Indices of the records in the order in which an epoch takes them, by seed and epoch alone.

    Args:
        records: to train on.
        options: without `balance` the order is a permutation; with it, as many draws with
            replacement, half of each class.
        epoch: from 0.
    """
    # A generator of its own for each epoch, so that a resumed run need not draw the earlier ones.
    rng = np.random.default_rng((options.seed, epoch))
    if options.balance is None:
        return rng.permutation(len(records)).tolist()
    labels, weights = _weights(records, options.balance)
    half = max(1, len(records) // 2)
    drawn = [
        rng.choice(len(records), half, p=np.where(labels == label, weights, 0)) for label in (0, 1)
    ]
    return rng.permutation(np.concatenate(drawn)).tolist()


def steps_per_epoch(records: Sequence[Record], options: TrainOptions, processes: int = 1) -> int:
    """Number of optimizer steps of an epoch. A smaller last step counts unless `drop_last`, or when
    there is no whole one.

    Args:
        records: to train on.
        options: the recipe; each process takes `batch_size * accumulate` pictures for a step.
        processes: of the run.
    """
    pictures = len(records) if options.balance is None else 2 * max(1, len(records) // 2)
    whole, rest = divmod(pictures, options.batch_size * options.accumulate * processes)
    return max(1, whole + (rest > 0 and not options.drop_last))


def check_learns(options: TrainOptions, records: Sequence[Record], processes: int = 1) -> None:
    """Raises ConfigError for a recipe whose learning rate is 0 in every step: its weights would
    stay as they start. SSP's published schedule ends at 0, and so has nothing for one epoch.

    Args:
        options: the recipe.
        records: to train on, which decide the number of steps.
        processes: of the run.
    """
    steps = steps_per_epoch(records, options, processes)

    def learns(epochs: int) -> bool:
        recipe = replace(options, epochs=epochs)
        return any(lr_at(recipe, step, steps) for step in range(epochs * steps))

    if not learns(options.epochs):
        least = next((n for n in range(1, 100) if learns(n)), None)
        more = f"--epochs {least} or more, or " if least else ""
        raise ConfigError(
            f"train.schedule {options.schedule}: expected a learning rate above 0 in some step; "
            f"found 0 in all of --epochs {options.epochs}: give {more}--set "
            "train.schedule=constant"
        )


def draws(order: Sequence[int], epoch: int) -> list[Draw]:
    """Draws of an epoch in its order, each with how often its picture came before."""
    seen: Counter[int] = Counter()
    drawn = []
    for index in order:
        drawn.append(Draw(index, epoch, seen[index]))
        seen[index] += 1
    return drawn


def shares(
    taken: Sequence[Draw], options: TrainOptions, steps: int, rank: int = 0, processes: int = 1
) -> list[list[Draw]]:
    """The batches of one process in an epoch, `accumulate` for each step.

    All processes' batches of a step together are the next pictures in order, whatever their number:
    two processes learn in a step what one learns with twice the accumulation.

    Args:
        taken: the draws of the epoch.
        options: the recipe.
        steps: that the epoch has.
        rank, processes: number of this process, and of all.
    """
    size = options.batch_size
    count = steps * options.accumulate * processes
    batches = [list(taken[i * size : (i + 1) * size]) for i in range(count)]
    return batches[rank::processes]
