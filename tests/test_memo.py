"""Scores of earlier runs: what makes one void, and what a broken cache costs."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runner import runner, write_weights
from conftest import ROOT
from test_imports import Import, imports

from datasets._images import Known
from engine.config import ConfigError, parse_override, resolve
from engine.runtime.device import Device
from engine.scoring import cache, provenance
from engine.scoring.cache import Memo, open_memo
from engine.scoring.table import ScoreRow
from engine.scoring.torch_backend import computing

# Leaves without closing anything when some of its rows are on the disk already.
KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 5")
rows = ((os.urandom(16),) for _ in range(20_000))
connection.executemany("INSERT INTO scores VALUES (?, 9, 9, 9)", rows)
os._exit(1)
"""
# Where the walk through the imports ends: these say which pictures there are, with which options,
# where files lie, write them, and word errors; the key has the options, and the digests of pictures
# and weights.
OUTSIDE = {
    "datasets/__init__.py", "datasets/_archives.py", "datasets/_csv.py", "datasets/_kinds.py",
    "datasets/_notes.py", "datasets/_paths.py", "datasets/_record.py", "engine/__init__.py",
    "engine/config.py", "engine/fetching/__init__.py", "engine/fetching/catalogue.py",
    "engine/fetching/services.py", "engine/plain_data.py", "engine/runtime/__init__.py",
    "engine/runtime/files.py", "engine/runtime/text.py",
}  # fmt: skip
SCORING = (
    "engine/scoring/graph_backend.py", "engine/scoring/loop.py", "engine/scoring/torch_backend.py",
    "engine/weights/loading.py", "engine/weights/onnx.py",
)  # fmt: skip


def digest(number: int) -> str:
    return f"{number:032x}"


def row(number: int) -> ScoreRow:
    name = str(number)
    return ScoreRow(name, "", "", 0, number / 8, 0.5, "", "none", 640, 480, digest(number))


def known(number: int) -> Known:
    return Known(number / 8, 640, 480)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A cache with the pictures 0 to 1999."""
    path = tmp_path / "cache" / "a.sqlite"
    Memo(path).keep(map(row, range(2000)))
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.05)


# --- what a crash, a full disk or a stranger leaves


def test_a_killed_writer_costs_only_its_own_rows(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(file)], timeout=60)
    journal = file.with_name(file.name + "-journal")
    assert journal.stat().st_size > 0
    found = Memo(file)
    assert [found(digest(n)) for n in (0, 7, 1999)] == [known(n) for n in (0, 7, 1999)]
    found.keep([row(5000)])
    assert Memo(file)(digest(5000)) == known(5000)
    assert caplog.messages == []


def test_an_empty_file_is_an_empty_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.sqlite"
    path.touch()
    found = Memo(path)
    assert found(digest(1)) is None
    found.keep([row(1)])
    assert Memo(path)(digest(1)) == known(1)
    assert caplog.messages == []


def no_database(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def malformed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


@pytest.mark.parametrize("damage", [no_database, malformed])
def test_a_damaged_file_is_deleted_and_a_new_one_begins(
    file: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    damage(file)
    file.with_name(file.name + "-journal").write_bytes(b"of the damaged file")
    memo = Memo(file)
    assert memo(digest(1)) is None
    assert not file.exists()
    (line,) = caplog.messages
    assert re.search(r"a\.sqlite: is damaged \(.*\): deleted", line)
    memo.keep([row(1)])
    again = Memo(file)
    assert [again(digest(n)) for n in (1, 2)] == [known(1), None]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("damage", [no_database, malformed])
def test_damage_that_only_the_writer_meets_loses_none_of_its_rows(
    file: Path, caplog: pytest.LogCaptureFixture, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 10)
    memo = Memo(file)
    damage(file)
    memo.keep(map(row, range(3000, 3025)))
    again = Memo(file)
    assert all(again(digest(n)) == known(n) for n in range(3000, 3025))
    assert len(caplog.messages) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may delete anything")
def test_a_damaged_file_that_cannot_be_deleted_costs_only_time(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no_database(file)
    file.parent.chmod(0o500)
    try:
        memo = Memo(file)
        memo.keep([row(1)])
        assert memo(digest(1)) is None
    finally:
        file.parent.chmod(0o700)
    (line,) = caplog.messages
    assert "cannot be used" in line


# --- what cannot be opened


def too_long(tmp_path: Path) -> Path:
    return tmp_path / ("x" * 300)


def a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def a_loop(tmp_path: Path) -> Path:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path / "loop"


@pytest.mark.parametrize("place", [too_long, a_file, a_loop])
def test_a_folder_that_cannot_be_made_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: Any
) -> None:
    folder = place(tmp_path)
    for name in "abc":  # as a sweep has a file for each degradation
        found = open_memo(str(folder), name)
        assert found(digest(1)) is None
        found.keep([row(1)])
    (line,) = caplog.messages
    assert line.startswith(f"{folder}: the cache of scores cannot be used")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize(("mode", "readable"), [(0o500, True), (0o400, False), (0, False)])
def test_a_folder_without_permission_costs_only_time(
    file: Path, caplog: pytest.LogCaptureFixture, mode: int, readable: bool
) -> None:
    file.chmod(0o400)
    file.parent.chmod(mode)
    try:
        found = Memo(file)
        assert found(digest(1)) == (known(1) if readable else None)
        found.keep([row(5000)])
    finally:
        file.parent.chmod(0o700)
    assert len(caplog.messages) == 1


def test_a_run_goes_on_without_its_cache(
    tree: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = write_weights(tmp_path / "tiny.safetensors")
    first = ("--phase", "eval", "--device", "cpu", "--weights", weights, "--data", tree)
    evaluate = runner(capsys, caplog, monkeypatch, *first, "--output", tmp_path / "out")
    done = evaluate("--cache", too_long(tmp_path), "--degrade", "flip", "--limit", 2)
    assert done.status == 0
    assert sum("cannot be used" in line for line in done.log) == 1


# --- several runs at once


def test_rows_are_written_a_chunk_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 10)
    path = tmp_path / "a.sqlite"

    def rows() -> Iterator[ScoreRow]:
        for number in range(25):
            if path.exists():  # another run may write meanwhile
                with closing(sqlite3.connect(path, timeout=0)) as other:
                    other.execute("BEGIN IMMEDIATE")
            yield row(number)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Memo(path).keep(rows())
    found = Memo(path)
    assert [n for n in range(25) if found(digest(n))] == list(range(20))


@pytest.mark.usefixtures("impatient")
def test_a_locked_cache_costs_only_time(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        found = Memo(file)
        assert found(digest(1)) is None
        found.keep([row(5000)])
        (line,) = caplog.messages
        assert "cannot be used, which costs only time: database is locked" in line
        other.execute("ROLLBACK")
    found.keep([row(6000)])  # by the end of a run the other one is through
    again = Memo(file)
    assert [again(digest(n)) for n in (1, 5000, 6000)] == [known(1), None, known(6000)]


# --- where


@pytest.mark.parametrize("word", ["none", "None", "NONE"])
def test_none_keeps_nothing(word: str) -> None:
    assert open_memo(word, "key").path is None


def test_a_folder_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="--cache: expected a folder or none; found ' '"):
        open_memo(" ", "key")


# --- what makes a score void


def test_cards_of_one_name_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {0: "A", 1: "A", 2: "B"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: cards[device.index or 0])
    names = [computing(Device(torch.device(f"cuda:{n}"))).device for n in cards]
    names.append(computing(Device(torch.device("cuda"))).device)
    assert names == ["cuda (A)", "cuda (A)", "cuda (B)", "cuda (A)"]
    assert computing(Device(torch.device("cpu", 0))).device == "cpu"


SCORED = {"weights": {"sha256": "1"}, "precision": "fp32", "compiled": False, "device": "cpu"}
SCORED |= {"backend": "torch", "threads": 1, "decoding": "upright", "code": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"sha256": "2"}}, {"precision": "bf16"}, {"compiled": True}, {"device": "cuda"},
        {"versions": {"torch": "2"}}, {"degradation": "flip"}, {"set": "score.seed=1"},
        {"set": "default.views=1"}, {"threads": 2}, {"decoding": "published"}, {"code": "2"},
        {"backend": "onnxruntime"},
    ],
    ids=str,
)  # fmt: skip
def test_all_that_decides_a_score_enters_the_key(change: dict[str, Any]) -> None:
    def key(set: str = "score.seed=0", degradation: str = "none", **info: Any) -> str:
        config = resolve("default", [("--set", parse_override(set))])
        entries = SCORED | {"versions": {"torch": "1"}} | info
        return provenance.Provenance(config, entries).fingerprint(degradation)

    assert key() == key("score.batch_size=3")
    assert key(**change) != key()


def own_files(found: Import) -> Iterator[Path]:
    """The files that an import of this project's loads: the package's, and the module's."""
    parts = found.module.split(".")
    for end in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:end])
        yield from (p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file())


def covered() -> set[Path]:
    return {path for pattern in provenance.CODE for path in ROOT.glob(pattern)}


def reached() -> set[Path]:
    """The files that scoring imports, and theirs, but for those of OUTSIDE."""
    outside = {ROOT / name for name in OUTSIDE}
    found, todo = set(), [ROOT / name for name in SCORING]
    while todo:
        path = todo.pop()
        if path not in found | outside:
            found.add(path)
            todo += [file for each in imports(path) for file in own_files(each)]
    return found


def test_the_code_covers_all_that_scoring_imports() -> None:
    assert {"degradation_steps.py", "_images.py", "_base.py"} <= {path.name for path in reached()}
    assert sorted(reached() - covered()) == []


def test_the_code_has_files_for_each_of_its_patterns() -> None:
    assert [pattern for pattern in provenance.CODE if not list(ROOT.glob(pattern))] == []
    assert {ROOT / name for name in OUTSIDE} & covered() == set()


def test_a_change_of_the_code_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("datasets/_images.py", "detectors/a.py", "detectors/b/c.py", "engine/weights/onnx.py",
             "engine/scoring/loop.py", "engine/scoring/degradation_steps.py")  # fmt: skip
    for name in (*names, "engine/reporting/report.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    digests = {provenance.code_digest()}
    (tmp_path / "engine/reporting/report.py").write_text("2")
    assert provenance.code_digest() in digests
    for name in names:
        (tmp_path / name).write_text("2")
        digests.add(provenance.code_digest())
    assert len(digests) == 1 + len(names)


def test_libraries_are_all_that_the_code_imports() -> None:
    roots = {each.root for path in covered() if path.suffix == ".py" for each in imports(path)}
    roots -= {*sys.stdlib_module_names, "datasets", "detectors", "engine"}
    # For files and options alone, which the key has itself.
    roots -= {"huggingface_hub", "onnx", "onnxscript", "platformdirs", "pydantic", "yaml"}
    roots -= {"sklearn"}  # fits what weight files hold, and scores nothing
    assert {"torch", "PIL", "scipy", "onnxruntime", "open_clip", "diffusers"} <= roots
    names = packages_distributions()
    plain = {root: {re.sub("[-_.]+", "-", n).lower() for n in names.get(root, [root])}
             for root in roots}  # fmt: skip
    assert [root for root in sorted(roots) if not plain[root] & set(provenance.LIBRARIES)] == []
