"""What needs a CUDA device: the same scores as on the CPU, and training in mixed precision."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from models import Toy, tiny
from training import config_of

import datasets
import detectors
from datasets import Record
from engine.predict import open_device, score
from engine.train import start

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
        rows = [row for rows in score(model, records, on, batch_size=8) for row in rows]
        assert not any(row.error for row in rows)
        return [row.score or 0.0 for row in rows]

    limit = 1e-3 if precision == "fp32" else 0.05
    assert scores("cuda", precision) == pytest.approx(scores("cpu", "fp32"), abs=limit)


@pytest.mark.parametrize("precision", [None, "bf16", "fp16"])
def test_training_runs_in_mixed_precision(
    precision: str | None, records: list[Record], tmp_path: Path
) -> None:
    config = config_of(precision=precision, epochs=2)
    history = start(
        Toy(config.options), config, records, records, torch.device("cuda"), tmp_path,
        workers=0, how="test", resume=False, overwrite=False,
    )  # fmt: skip
    assert len(history) == 2
    assert all(math.isfinite(row["loss"]) for row in history)
