"""Phase eval: what is scored, what is kept, and what an interruption leaves."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runner import QUICK, Cli, runner, write_weights
from conftest import ROOT, make_picture, make_tree, read_csv
from PIL import Image

import main
from datasets import Label, Record
from detectors.default import Default
from engine.config import ConfigError
from engine.phases import eval
from engine.reporting import plots
from engine.runtime import distributed, table_writer
from engine.runtime import run_folder as engine_run
from engine.scoring import cache as memo
from engine.scoring import scorer, trained_on
from engine.scoring.table import ScoreRow, read_table

# Every row on disk at once, so that it is a row that finds the disk full.
FLUSHED = """
import sys
import main
from engine.runtime import table_writer
table_writer.FLUSH_SECONDS = 0
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of a small run's time, and have tests of their own."""
    monkeypatch.setattr(plots, "draw", lambda *_: {})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    weights: Path,
) -> Cli:
    first = ("--phase", "eval", "--device", "cpu", "--weights", weights)
    return runner(capsys, caplog, monkeypatch, *first)


def info(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def counts(folder: Path) -> tuple[int, int]:
    found = info(folder)["counts"]
    return found["scored_now"], found["reused"]


def command(weights: Path, data: Path, output: Path) -> list[str]:
    words = ["--phase", "eval", "--device", "cpu", "--weights", weights, "--data", data]
    words += ["--output", output, "--workers", 1, "--batch_size", 2, "--cache", "none", *QUICK[:2]]
    return [str(word) for word in words]


def test_the_log_and_the_report_tell_of_pictures_that_were_trained_on(
    run: Cli, tree: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    weights = write_weights(tmp_path / "own.safetensors")
    trained_on.write(tmp_path, [Record(path.name, path) for path in pictures[:3]])
    twice = tree / "fake" / "twice.png"
    shutil.copy(next((tree / "real").rglob("*.*")), twice)
    words = ("--weights", weights, "--data", tree, "--output", tmp_path / "out")
    done = run(*words, "--min_pictures", 3)
    said = [line for line in done.log if "trained on" in line or "real and synthetic" in line]
    assert len(said) == 2 and "3 of 25" in said[0] and "twice.png" in said[1]
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(f"> **Warning:** {line[:20]}" in report for line in said)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["hints"] == said and written["min_pictures"] == 3
    assert info(tmp_path / "out")["min_pictures"] == 3


# --- scores of earlier runs


def test_pictures_are_known_by_their_content(
    run: Cli, tree: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    cache = ("--cache", tmp_path / "cache")
    run("--data", tree, "--output", tmp_path / "a", *cache)
    moved = tmp_path / "moved"
    shutil.copytree(tree, moved)
    changed = moved / pictures[0].relative_to(tree)
    make_picture(999, fake=False).save(changed)
    done = run("--data", moved, "--output", tmp_path / "b", *cache)
    assert counts(tmp_path / "b") == (1, 23)
    assert any("23 scores were known from earlier runs" in line for line in done.log)
    before, after = (read_table(tmp_path / name / "scores.csv") for name in "ab")
    assert [a.logit == b.logit for a, b in zip(before, after, strict=True)].count(False) == 1


def test_without_a_cache_nothing_is_kept(
    run: Cli, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo, "default_folder", lambda: tmp_path / "default")
    run("--data", tree, "--output", tmp_path / "a", "--cache", "none")
    assert not (tmp_path / "default").exists()
    run("--data", tree, "--output", tmp_path / "c")
    assert len(list((tmp_path / "default").iterdir())) == 1


# --- what cannot be read


def test_one_percent_is_not_too_many(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ScoreRow(str(n), "", "", 0, None if n == 0 else 1.0, None if n == 0 else 0.731059,
                 "broken" if n == 0 else "", "none", 8, 8)
        for n in range(100)
    ]  # fmt: skip
    assert eval._check_readable(rows) == 1
    assert not any("may" in line for line in caplog.messages)
    assert eval._check_readable(rows[:99]) == 1
    assert any("1.0 % of the pictures" in line for line in caplog.messages)


def test_a_picture_listed_twice_is_refused() -> None:
    records = [Record(key, Path(key), Label.REAL) for key in ("a", "b", "a")]
    with pytest.raises(ConfigError, match="expected each picture once; found 'a' 2 times"):
        scorer.check_keys(records)


# --- sweeps


def test_a_sweep_has_every_picture_once_per_degradation(
    run: Cli, tree: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    """Counts are of pictures, and not of the table's rows."""
    pictures[2].write_bytes(b"")
    output, alone = tmp_path / "out", tmp_path / "alone"
    words = ("--data", tree, "--output", output, "--degrade", "jpeg:090,50", "resize:0.5")
    done = run(*words)
    rows = read_table(output / "scores.csv")
    names = ["none", "jpeg:90", "jpeg:50", "resize:0.5"]
    assert [row.degradation for row in rows] == [name for name in names for _ in range(24)]
    assert {row.width for row in rows if not row.error} == {72}  # of the picture as it was
    told = info(output)
    assert told["degradations"] == names
    assert [told["counts"][key] for key in ("pictures", "unreadable", "rows")] == [24, 1, 96]
    assert done.status == 1 and "1 of 24 pictures could not be read" in done.log
    assert any("4.2 % of the pictures could not be read" in line for line in done.log)
    again = run(*words, "--resume")
    assert "96 of 96 rows (pictures x degradations) were scored before" in again.log
    run("--data", tree, "--output", alone, "--degrade", "jpeg:50", "--cache", "none")
    assert read_table(alone / "scores.csv") == [r for r in rows if r.degradation == "jpeg:50"]


# --- stopped and gone on with


@dataclass
class Child:
    """main.py in a process of its own, forked from this one, which has imported everything."""

    process: BaseProcess
    out: Path
    err: Path

    def wait(self) -> int:
        self.process.join(60)
        if self.process.exitcode is None:
            self.process.kill()
        assert self.process.exitcode is not None, self.err.read_text()
        return self.process.exitcode


def fork(
    folder: Path, words: list[str], pause: float = 0.0, gate: Path | None = None, **environment: str
) -> Child:
    """Starts main.py with these words, every row on disk at once, and a pause at each forward, or
    until the file `gate` is there."""
    number = len(list(folder.glob("*.out")))
    out, err = folder / f"{number}.out", folder / f"{number}.err"

    def run() -> None:
        for path, descriptor in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        for handler in [*logging.getLogger().handlers]:
            logging.getLogger().removeHandler(handler)
        os.environ |= environment
        # A fork has none of the threads that computed for this process, and would wait for them.
        torch.set_num_threads(1)
        table_writer.FLUSH_SECONDS = 0
        forward = Default.forward

        def slowly(self: Default, batch: torch.Tensor) -> torch.Tensor:
            time.sleep(pause)
            while gate and not gate.exists():
                time.sleep(0.01)
            return forward(self, batch)

        Default.forward = slowly  # type: ignore[method-assign]
        try:
            status = main.main(words)
        except SystemExit as error:
            status = int(error.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    out.touch()
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return Child(process, out, err)


def wait_for(child: Child, table: Path, lines: int) -> None:
    """Until the child's table has so many lines."""
    deadline = time.monotonic() + 60
    while not table.exists() or table.read_bytes().count(b"\n") < lines:
        assert child.process.is_alive() and time.monotonic() < deadline, child.err.read_text()
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_work_and_resumed(weights: Path, tmp_path: Path) -> None:
    data = make_tree(tmp_path / "data", count=6)
    next(data.rglob("005*")).write_bytes(b"broken")
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert fork(tmp_path, command(weights, data, whole)).wait() == 1
    words = command(weights, data, output)
    child = fork(tmp_path, words, pause=0.1)
    scores = output / "scores.csv"
    for lines in (4, 10):
        wait_for(child, scores, lines)
        child.process.kill()
        assert child.wait() == -signal.SIGKILL
        assert lines <= scores.read_bytes().count(b"\n") < 25
        child = fork(tmp_path, [*words, "--resume"], pause=0.1)
    assert child.wait() == 1
    for name in ("scores.csv", "result.json", "output.json"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a file system of its own")
def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(
    run: Cli, weights: Path, tmp_path: Path
) -> None:
    data, disk, saved = make_tree(tmp_path / "data"), tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    sweep = ("--degrade", "none", "blur:1", "blur:2", "blur:3")
    # 12 KB hold run.json and some rows of the table; the file system goes with its process.
    script = (
        f"mount -t tmpfs -o size=12k none '{disk}' || exit 77; "
        f"\"$@\"; status=$?; cp -r '{disk}' '{saved}'; exit $status"
    )
    words = [sys.executable, "-c", FLUSHED, *command(weights, data, disk / "out"), *sweep]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode in (1, 77) and "main.py" not in done.stderr:
        pytest.skip(f"no file system of its own: {done.stderr.strip()}")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "No space left on device" in last and "--resume goes on" in last
    assert str(disk / "out") in last
    assert "Traceback" not in done.stderr
    output = saved / "out"
    kept = (output / "scores.csv").read_bytes().count(b"\n")
    assert 1 < kept < 97
    resumed = run(*command(weights, data, output)[2:], *sweep, "--resume")
    assert resumed.status == 0
    run(*command(weights, data, tmp_path / "whole")[2:], *sweep)
    expected = (tmp_path / "whole" / "scores.csv").read_bytes()
    assert (output / "scores.csv").read_bytes() == expected


def test_two_runs_do_not_write_into_one_folder(
    run: Cli, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, gate = tmp_path / "out", tmp_path / "gate"
    words = command(weights, make_tree(tmp_path / "data", count=1), output)
    child = fork(tmp_path, words, gate=gate)
    wait_for(child, output / "run.json", 1)
    monkeypatch.setattr(engine_run, "WAIT_SECONDS", 0.1)
    for again in ("--resume", "--overwrite"):
        done = run(*words[2:], again)
        assert done.status == 2 and "in use by another run" in done.err
    gate.touch()
    assert child.wait() == 0
    assert run(*words[2:], "--resume").status == 0


@dataclass(frozen=True)
class Finished:
    """A finished run: its pictures, its results, and the words that resume it."""

    data: Path
    output: Path
    words: list[str]


@pytest.fixture(scope="module")
def whole(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Do not change its files."""
    folder = tmp_path_factory.mktemp("whole")
    data, output = make_tree(folder / "data"), folder / "out"
    words = command(weights, data, output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", lambda *_: {})
        assert main.main(words) == 0
    return Finished(data, output, words)


@pytest.fixture
def started(whole: Finished, weights: Path, tmp_path: Path) -> Finished:
    """A copy of which the last ten rows were lost."""
    data, output = tmp_path / "data", tmp_path / "out"
    shutil.copytree(whole.data, data)
    shutil.copytree(whole.output, output)
    scores = output / "scores.csv"
    scores.write_bytes(b"".join(scores.read_bytes().splitlines(keepends=True)[:-10]))
    return Finished(data, output, [*command(weights, data, output)[2:], "--resume"])


def test_other_pictures_of_the_same_names_are_not_mixed_in(run: Cli, started: Finished) -> None:
    before = (started.output / "scores.csv").read_bytes()
    make_picture(999, fake=False).save(sorted(started.data.rglob("*.*"))[0])
    done = run(*started.words)
    assert done.status == 2 and "is no longer the picture" in done.err
    assert (started.output / "scores.csv").read_bytes() == before


def test_a_run_that_does_not_say_what_it_was_is_not_resumed(run: Cli, started: Finished) -> None:
    (started.output / "run.json").unlink()
    done = run(*started.words)
    assert done.status == 2 and "not the run.json that says how it was made" in done.err


@pytest.mark.parametrize(
    "entry", ["device", "compiled", "code", "versions.torch", "score.seed", "weights.sha256"]
)
def test_what_decides_a_score_must_be_the_same_in_a_resumed_run(
    run: Cli, started: Finished, entry: str
) -> None:
    content = info(started.output)
    section = content["config"] if entry.startswith("score") else content
    *above, last = entry.split(".")
    for name in above:
        section = section[name]
    section[last] = "another"
    (started.output / "run.json").write_text(json.dumps(content))
    done = run(*started.words)
    assert done.status == 2 and f"had other {entry}: " in done.err


def test_what_decides_no_score_may_differ_in_a_resumed_run(
    run: Cli, started: Finished, whole: Finished
) -> None:
    assert run(*started.words, "--set", "score.resamples=30", "train.epochs=3").status == 0
    tables = [(each.output / "scores.csv").read_bytes() for each in (started, whole)]
    assert tables[0] == tables[1]


def test_the_seed_reaches_the_scoring(run: Cli, tree: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        words = ("--degrade", "noise:20", "--cache", "none", "--limit", 2, "--seed", seed)
        run("--data", tree, "--output", tmp_path / str(seed), *words)
    one, two = (read_table(tmp_path / name / "scores.csv") for name in "12")
    assert all(a.logit != b.logit for a, b in zip(one, two, strict=True))


# --- several processes


def together(folder: Path, words: list[str], others: list[str] | None = None) -> list[Child]:
    """Two processes as torchrun starts them, the second one perhaps with other words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
    shared |= {"MASTER_ADDR": "127.0.0.1"}
    return [
        fork(folder, its, RANK=rank, LOCAL_RANK=rank, **shared)
        for rank, its in (("0", words), ("1", others or words))
    ]


def several(weights: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """20 pictures, one of them broken, as 7 batches of 3 under each of two degradations."""
    data = make_tree(tmp_path / "data", count=5)
    next(data.rglob("003*")).write_bytes(b"broken")
    words = command(weights, data, tmp_path / "alone")
    return tmp_path / "alone", [*words, "--batch_size", "3", "--degrade", "none", "blur:1"]


def test_several_processes_give_the_scores_of_one(run: Cli, weights: Path, tmp_path: Path) -> None:
    alone, words = several(weights, tmp_path)
    assert run(*words[2:]).status == 1
    expected = (alone / "scores.csv").read_bytes()
    output = tmp_path / "together"
    words[words.index(str(alone))] = str(output)
    first, second = together(tmp_path, words)
    assert (first.wait(), second.wait()) == (1, 0)
    assert (output / "scores.csv").read_bytes() == expected
    assert info(output)["processes"] == 2
    assert counts(output) == counts(alone)
    assert first.out.read_text().count("percent [95 % interval]") == 1
    assert first.err.read_text().count("results are in") == 1
    assert second.out.read_text() + second.err.read_text() == ""
    # A table cut in the middle of a batch is completed by both.
    (output / "scores.csv").write_bytes(b"".join(expected.splitlines(keepends=True)[:8]))
    for child in together(tmp_path, [*words, "--resume"]):
        child.wait()
    assert (output / "scores.csv").read_bytes() == expected


@pytest.mark.slow
def test_torchrun_gives_the_scores_of_one_process(weights: Path, tmp_path: Path) -> None:
    alone, words = several(weights, tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", str(ROOT / "main.py")]
    free = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, ROOT / "main.py", *words], check=False, env=free)
    words[words.index(str(alone))] = str(tmp_path / "together")
    subprocess.run([*launch, *words], check=False, timeout=240, env=free)
    expected = (alone / "scores.csv").read_bytes()
    assert (tmp_path / "together" / "scores.csv").read_bytes() == expected


@pytest.mark.parametrize("case", ["output", "phase"])
def test_each_of_several_processes_says_its_own_error(
    weights: Path, tmp_path: Path, case: str
) -> None:
    data = make_tree(tmp_path / "data", count=2)
    words, complaint = {
        "output": (command(weights, data, weights), "expected a folder; found a file"),
        "phase": (["--phase", "test", "--input", str(data)], "expected one process"),
    }[case]
    first, second = together(tmp_path, words)
    assert (first.wait(), second.wait()) == (2, 2)
    (line,) = first.err.read_text().splitlines()
    assert line.startswith("main.py: ") and complaint in line
    others = second.err.read_text().splitlines()
    assert [line.replace("process 1: ", "") for line in others] == [line]
    assert first.out.read_text() + second.out.read_text() == ""


@pytest.mark.parametrize("case", ["pictures", "options"])
def test_processes_that_were_to_do_different_things_are_refused(
    weights: Path, tmp_path: Path, case: str
) -> None:
    data, output = make_tree(tmp_path / "data", count=2), tmp_path / "out"
    words = command(weights, data, output)
    others, named = {
        "pictures": (["--data", str(make_tree(tmp_path / "less", count=1))], "data.digest"),
        "options": (["--set", "default.views=5"], "default.views"),
    }[case]
    first, second = together(tmp_path, words, [*words, *others])
    assert (first.wait(), second.wait()) == (2, 2)
    (line,) = first.err.read_text().splitlines()
    assert line.startswith("main.py: process 1 has other ") and named in line
    assert second.err.read_text() == "" and not output.exists()


def test_processes_end_when_what_started_them_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = distributed.World(1, 2)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(distributed.OtherFailed):
        world.gather(None)


def test_a_comparison_is_printed_once(whole: Finished, tmp_path: Path) -> None:
    words = ["--phase", "eval", "--compare", str(whole.output), str(whole.output)]
    first, second = together(tmp_path, words)
    assert (first.wait(), second.wait()) == (0, 0), first.err.read_text()
    assert first.out.read_text() != "" and second.out.read_text() == ""


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "expected MASTER_ADDR and MASTER_PORT too"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "expected RANK below WORLD_SIZE"),
        ({"RANK": "a", "WORLD_SIZE": "2"}, "expected RANK below WORLD_SIZE"),
    ],
)
def test_an_environment_half_like_torchruns_is_refused(
    run: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch, environment: Any, complaint: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = run("--data", tree)
    assert done.status == 2 and complaint in done.err


# --- benchmarks


def bench_tree(root: Path) -> Path:
    """A part of Co-Spy-Bench: three generators of cc3m, one of textcaps."""
    cells = {"cc3m": ("org@a", "org@b", "org@c"), "textcaps": ("org@a",)}
    for number, (source, names) in enumerate(cells.items()):
        places = [(root / "real_image_examples" / source.upper(), False, 4)]
        places += [(root / "synthetic" / source / name, True, 3) for name in names]
        for place, (folder, fake, count) in enumerate(places):
            folder.mkdir(parents=True)
            for index in range(count):
                seed = 100 * number + 10 * place + index
                make_picture(seed, fake).save(folder / f"{index}.png")
    return root


def test_a_benchmark_scores_each_picture_once(run: Cli, tmp_path: Path) -> None:
    root, output = bench_tree(tmp_path / "bench"), tmp_path / "out"
    flags = ("--benchmark", "cospy_bench", "--data_root", root, "--sources", "cc3m,textcaps")
    done = run(*flags, "--output", output)
    assert done.status == 0, done.err
    rows = read_table(output / "scores.csv")
    assert len({row.key for row in rows}) == len(rows)
    # Of four reals three are measured against three fakes.
    found = sorted((row.source, row.generator) for row in rows)
    cells = [("cc3m", ""), ("cc3m", "org@a"), ("cc3m", "org@b"), ("cc3m", "org@c")]
    cells += [("textcaps", ""), ("textcaps", "org@a")]
    assert found == sorted(cell for cell in cells for _ in range(3))
    assert {row.degradation for row in rows} == {"jpeg:95"}
    result = json.loads((output / "result.json").read_text())
    assert {s: sorted(cell) for s, cell in result.items()} == {
        "cc3m": ["org@a", "org@b", "org@c"],
        "textcaps": ["org@a"],
    }
    assert {cell["size"] for row in result.values() for cell in row.values()} == {6}
    assert (info(output)["benchmark"], info(output)["protocol"]) == ("cospy_bench", "published")


def test_what_json_says_is_kept_and_divides_the_report(run: Cli, tmp_path: Path) -> None:
    root, output = bench_tree(tmp_path / "bench"), tmp_path / "out"
    fakes, folder = root / "synthetic" / "cc3m", "synthetic/cc3m"
    for index, steps in enumerate((20, 50, 20)):
        said = {"caption": f"=cat {index}", "params": {"guidance": 7.5, "steps": steps}, "x": [1]}
        (fakes / "org@a" / f"{index}.json").write_text(json.dumps(said))
    lines = [{"file": "images/1.png", "params": {"steps": 4}}, {"file": "none.png"}]
    (fakes / "org@b" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (fakes / "org@c" / "0.json").write_text("{")
    (root / "real_image_examples" / "CC3M" / "0.png.json").write_text('{"caption": "a dog"}')
    flags = ("--benchmark", "cospy_bench", "--data_root", root, "--sources", "cc3m")
    done = run(*flags, "--output", output)
    assert done.status == 0 and any("1 JSON files" in line for line in done.log), done
    rows = {row["key"]: row for row in read_csv(output / "metadata.csv")}
    assert list(rows[f"{folder}/org@a/0.png"].values())[1:] == ["'=cat 0", "", "7.5", "20"]
    assert rows[f"{folder}/org@b/1.png"]["params.steps"] == "4" and len(rows) == 5
    assert rows["real_image_examples/CC3M/0.png"]["caption"] == "a dog"
    plain = json.loads((output / "result.json").read_text())["cc3m"]
    assert set(plain) == {"org@a", "org@b", "org@c"}

    more = ("--group_by", "params.steps", "--generators", "org@a,org@b", "--overwrite")
    assert run(*flags, "--output", output, *more).status == 0
    cells = json.loads((output / "result.json").read_text())["cc3m"]
    assert {name: cell["size"] for name, cell in cells.items()} == {
        "org@a [params.steps=20]": 4, "org@a [params.steps=50]": 2,
        "org@b [params.steps=4]": 2, "org@b [params.steps=?]": 4,
    }  # fmt: skip
    assert "org@a [params.steps=50]" in (output / "report.md").read_text(encoding="utf-8")
    done = run(*flags, "--output", output, "--group_by", "steps", "--overwrite")
    assert "caption, file, params.guidance, params.steps; found steps" in done.complaint


def test_the_matched_protocol_makes_formats_and_sizes_alike(run: Cli, tmp_path: Path) -> None:
    root, output = bench_tree(tmp_path / "bench"), tmp_path / "out"
    flags = ("--benchmark", "cospy_bench", "--data_root", root, "--sources", "cc3m")
    assert run(*flags, "--protocol", "matched", "--output", output).status == 0
    assert {r.degradation for r in read_table(output / "scores.csv")} == {"crop:256+jpeg:90"}
    done = run(*flags, "--degrade", "blur:1", "none", "--output", output, "--overwrite")
    assert done.status == 0
    names = {row.degradation for row in read_table(output / "scores.csv")}
    assert names == {"jpeg:95+blur:1", "jpeg:95"}


def test_what_a_benchmark_lacks_is_said(run: Cli, tmp_path: Path) -> None:
    root = bench_tree(tmp_path / "bench")
    flags = ("--benchmark", "cospy_bench", "--data_root", root, "--output", tmp_path / "out")
    done = run(*flags, "--sources", "cc3m", "--generators", "org@a,org@z")
    assert re.search("org@z.*org@a, org@b, org@c", done.complaint)
    done = run(*flags)
    assert any("3 of the 5 sources of Co-Spy-Bench are not there: mscoco" in x for x in done.log)
    shutil.copytree(root / "synthetic" / "cc3m", root / "synthetic" / "mscoco")
    complaint = run(*flags, "--overwrite").complaint
    assert "mscoco" in complaint and "data.mscoco" in complaint


def test_thumbnails_are_those_of_the_worst_errors(run: Cli, tree: Path, tmp_path: Path) -> None:
    assert run("--data", tree, "--output", tmp_path / "out").status == 0
    rows = read_table(tmp_path / "out" / "scores.csv")
    wrong = [row for row in rows if (row.score or 0) > 0.5 and row.label == 0]
    wrong += [row for row in rows if (row.score or 0) <= 0.5 and row.label == 1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert 0 < len(wrong) <= 20
    assert page.count("data:image/jpeg;base64,") == len(wrong)
    with Image.open(tmp_path / "out" / "errors.png") as sheet:
        assert sheet.width > 100
