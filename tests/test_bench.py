"""The benchmark: its rows, its plain ways, and what it says where there is nothing to measure."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_runner import script
from models import tiny
from PIL import Image

import datasets
import detectors
from engine.scoring.graph_backend import GraphBackend
from scripts.bench import __main__ as bench
from scripts.bench import backends, decoding, measures, plain, subjects, timing


def test_a_measure_is_rows_of_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a limit that is not met is marked, and is the exit status."""
    for name, few in (("DECODED", 2), ("SMALL", 20), ("RESAMPLES", 5)):
        monkeypatch.setattr(measures, name, few)
    assert bench.main(["decode", "loop", "bootstrap"]) in (0, 1)  # a busy machine may miss one
    rows = capsys.readouterr().out.splitlines()[4:]
    assert len(rows) == 3 and "5 resamples" in rows[2]
    assert all(re.search(r"\| \d+\.\d\d (x|s) \(.*(NOT MET)? \|", row) for row in rows)

    def slow(_: Path) -> list[timing.Figure]:
        return [timing.at_most("time", 3.0, 2, "6 s against 2 s")]

    monkeypatch.setitem(measures.MEASURES, "slow", slow)
    assert bench.main(["slow"]) == 1
    assert "| time | 3.00 x (6 s against 2 s) | <= 2 x NOT MET |" in capsys.readouterr().out
    run = script(capsys, "bench: ", bench.main)
    assert "help, verdict" in run("nothere").complaint
    assert "npr" in run("backends:nothere").complaint
    assert "help:npr" in run("help:npr").complaint


def test_plain_ways_give_what_the_product_does(tmp_path: Path) -> None:
    """Or their times would say nothing."""
    files = subjects.jpegs(tmp_path / "pictures", 4, (160, 120))
    kind = detectors.load("ssp")
    model = kind(kind.tiny()).eval()
    assert subjects.scored(model, files) == pytest.approx(
        plain.score(model, files, 3).tolist(), abs=1e-5
    )
    null = subjects.Null(SimpleNamespace()).eval()
    items = plain.load(files, subjects.upper_left, 2)
    assert subjects.scored(null, files) == pytest.approx(null(items).tolist(), abs=1e-5)
    data = subjects.labelled_names(tmp_path / "data", files, 10)
    assert len(datasets.open_path(data)) == 10


# --- ways to compute


@pytest.mark.parametrize(
    ("name", "way", "most"),
    [
        ("npr", "PyTorch in bf16", 0.1),
        pytest.param("npr", "onnxruntime", 1e-4, marks=pytest.mark.slow),
        pytest.param("npr", "torch.compile", 1e-4, marks=pytest.mark.slow),
        pytest.param("cospy", "PyTorch in bf16", 0.1, marks=pytest.mark.slow),
    ],
)
def test_a_way_to_compute_gives_about_the_same_scores(
    name: str,
    way: str,
    most: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backends, "detector", tiny)
    monkeypatch.setattr(backends, "TIMED_SECONDS", 0.0)  # one picture, as of a slow network
    backends.tell(name, way, *map(str, subjects.jpegs(tmp_path / "pictures", 2)))
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["pictures"] == 1 and told["moved"] <= most
    assert min(told["plain"], told["other"], told["ready"]) > 0


def test_a_detector_that_a_way_cannot_compute_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "detector", tiny)
    pictures = map(str, subjects.jpegs(tmp_path / "pictures", 1))
    backends.tell("trainingfree", "onnxruntime", *pictures)
    assert "exported" in json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    ("program", "limit", "said"),
    [
        ("print('\"no | way\"')", 60, "none: no / way"),
        ("import sys; sys.exit('out of memory')", 60, "none: ended with status 1: out of memory"),
        ("import time; time.sleep(60)", 0.2, "none: not done within 0.2 s"),
    ],
)
def test_a_way_that_fails_is_a_row(
    program: str, limit: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "CHILD", (sys.executable, "-c", program))
    monkeypatch.setattr(backends, "LIMIT_SECONDS", limit)
    monkeypatch.setattr(backends, "WAYS", {"onnxruntime": None})
    [figure] = backends.measure(tmp_path, ["npr"])
    assert figure.value == said and "npr" in figure.what and figure.met


# --- decoders, and processes that decode


def test_decoders_are_compared_by_rate_and_by_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SIZES", (((700, 500), 2),))
    rows = list(decoding.measure_decoders(tmp_path))
    assert [row.what.split()[0] for row in rows] == ["torchvision.io", "simplejpeg"]
    assert re.fullmatch(r"\d+\.\d\d x \(.* a second; pixels differ by \d+\)", rows[0].value)
    assert {Image.open(path).size for path in tmp_path.rglob("*.jpg")} == {(700, 500)}


def test_decoders_that_differ_are_told(tmp_path: Path) -> None:
    [path] = subjects.jpegs(tmp_path / "pictures", 1, (64, 48))

    def brighter(content: bytes) -> Image.Image:
        return Image.fromarray(np.minimum(np.asarray(decoding._by_product(content)), 252) + 3)

    contents = [path.read_bytes()]
    assert decoding._difference(decoding._by_product, decoding._by_torchvision, contents) < 16
    assert decoding._difference(decoding._by_product, brighter, contents) == 3


def nothing(*_: Any) -> np.ndarray:
    """An item without a look at the picture."""
    return np.zeros(3, np.float32)


def test_numbers_of_processes_are_compared_with_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub: Any = SimpleNamespace(transform=nothing, threads=1)
    monkeypatch.setattr(decoding, "shipped_graph", lambda: decoding._free(GraphBackend(stub)))
    monkeypatch.setattr(decoding, "decoders", lambda: 1)
    for name, few in (("FREE_PICTURES", 4), ("SHIPPED_PICTURES", 2), ("MEGAPIXEL", (64, 48)),
                      ("FEW_WORKERS", (0, 1)), ("REPEATS", 1)):  # fmt: skip
        monkeypatch.setattr(decoding, name, few)
    rows = list(decoding.measure_workers(tmp_path))
    assert len(rows) == 2 and all("--workers 1" in row.what for row in rows)
    for row in rows:
        alone, default = re.findall(r"\d: (\d+\.\d\d) x", row.value)
        assert default == "1.00" and float(alone) > 0
        assert row.limit == ">= 0.9 x" and 0 <= float(row.value.split()[0]) <= 1
