"""A training run in a folder: begun, resumed, described and reported on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from datasets import Record
from datasets._splits import outlook
from detectors._base import Detector

from ..config import Config, ConfigError
from ..plain_data import read_json
from ..runtime.device import training_device
from ..runtime.distributed import ALONE, World
from ..runtime.run_folder import RUN, check_output, differing, log_to, open_output, write_json
from ..runtime.workers import Workers
from ..scoring import degradations, trained_on
from ..scoring.provenance import run_info
from ..training.checkpoint import restore_own
from ..training.loop import Trainer
from ..training.outputs import CHECKPOINT, HISTORY, LOG, REPORT, written
from ..weights.files import read_weights, sha256
from ..weights.loading import Loaded
from ..weights.manifest import BEST
from . import eval

log = logging.getLogger(__name__)


def seed_everything(seed: int) -> None:
    """Seeds torch, the only global generator in use: initial weights and dropout."""
    torch.manual_seed(seed)


def check(
    config: Config, device: torch.device, output: Path, resume: bool, overwrite: bool
) -> None:
    """Raises ConfigError for settings, or an output folder, that `start` would refuse later."""
    training_device(device, config.train.precision)
    degradations.parse(config.train.val_degrade)
    check_output(output, written(output), resume, overwrite)


def _open(trainer: Trainer, stack: ExitStack, resume: bool, overwrite: bool) -> None:
    """Takes the folder, in the main process."""
    output = trainer.output
    stack.enter_context(open_output(output, written(output), resume, overwrite))
    stack.enter_context(log_to(output / LOG))


def _describe(
    trainer: Trainer, how: str, origins: Sequence[Mapping[str, str]], tag: str, resumed: bool
) -> None:
    """Writes run.json; a resumed run's keeps what it says, and tells of the new start too."""
    path = trainer.output / RUN
    info = run_info(trainer.config, trainer.device, None)
    info |= {
        "compiled": trainer.stepper.compiled,
        "tag": tag,
        "started_from": list(origins),
        "listing": trainer.identity["pictures"],
        "split": how,
        "tests": trainer.identity["--test_csv"],
        "processes": trainer.world.size,
        "decoding": trainer.workers.decoding,
        "workers": asdict(trainer.workers),
    }
    if resumed and path.exists():
        again = {key: info[key] for key in ("command", "git_revision", "versions", "device")}
        info = read_json(path)
        info["resumed"] = [*info.get("resumed", []), again]
    write_json(path, info)


def start(
    model: Detector,
    config: Config,
    train: Sequence[Record],
    val: Sequence[Record],
    device: torch.device,
    output: Path,
    workers: Workers,
    how: str,
    resume: bool,
    overwrite: bool,
    tests: Mapping[str, Sequence[Record]] | None = None,
    world: World = ALONE,
    compiled: bool = False,
    origins: Sequence[Mapping[str, str]] = (),
    tag: str = "",
) -> list[dict[str, float]]:
    """Trains a model in a folder, afresh or resumed. Returns the history, a dict per epoch.

    Args:
        how: says how training and validation pictures were told apart.
        tests: more labelled pictures by name, measured after each epoch; nothing is chosen by them.
        compiled: whether torch.compile shall make the step faster.
        origins: files that the model's weights come from, as run.json shall name them.
        tag: the run's name, for run.json and the report.

    Raises:
        ConfigError: the folder holds another run; see also `Trainer.resume` and `Trainer.run`.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    if world.rank:
        # Each process draws its own dropout. The weights are those of the seed all have in common.
        seed_everything(config.train.seed + world.rank)
    asked = {"--resume": resume, "--overwrite": overwrite, "configuration": config.as_dict()}
    _check_alike(world, asked)
    trainer = Trainer(
        model, config, train, val, device, output, workers, tests, world, compiled, origins
    )
    _check_alike(world, trainer.identity)
    with ExitStack() as stack:
        world.shared(lambda: _open(trainer, stack, resume, overwrite))
        resumed = resume and trainer.resume()
        if resume and not resumed:
            world.shared(lambda: _check_none_lost(output))
        # Not before: what cannot be resumed stays described as it is.
        world.shared(lambda: _describe(trainer, how, origins, tag, resumed))
        if resumed:
            log.info("going on at epoch %d, step %d", trainer.state.epoch + 1, trainer.state.step)
        log.info("%s", outlook(train, val, how))
        history = trainer.run()
        # Read once more, when the run is done: no step of it waits for a sum.
        world.shared(lambda: trained_on.write(output, train))
        if config.train.report and val:
            report(trainer, tag)
    return history


def report(trainer: Trainer, tag: str = "") -> None:
    """Evaluates the kept weights on the validation pictures, seen as in scoring."""
    path, world = trainer.output / BEST, trainer.world
    state = world.shared(lambda: read_weights(path)[0])
    digest = world.shared(lambda: sha256(path))
    restore_own(trainer.model, state)
    loaded = Loaded(trainer.model.eval(), trainer.config.detector, path, digest, 0.5, None)
    request = eval.Request(
        output=trainer.output / REPORT,
        title=f"{trainer.model.title}, validation pictures of its training",
        threshold=loaded.threshold,
        cache="none",
        tag=tag,
        workers=trainer.workers,
        overwrite=True,
    )
    eval.run(request, trainer.val, loaded, trainer.device, trainer.config, world)


def _check_alike(world: World, mine: Mapping[str, Any]) -> None:
    """Raises ConfigError when processes were to do different things."""
    everyones = world.gather(mine)

    def check() -> None:
        for rank, theirs in enumerate(everyones):
            if names := differing(everyones[0], theirs):
                raise ConfigError(
                    f"process {rank} has other {', '.join(names)} than process 0: give all of them "
                    "the same command, weights and data"
                )

    world.shared(check)


def _check_none_lost(output: Path) -> None:
    """Raises ConfigError when a folder has results of more than a first epoch, but no checkpoint to
    go on from."""
    history = output / HISTORY
    epochs = len(history.read_text(encoding="utf-8").splitlines()) - 1 if history.exists() else 0
    if epochs > 1 or (output / REPORT).exists():
        raise ConfigError(
            f"--resume: {output} has results but no {CHECKPOINT} to go on from: use --overwrite or "
            "another --output"
        )
