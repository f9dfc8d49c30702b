"""Training by several processes and over several batches: the same as on one large batch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from models import FrozenToy, Toy, ToyOptions
from torch import Tensor
from training import Killed, Parts, at_step, kill, plain, result, run, terminate

from engine.config import ConfigError, TrainOptions
from engine.runtime import distributed
from engine.training.outputs import BAD_FILES, HISTORY
from engine.training.schedule import draws, shares, steps_per_epoch
from engine.weights.files import read_weights
from engine.weights.manifest import BEST

SIMPLE: dict[str, Any] = {
    "balance": None, "ema": 0.0, "anchor": 0.0, "save_every": 1, "label_smoothing": 0.0,
    "drop_last": False,
}  # fmt: skip


class Plain(Toy):
    """Nothing in it depends on what shares a batch: no batch norm, no dropout."""

    def __init__(self, options: ToyOptions) -> None:
        super().__init__(ToyOptions(dropout=0.0))
        self.bn = torch.nn.Identity()  # type: ignore[assignment]


def together(work: Callable[[distributed.World], None], folder: Path) -> list[str]:
    """Does some work in two processes as torchrun starts them. Returns what each complains of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
    shared |= {"MASTER_ADDR": "127.0.0.1"}

    def child(rank: int) -> None:
        os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        complaint = ""
        # A fork has none of the threads that computed for this process, and would wait for them.
        torch.set_num_threads(1)
        try:
            work(distributed.join(torch.device("cpu")))
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
            traceback.print_exc(file=sys.__stderr__)
        (folder / f"complaint{rank}").write_text(complaint)
        os._exit(0)

    children: list[BaseProcess] = []
    try:
        for rank in range(2):
            children.append(multiprocessing.get_context("fork").Process(target=child, args=(rank,)))
            children[-1].start()
        for process in children:
            process.join(60)
            assert process.exitcode == 0
    finally:
        for process in children:
            process.kill()
    return [(folder / f"complaint{rank}").read_text() for rank in range(2)]


def weights(output: Path) -> dict[str, Tensor]:
    return read_weights(output / BEST)[0]


def assert_alike(one: Path, two: Path) -> None:
    """The same weights but for rounding, and the same history."""
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=1e-6, msg=name)
    histories = [(path / HISTORY).read_text().splitlines() for path in (one, two)]
    for lines in zip(*histories, strict=True):
        first, second = (line.split(",") for line in lines)
        if first[0] != "epoch":
            wanted = pytest.approx([float(v) for v in first], abs=1e-5)
            assert [float(v) for v in second] == wanted


class PlainFrozen(FrozenToy):
    """All but the classifier is frozen, and nothing is drawn."""

    def __init__(self, options: ToyOptions) -> None:
        super().__init__(ToyOptions(dropout=0.0))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (Plain, {"clip_norm": None}),
        (Plain, {"clip_norm": 0.05, "ema": 0.9, "anchor": 0.2}),
        # What a frozen part gives is computed once, and shared.
        (PlainFrozen, {"augment": True}),
        (PlainFrozen, {"augment": False}),
    ],
)
def test_two_processes_are_one_with_a_double_batch(
    parts: Parts, tmp_path: Path, kind: type[Toy], changes: dict[str, Any]
) -> None:
    settings = SIMPLE | changes
    run(tmp_path / "one", parts, kind=kind, batch_size=8, **settings)

    def work(world: distributed.World) -> None:
        run(tmp_path / "two", parts, kind=kind, world=world, batch_size=4, **settings)

    assert together(work, tmp_path) == ["", ""]
    assert_alike(tmp_path / "one", tmp_path / "two")


def test_accumulated_batches_are_one_batch(parts: Parts, tmp_path: Path) -> None:
    run(tmp_path / "one", parts, kind=Plain, batch_size=8, **SIMPLE)
    run(tmp_path / "two", parts, kind=Plain, batch_size=4, accumulate=2, **SIMPLE)
    run(tmp_path / "other", parts, kind=Plain, batch_size=4, **SIMPLE)
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert plain(weights(tmp_path / "one")) != plain(weights(tmp_path / "other"))


def test_unreadable_pictures_count_for_nothing_wherever_they_fall(
    own_parts: Parts, tmp_path: Path
) -> None:
    """Also where one process has none that it could read."""
    for number in (0, 1, 2, 3, 9):
        own_parts[0][number].path.write_bytes(b"")
    settings = SIMPLE | {"max_bad": 0.5}
    run(tmp_path / "one", own_parts, kind=Plain, batch_size=4, **settings)

    def work(world: distributed.World) -> None:
        run(tmp_path / "two", own_parts, kind=Plain, world=world, batch_size=2, **settings)

    assert together(work, tmp_path) == ["", ""]
    assert_alike(tmp_path / "one", tmp_path / "two")
    bad = [(tmp_path / name / BAD_FILES).read_bytes() for name in ("one", "two")]
    assert bad[0] == bad[1] and bad[0].count(b"\n") == 6


def test_two_processes_resume_to_the_same_end(parts: Parts, tmp_path: Path) -> None:
    """With dropout, batch norm, averages and draws with replacement, bitwise."""

    def whole(world: distributed.World) -> None:
        run(tmp_path / "whole", parts, world=world, batch_size=2)

    def killed(world: distributed.World) -> None:
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, 6, terminate if world.rank else lambda: None)
            run(tmp_path / "killed", parts, world=world, batch_size=2)

    def resumed(world: distributed.World) -> None:
        run(tmp_path / "killed", parts, world=world, batch_size=2, resume=True)

    assert together(whole, tmp_path) == ["", ""]
    complaints = together(killed, tmp_path)
    assert all(c.startswith("Interrupted: stopped by signal 15 after") for c in complaints)
    assert together(resumed, tmp_path) == ["", ""]
    assert result(tmp_path / "killed") == result(tmp_path / "whole")


def test_another_number_of_processes_does_not_resume(parts: Parts, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 6, kill)
        with pytest.raises(Killed):
            run(tmp_path / "run", parts)

    def work(world: distributed.World) -> None:
        run(tmp_path / "run", parts, world=world, resume=True)

    first, second = together(work, tmp_path)
    assert "had other number of processes: give the same" in first
    assert second.startswith("OtherFailed")


def test_machines_need_no_disk_in_common(parts: Parts, tmp_path: Path) -> None:
    """Only the main process writes, and only it reads what was written."""
    run(tmp_path / "one", parts, kind=Plain, batch_size=8, report=True, **SIMPLE)

    def work(world: distributed.World) -> None:
        settings = SIMPLE | {"report": True, "batch_size": 4}
        there = tmp_path / ("two", "elsewhere")[world.rank]
        run(there, parts, kind=Plain, world=world, **settings)
        run(there, parts, kind=Plain, world=world, resume=True, **settings)

    assert together(work, tmp_path) == ["", ""]
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "validation" / "report.md").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"batch_size": 2}, "configuration.train.batch_size"), ({"resume": True}, "--resume")],
)
def test_processes_with_other_flags_are_refused(
    parts: Parts, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    def work(world: distributed.World) -> None:
        run(tmp_path / "two", parts, world=world, **(changes if world.rank else {}))

    main, other = together(work, tmp_path)
    assert main.startswith(f"ConfigError: process 1 has other {said} than process 0: give all")
    assert other == "OtherFailed: the main process failed"
    assert not (tmp_path / "two").exists()


def test_a_process_that_is_left_alone_says_so(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(world: distributed.World) -> None:
        if world.rank:
            at_step(monkeypatch, 2, lambda: os._exit(0))
            (tmp_path / "complaint1").touch()
        try:
            run(tmp_path / "two", parts, world=world)
        except RuntimeError as error:
            assert distributed.lost_another(error), error
            raise ConfigError("left alone") from error

    assert together(work, tmp_path) == ["ConfigError: left alone", ""]


def test_processes_with_other_pictures_are_refused(parts: Parts, tmp_path: Path) -> None:
    def work(world: distributed.World) -> None:
        mine = (parts[0][world.rank :], parts[1])
        run(tmp_path / "run", mine, world=world)

    first, second = together(work, tmp_path)
    assert "process 1 has other pictures than process 0" in first
    assert second.startswith("OtherFailed")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_in_one_process_stops_all(parts: Parts, tmp_path: Path) -> None:
    def work(world: distributed.World) -> None:
        if world.rank == 1:
            Plain.loss = lambda self, batch, labels: self(batch).sum() * float("nan")  # type: ignore[method-assign]
        run(tmp_path / "run", parts, kind=Plain, world=world, batch_size=4, **SIMPLE)

    complaints = together(work, tmp_path)
    assert all("the loss became nan at epoch 1, step 1" in c for c in complaints)
    log = (tmp_path / "run" / "training.log").read_text()
    named = [record.key for record in parts[0] if record.key in log]
    assert len(named) == 4


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_takes_each_picture_once(
    parts: Parts, processes: int, accumulate: int, drop_last: bool
) -> None:
    options = TrainOptions(batch_size=2, accumulate=accumulate, drop_last=drop_last)
    count = len(parts[0])
    steps = steps_per_epoch(parts[0], options, processes)
    taken = draws(range(count), 0)
    found = [shares(taken, options, steps, rank, processes) for rank in range(processes)]
    assert {len(own) for own in found} == {steps * accumulate}
    together = [draw.index for i in range(steps * accumulate) for own in found for draw in own[i]]
    whole = 2 * accumulate * processes
    assert together == list(range(count // whole * whole if drop_last else count))


def test_too_many_unreadable_pictures_stop(own_parts: Parts, tmp_path: Path) -> None:
    def spoil(first: int, last: int) -> None:
        for record in own_parts[0][first:last]:
            record.path.write_bytes(b"")

    once = {"balance": None, "batch_size": 1, "epochs": 1}
    spoil(3, 6)
    run(tmp_path / "three", own_parts, **once)  # far above 1 % of 17, and yet allowed
    with pytest.raises(ConfigError, match=r"training pictures .* expected at most 0;"):
        run(tmp_path / "none", own_parts, **once, max_bad=0)
    spoil(6, 7)
    with pytest.raises(ConfigError, match=r"4 of 17 training pictures .* expected at most 3;"):
        run(tmp_path / "four", own_parts, **once, max_bad=0.2)
    assert own_parts[0][5].key in (tmp_path / "four" / BAD_FILES).read_text()
    run(tmp_path / "more", own_parts, **once, max_bad=0.24)
