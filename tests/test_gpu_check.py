"""The check of a GPU, rehearsed on the CPU: its steps, its files, and packages that are missing."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

import detectors
from scripts import _gpu_check, _wheels_needed

SCRIPT = ["bash", str(ROOT / "scripts/gpu_check.sh")]


@pytest.mark.slow
def test_a_rehearsal_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind one, by the script."""
    monkeypatch.setenv("PYTHON", sys.executable)
    words = ["--device", "cpu", "--tiny", "--output", str(tmp_path), "--only", "ssp"]
    done = subprocess.run([*SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert [(row["step"], row["outcome"]) for row in written["rows"]] == [
        ("detector", "ok"), ("training", "ok"),
    ]  # fmt: skip
    figures = written["rows"][0]["figures"]
    assert figures["moved_bf16"] <= 0.05 and figures["pictures_a_second"] > 0
    assert len(written["rows"][1]["figures"]["losses"]) == 2
    assert (tmp_path / "gpu_check.md").read_text(encoding="utf-8") == done.stdout


def test_steps_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every detector and recipe has a step; one that fails, or has no time left, costs its row."""
    steps = _gpu_check.plan("cuda")
    assert steps[0][0] == "tests"
    single = set(detectors.available()) - set(detectors.combined())
    assert {what for step, what in steps if step == "detector"} == single
    words = ["--device", "nowhere", "--tiny", "--output", str(tmp_path), "--only", "ssp"]
    assert _gpu_check.main([*words, "--seconds", "1"]) == _gpu_check.FAILED
    rows = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))["rows"]
    assert [row["outcome"] for row in rows] == ["out of time", "out of time"]
    assert "out of time" in capsys.readouterr().out


def test_packages_that_are_missing_are_named() -> None:
    lock = tomllib.loads(_wheels_needed.LOCK.read_text(encoding="utf-8"))
    needed = _wheels_needed.needed(lock)
    assert {"pydantic", "safetensors", "timm", "pytest"} <= needed.keys()
    assert not {"torch", "torchvision", "sympy", "ruff"} & needed.keys()
    assert not [name for name in needed if name.startswith("nvidia")]
