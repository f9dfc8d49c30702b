"""Phase train: a detector learns, afresh or resumed, and its kept weights are evaluated.

By gradient, or at once where it is fitted to features. Called by cli/app.py with a `TrainRequest`,
or a `CombineRequest` for a detector that is made of others; nothing here knows a command line.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import detectors
from datasets import Record
from datasets._splits import outlook
from detectors._base import Detector
from detectors._options import describe_options

from ..config import DETECTION, Config, ConfigError, TrainOptions
from ..evaluation import generators
from ..plain_data import read_json
from ..reporting.training_curves import VAL_LOSS
from ..runtime.device import Device, training_device
from ..runtime.distributed import ALONE, World
from ..runtime.run_folder import (
    RUN,
    begin,
    check_output,
    differing,
    log_to,
    open_output,
    other_settings,
    write_json,
)
from ..runtime.workers import Workers
from ..scoring import degradations, trained_on
from ..scoring.degradations import NONE
from ..scoring.provenance import run_info
from ..scoring.scorer import TableScorer, listing_digest, score_table
from ..scoring.table import ScoreRow
from ..scoring.torch_backend import TorchBackend, computing
from ..training import ensemble, fitting
from ..training.checkpoint import restore_own
from ..training.fitting import Fitted
from ..training.loop import Trainer
from ..training.outputs import (
    CHECKPOINT,
    HISTORY,
    LOG,
    REPORT,
    VALIDATED,
    best_row,
    keep_weights,
    results,
    shown,
    write_bad,
    written,
)
from ..training.schedule import check_learns
from ..training.start import Pictures, TrainRequest, check_start, model_to_train
from ..training.validation import Validation
from ..weights.cards import Card, sha256
from ..weights.files import read_weights, save_weights
from ..weights.loaded import Loaded, describe_member
from ..weights.manifest import BEST
from . import eval

# Of a recipe, what a fit at once heeds.
HEEDED = ("batch_size", "max_bad", "precision", "report", "seed", "val_degrade")
log = logging.getLogger(__name__)


def run(request: TrainRequest, world: World = ALONE) -> str:
    """Trains, unless the run has ended already.

    Returns:
        A line for standard output, '' in other processes than the main one.

    Raises:
        ConfigError, WeightsError: the folder holds another run, or the weights do not fit.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    config, pictures = request.config, request.pictures
    at_once = detectors.load(config.detector).FITTED
    if not at_once:
        check_learns(config.train, pictures.train, world.size)
    if request.only_check:
        check_start(config, request.start)
        ready = outlook(pictures.train, pictures.val, pictures.how)
        return f"{request.output}: {ready}" if world.main else ""
    # Before its end a fit leaves nothing to go on with: --resume begins it again.
    if at_once:
        return fit(request, model_to_train(config, request.start), world)
    # Asked before a network is made, so that a run that has ended says so within seconds.
    history = world.run_on_main(finished, request) if request.resume else None
    if history is None:
        # The network's first weights are drawn from this seed, alike in all processes.
        seed_everything(config.train.seed)
        history = train(request, model_to_train(config, request.start), world)
    return summary(history, config, request.output) if world.main else ""


def seed_everything(seed: int) -> None:
    """Seeds torch, the only global generator in use: initial weights and dropout."""
    torch.manual_seed(seed)


def check(
    config: Config, device: torch.device, output: Path, resume: bool, overwrite: bool
) -> None:
    """Raises ConfigError for settings, or an output folder, that `start` would refuse later."""
    training_device(device, config.train.precision)
    if detectors.load(config.detector).FITTED:
        _check_fitted(config)
    degradations.choice(config.train.degrade, "train.degrade")
    degradations.parse(config.train.val_degrade, "train.val_degrade")
    check_output(output, written(output), resume, overwrite)


def _check_fitted(config: Config) -> None:
    """Raises ConfigError for a recipe that a fit at once would not heed."""
    usual = vars(TrainOptions())
    for key, value in vars(config.train).items():
        if key not in HEEDED and value != usual[key]:
            raise ConfigError(
                f"train.{key}: expected {usual[key]} of {config.detector}, which is fitted at once "
                f"to pictures as scoring sees them; found {value!r}: it heeds "
                f"{', '.join(f'train.{name}' for name in HEEDED)} alone"
            )


def train(
    request: TrainRequest,
    model: Detector,
    world: World = ALONE,
) -> list[dict[str, float]]:
    """Trains a model in the request's folder. Returns the history, a dict per epoch.

    Raises:
        ConfigError: the folder holds another run; see also `Trainer.resume` and `Trainer.run`.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    config, pictures, output = request.config, request.pictures, request.output
    if world.rank:
        # Each process draws its own dropout. The weights are those of the seed all have in common.
        seed_everything(config.train.seed + world.rank)
    asked = {"--resume": request.resume, "--overwrite": request.overwrite}
    # Twice: the trainer knows the rest of what processes must have in common, but is made by all of
    # them together, which would wait for ever for one that was told something else.
    _check_alike(world, {**asked, "configuration": config.as_dict()})
    trainer = Trainer(model, request, world)
    _check_alike(world, trainer.identity)
    # Of the main process, which alone writes; the others' stays empty.
    with ExitStack() as stack:
        world.run_on_main(_open, request, stack)
        resumed = request.resume and trainer.resume()
        if request.resume and not resumed:
            world.run_on_main(_check_none_lost, output)
        # Not before: what cannot be resumed stays described as it is.
        world.run_on_main(_describe, request, trainer, resumed)
        if resumed:
            log.info("going on at epoch %d, step %d", trainer.state.epoch + 1, trainer.state.step)
        log.info("%s", outlook(pictures.train, pictures.val, pictures.how))
        history = trainer.run()
        # Read once more, when the run is done: no step of it waits for a sum.
        world.run_on_main(trained_on.write, output, pictures.train)
        if config.train.report and pictures.val:
            report(request, trainer.model, trainer.device, world)
    return history


def fit(request: TrainRequest, model: Detector, world: World = ALONE) -> str:
    """Fits a detector at once to what its frozen part makes of the pictures, and measures it.

    Returns:
        A line for standard output, '' in other processes than the main one.

    Raises:
        ConfigError: the folder holds another run, or the pictures cannot be fitted.
    """
    output, pictures = request.output, request.pictures
    device = training_device(request.device, request.config.train.precision)
    asked = {"--resume": request.resume, "--overwrite": request.overwrite}
    _check_alike(world, {**asked, "configuration": request.config.as_dict()})
    with ExitStack() as stack:
        world.run_on_main(_open, request, stack)
        world.run_on_main(_begin_fit, request, device, world)
        log.info("%s", outlook(pictures.train, pictures.val, pictures.how))
        result = fitting.fitted(request, model.to(request.device), device, world)
        validate = Validation(pictures, result.config, device, request.workers, world, _go_on)
        # In the form of a training's first epoch, as cards and reports know it.
        row = {"epoch": 1, "loss": 0.0, **validate(result.model)}
        world.run_on_main(_keep_fit, request, result, row)
        if request.config.train.report:
            report(replace(request, config=result.config), result.model, device, world)
    figures = (
        f": {shown({key: row[key] for key in (*VALIDATED, VAL_LOSS)})}" if pictures.val else ""
    )
    line = f"fitted to {result.pictures} pictures{figures}; weights in {output / BEST}"
    return line if world.main else ""


def _go_on() -> None:
    """The check between batches of a fit, which takes seconds and saves nothing when stopped."""


def _begin_fit(request: TrainRequest, device: Device, world: World) -> None:
    """Writes run.json. Raises ConfigError when the run to resume was another one."""
    info = run_info(request.config, computing(device), None) | _described(request, world)
    begin(request.output, info, request.resume, ("config", "precision", "listing"), BEST)


def _keep_fit(request: TrainRequest, result: Fitted, row: dict[str, float]) -> None:
    """Writes the weights with their card, and what they were fitted to."""
    records = request.pictures.train
    learnt = sorted({record.generator for record in records if record.generator})
    until = request.pictures.until
    keep_weights(request.output / BEST, result.model, result.config, row, learnt, until)
    write_bad(request.output, result.bad)
    trained_on.write(request.output, records)


def _open(request: TrainRequest, stack: ExitStack) -> None:
    """Takes the folder until the stack ends."""
    output = request.output
    stack.enter_context(open_output(output, written(output), request.resume, request.overwrite))
    stack.enter_context(log_to(output / LOG))


def _describe(request: TrainRequest, trainer: Trainer, resumed: bool) -> None:
    """Writes run.json; a resumed run's keeps what it says, and tells of the new start too."""
    path = request.output / RUN
    info = run_info(trainer.config, computing(trainer.device), None)
    info |= {"compiled": trainer.stepper.compiled} | _described(request, trainer.world)
    if resumed and path.exists():
        again = {key: info[key] for key in ("command", "git_revision", "versions", "device")}
        info = read_json(path)
        info["resumed"] = [*info.get("resumed", []), again]
    write_json(path, info)


def _described(request: TrainRequest, world: World) -> dict[str, Any]:
    """What run.json says of a request, however it learns."""
    pictures = request.pictures
    return {
        "tag": request.tag,
        "started_from": request.start.origins(),
        "listing": listing_digest([*pictures.train, *pictures.val]),
        "split": pictures.how,
        "until": pictures.until,
        "tests": {name: listing_digest(part) for name, part in pictures.tests.items()},
        "processes": world.size,
        "decoding": request.workers.decoding,
        "workers": asdict(request.workers),
    }


def report(request: TrainRequest, model: Detector, device: Device, world: World) -> None:
    """Evaluates the kept weights on the validation pictures, seen as in scoring.

    Args:
        request: whose folder has the weights.
        model: takes them over.
        device: that computes.
        world: the processes that score.
    """
    path = request.output / BEST
    # The file, and not what the last epoch left in memory: the best epoch may be another.
    state, _ = world.run_on_main(read_weights, path)
    digest = world.run_on_main(sha256, path)
    restore_own(model, state)
    model.eval()
    evaluation = eval.EvalRequest(
        records=request.pictures.val,
        loaded=Loaded(model, request.config.detector, path, digest, 0.5, None),
        device=device,
        config=request.config,
        output=request.output / REPORT,
        title=f"{model.title}, validation pictures of its training",
        threshold=0.5,
        cache="none",  # which would keep scores of weights that the next try replaces
        tag=request.tag,
        workers=request.workers,
        overwrite=True,  # a run that was cut off may have left half a report
    )
    eval.run(evaluation, world)


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

    world.run_on_main(check)


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


def finished(request: TrainRequest) -> list[dict[str, float]] | None:
    """The history of the run in the request's folder if it is this one, from the same weights, and
    has ended, else None."""
    output, config, chosen = request.output, request.config, request.pictures
    origins = request.start.origins()
    # By what run.json says: of a run that has ended the checkpoint may have been deleted.
    try:
        info = read_json(output / RUN)
        with (output / HISTORY).open(newline="", encoding="utf-8") as stream:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
        # An evaluation counts its pictures when they are all scored.
        ended = not (config.train.report and chosen.val) or "counts" in read_json(
            output / REPORT / RUN
        )
        tests = {name: listing_digest(part) for name, part in chosen.tests.items()}
        same = info["listing"] == listing_digest([*chosen.train, *chosen.val])
        same = same and info["tests"] == tests and not other_settings(info["config"], config)
        sums = [origin["sha256"] for origin in info["started_from"]]
        same = same and sums == [origin["sha256"] for origin in origins]
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not one of ours, or cut off: training itself finds out
    last = rows[-1]["epoch"] if rows else 0
    whole = all((output / name).is_file() for name in results(config))
    return rows if same and ended and whole and last == config.train.epochs else None


def summary(history: Sequence[dict[str, float]], config: Config, output: Path) -> str:
    """What a training came to, in a line for standard output."""
    if config.train.objective != DETECTION:
        [name] = results(config)
        loss = f"{len(history)} epochs, loss {history[-1]['loss']:.4f}"
        return f"{loss}; --backbone_weights takes {output / name}"
    best = best_row(history, config.train)
    values = shown({key: best[key] for key in (*VALIDATED, VAL_LOSS)})
    return f"best epoch {best['epoch']:.0f}: {values}; weights in {output / BEST}"


@dataclass(frozen=True)
class CombineRequest:
    """What the training of a detector made of others is asked to do. `members`: each with the
    configuration that it scores by."""

    members: Sequence[tuple[Loaded, Config]]
    config: Config
    pictures: Pictures
    device: Device
    output: Path
    workers: Workers
    tag: str = ""
    resume: bool = False
    overwrite: bool = False


def combine(request: CombineRequest) -> str:
    """Scores the pictures with every member, fits their combination on those to train on, and
    writes best.safetensors and run.json.

    Returns:
        What members and combination do on the validation pictures, a Markdown table, and where the
        weights are.

    Raises:
        ConfigError: the folder holds another run, a name stands for two pictures, or the set cannot
            be fitted.
    """
    config, output, chosen = request.config, request.output, request.pictures
    records = [*chosen.train, *chosen.val]
    # One table has the scores of both, by name; and none may be fitted to that is measured on.
    if twice := {record.key for record in chosen.train} & {record.key for record in chosen.val}:
        raise ConfigError(
            f"expected names of their own for training and validation pictures; found {min(twice)} "
            "among both: list them in one CSV with a column split"
        )
    files = [Path(name) for name in detectors.load(config.detector).score_files(config.options)]
    known = {member.path: member.until for member, _ in request.members}
    # Of files of scores nothing is known.
    for path, until in [*known.items(), *((path, "") for path in files)]:
        generators.check_until(chosen.until, path, until)
    names = [ensemble.table_name(i, member) for i, (member, _) in enumerate(request.members)]
    owned = (BEST, RUN, LOG, *names)
    with (
        open_output(output, owned, request.resume, request.overwrite),
        log_to(output / LOG),
    ):
        info = run_info(config, computing(request.device), None) | {
            "members": [describe_member(member) for member, _ in request.members],
            "listing": listing_digest(records),
            "split": chosen.how,
            "until": chosen.until,
            "tag": request.tag,
        }
        # The members' tables are kept, so that whatever moves a score must be as it was.
        same = ("config", "precision", "threads", "members", "listing")
        begin(output, info, request.resume, same, names[0])
        log.info("%s", outlook(chosen.train, chosen.val, chosen.how))
        tables = [
            _member_scores(request, output / name, records, member, own)
            for name, (member, own) in zip(names, request.members, strict=True)
        ]
        tables += [ensemble.given_rows(path, records) for path in files]
        fit = ensemble.fit_tables(tables, chosen.train, chosen.val, config.options.fusion)
        info |= {"validation": fit.validation, "cross_fitted": fit.cross_fitted}
        card = Card(config.detector, describe_options(config.options), extra=dict(info))
        save_weights(output / BEST, fit.fusion.state_dict(prefix="fusion."), card)
        write_json(output / RUN, info)
    title = detectors.load(config.detector).title
    titles = [*(member.model.title for member, _ in request.members), *(f.name for f in files)]
    return f"{ensemble.summary([*titles, title], fit)}\nweights in {output / BEST}"


def _member_scores(
    request: CombineRequest,
    path: Path,
    records: Sequence[Record],
    member: Loaded,
    config: Config,
) -> list[ScoreRow]:
    """A member's rows of all records, saved as a table."""
    log.info("%s: %d pictures", member.model.title, len(records))
    scorer = TableScorer(TorchBackend(member.model, request.device), config, request.workers)
    return score_table(path, records, scorer, (NONE,), request.resume)
