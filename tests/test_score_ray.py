"""scripts/score_ray.py: the files of main.py --stream, by processes of which some die."""

from __future__ import annotations

import argparse
import os
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from archive_makers import make_tar, tree_of
from cli_runner import Cli, cli, script, weights
from conftest import ROOT
from containers import pngs
from test_credentials import png

from datasets import LayoutError
from engine.fetching.sources import Source
from engine.phases.stream import Part
from engine.runtime.part_files import NOTES, PARTS, Note, PartFiles
from scripts import score_ray
from scripts._shared import parse_as_main

__all__ = ["cli", "weights"]  # fixtures
DECODES, SCORES = "ray::MapBatches", "ray::MapWorker"  # as Ray calls its processes
PICTURES = 40  # of a shard, in batches of two: time enough for a process to be killed


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray on two cores of this machine, on loopback, without what it would tell its makers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.2",
        object_store_memory=200 << 20, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    yield ray
    ray.shutdown()


def files(output: Path) -> dict[str, bytes]:
    return {n: c for n, c in tree_of(output).items() if n.startswith((PARTS, NOTES))}


def kill_one_of_each(output: Path, killed: set[str]) -> None:
    """Kills a process that decodes, and one that scores once a part is there."""
    while len(killed) < 2:
        names = {DECODES, SCORES} if any((output / NOTES).glob("*.json")) else {DECODES}
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may have ended
                own = " ".join(process.cmdline())
                for name in names - killed:
                    if own.startswith(name):
                        process.kill()
                        killed.add(name)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_files_are_those_of_one_process_though_some_die(
    ray: Any, cli: Cli, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shard in range(4):
        names = [f"{shard}/{n:02}.png" for n in range(PICTURES)]
        make_tar(tmp_path / "shards" / f"{shard}.tar", pngs(names))
    (tmp_path / "shards" / "bad.tar").write_bytes(b"none" * 200)
    words = (tmp_path / "shards", "--shard_size", 6, "--batch_size", 2)
    assert cli(*words, "--output", tmp_path / "one", "--stream", "csv").status == 1
    wanted = files(tmp_path / "one")
    run = script(capsys, "score_ray.py: ", score_ray.main)
    words = (*words, "--weights", weights, "--stream", "csv", "--output", tmp_path / "ray")
    killed: set[str] = set()
    killer = threading.Thread(target=kill_one_of_each, args=(tmp_path / "ray", killed))
    killer.daemon = True
    killer.start()
    assert run(*words).status == 1
    assert killed == {DECODES, SCORES}
    assert files(tmp_path / "ray") == wanted
    # What is gone is written again, and nothing else.
    (tmp_path / "ray" / NOTES / "part-00001-00002.json").unlink()
    (tmp_path / "ray" / PARTS / "part-00002-00000.csv").unlink()
    assert run(*words, "--resume").status == 1
    assert files(tmp_path / "ray") == wanted


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_error_of_use_is_one_line(
    ray: Any, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = script(capsys, "score_ray.py: ", score_ray.main)
    words = (tmp_path, "--weights", weights, "--output", tmp_path / "out")
    assert "ftp://" in run("ftp://a.b/c", *words[1:]).complaint
    assert "found -" in run("-", *words[1:]).complaint
    assert "CPUs" in run(*words, "--detectors", 9).complaint
    assert "GPUs" in run(*words, "--gpus", 1).complaint
    assert run(*words).complaint.startswith(f"score_ray.py: {tmp_path}: expected pictures")


def test_a_part_of_the_cluster_has_split_and_credentials(weights: Path, tmp_path: Path) -> None:
    """Also one without pictures, which no batch would tell of otherwise."""
    files = {"a.png": png(Software="NovelAI"), "b.png": png()}
    sidecars = {"a.json": b'{"split": "val"}', "b.json": b'{"split": "test"}'}
    source = make_tar(tmp_path / "a.tar", files | sidecars)
    words = [str(source), "--output", "o", "--weights", str(weights), "--credentials"]
    args = parse_as_main(score_ray.parser(), [*words, "--device", "cpu"])
    args.workers, args.threads = 0, 1
    job, _, _ = score_ray.describe(args)
    detector = score_ray.Detector(args)
    rows = []
    for split in ("val", "train"):
        item = score_ray.Item(0, Source("archive", str(source), split=split), {}, (0, 1))
        [sent] = score_ray.decode(job, {"item": [pickle.dumps(item)]})
        answer = detector({"batch": sent["batch"][0]})
        _, place, total, batch = pickle.loads(answer["rows"])  # noqa: S301 - our own
        assert (place, total) == (0, 1)
        rows.append(batch)
    [[row], none] = rows
    assert row[0] == f"{source}/a.png" and row[-1] == "generator: NovelAI" and none == []


class Deliveries:
    """Ray, and its data set, which delivers these rows whatever is asked."""

    ActorPoolStrategy = staticmethod(lambda **_: None)

    def __init__(self, rows: list[tuple[Part, int, int, list[Any]]]) -> None:
        self._rows = rows
        self.data = self

    def from_items(self, *_: Any, **__: Any) -> Deliveries:
        return self

    map_batches = map = from_items

    def iter_rows(self) -> Iterator[dict[str, bytes]]:
        return ({"rows": pickle.dumps(row)} for row in self._rows)


def a_part(piece: int, last: bool) -> Part:
    return Part(0, piece, Note("a.tar", "1", 2, 0, "", last), [])


def parts_of(rows: list[tuple[Part, int, int, list[Any]]]) -> list[tuple[int, list[Any]]]:
    args = argparse.Namespace(cpus_per_decode=1, gpus=0, detectors=1, threads=1)
    job = cast(score_ray.Job, None)  # which nothing but the cluster looks at
    return [(part.piece, answers) for part, answers in
            score_ray.scored(Deliveries(rows), args, job, [])]  # fmt: skip


def test_a_part_that_comes_twice_is_written_once() -> None:
    part = a_part(0, last=True)
    batches = [(part, 1, 2, ["b"]), (part, 0, 2, ["a"])]
    assert parts_of([*batches, *batches]) == [(0, ["a", "b"])]


@pytest.mark.parametrize("delivered", [[], [0], [1]])
def test_a_part_that_does_not_come_is_an_error(tmp_path: Path, delivered: list[int]) -> None:
    files = PartFiles(tmp_path, "csv", {"path": "text"})
    files.prepare()
    item = score_ray.Item(0, Source("archive", "a.tar"), {}, (0, 1))
    for piece in delivered:
        files.write(0, piece, [["a"]], a_part(piece, last=piece == 1).note)
    with pytest.raises(LayoutError, match=r"a\.tar"):
        score_ray.check_delivered(files, [item])
    for piece in {0, 1}.difference(delivered):
        files.write(0, piece, [["a"]], a_part(piece, last=piece == 1).note)
    score_ray.check_delivered(files, [item])
