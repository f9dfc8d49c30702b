"""What needs a CUDA device: the same scores as on the CPU, and training in mixed precision."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from conftest import make_picture
from golden_rule import INPUTS, published
from models import Toy, tiny
from training import config_of, request_of

import datasets
import detectors
from datasets import Record
from engine.phases.train import train
from engine.runtime.device import open_device
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.torch_backend import TorchBackend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def records(tree: Path) -> list[Record]:
    return datasets.open_path(tree)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", detectors.available())
def test_scores_are_those_of_the_cpu(name: str, precision: str, records: list[Record]) -> None:
    def scores(device: str, precision: str) -> list[float]:
        on = open_device(device, precision)
        model = copy.deepcopy(tiny(name)).to(on.device)
        rows = [
            row
            for rows in score(TorchBackend(model, on), records, ScoringOptions(8))
            for row in rows
        ]
        assert not any(row.error for row in rows)
        return [row.score or 0.0 for row in rows]

    limit = 1e-3 if precision == "fp32" else 0.05
    assert scores("cuda", precision) == pytest.approx(scores("cpu", "fp32"), abs=limit)


@pytest.mark.parametrize("name", detectors.available())
def test_compiled_scores_are_those_of_the_plain_network(name: str, records: list[Record]) -> None:
    on = open_device("cuda", "fp32")
    plain = copy.deepcopy(tiny(name)).to(on.device)
    compiled = copy.deepcopy(plain)
    compiled.compile()
    found = [
        [
            row.score or 0.0
            for rows in score(TorchBackend(m, on), records, ScoringOptions(8))
            for row in rows
        ]
        for m in (plain, compiled)
    ]
    assert found[1] == pytest.approx(found[0], abs=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "file"), [("spai", 'spai spai.pth["model"]'), ("ssp", "ssp Net_epoch_best.pth")]
)
def test_half_precision_keeps_the_golden_probabilities(
    name: str, file: str, precision: str
) -> None:
    kind = detectors.load(name)
    model = kind(kind.Options()).eval()
    model.load_state_dict(model.convert(published(file)))
    records = [Record(path.name, path) for path in INPUTS]

    def scores(precision: str) -> list[float]:
        on = open_device("cuda", precision)
        rows = [
            r
            for rows in score(TorchBackend(model.to(on.device), on), records, ScoringOptions(2))
            for r in rows
        ]
        return [row.score or 0.0 for row in rows]

    moved = [abs(a - b) for a, b in zip(scores("fp32"), scores(precision), strict=True)]
    print(f"{name} {precision}: largest move {max(moved):.5f}")  # noqa: T201
    assert max(moved) <= 0.02


def test_memory_does_not_grow_with_the_picture(tmp_path: Path) -> None:
    """SPAI's patches stream through: of a picture nine times as large, only its bytes are more."""
    on = open_device("cuda", "fp32")
    model = copy.deepcopy(tiny("spai")).to(on.device)
    peaks = []
    for side in (1792, 5376):
        path = tmp_path / f"{side}.png"
        make_picture(0, fake=False, size=(side, side)).save(path)
        torch.cuda.reset_peak_memory_stats()
        [[row]] = score(TorchBackend(model, on), [Record(path.name, path)], ScoringOptions(1))
        assert not row.error
        peaks.append(torch.cuda.max_memory_allocated() - 3 * side * side)
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("precision", [None, "bf16", "fp16"])
def test_training_runs_in_mixed_precision(
    precision: str | None, records: list[Record], tmp_path: Path
) -> None:
    config = config_of(precision=precision, epochs=2)
    request = request_of(config, (records, records), tmp_path)
    request = dataclasses.replace(request, device=torch.device("cuda"))
    history = train(request, Toy(config.options))
    assert len(history) == 2
    assert all(math.isfinite(row["loss"]) for row in history)
