"""The scoring loop: a score depends on the picture alone; degradations are what they say."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, make_picture, make_tree
from models import Toy, randomise, tiny
from PIL import Image
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import detectors
from datasets import Record, folder
from datasets._images import open_picture
from detectors import _transforms as T
from detectors._base import Detector
from engine.runtime.device import Device, open_device
from engine.runtime.workers import Workers
from engine.scoring import degradations
from engine.scoring.backend import Results
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.probability import DECIMALS, sigmoid
from engine.scoring.table import ScoreRow
from engine.scoring.torch_backend import TorchBackend

CPU = Device(torch.device("cpu"))


@pytest.fixture
def records(tree: Path) -> list[Record]:
    return folder.records(tree)


@pytest.fixture
def toy() -> Toy:
    model = Toy(Toy.Options())
    randomise(model)
    return model.eval()


def rows_of(
    model: Detector,
    records: list[Record],
    batch_size: int = 8,
    workers: int = 0,
    degradation: degradations.Degradation | None = None,
) -> list[ScoreRow]:
    options = ScoringOptions(batch_size, Workers(workers), degradation=degradation)
    found = score(TorchBackend(model, CPU), records, options)
    return [row for batch in found for row in batch]


def close(first: list[ScoreRow], second: list[ScoreRow]) -> None:
    assert [row.key for row in first] == [row.key for row in second]
    logits = [[row.logit for row in rows] for rows in (first, second)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5)


# --- a score depends on nothing but the picture


@pytest.mark.parametrize(
    "name",
    # The ensemble is of the others.
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "ensemble")) for n in detectors.available()],
)
def test_scores_do_not_depend_on_order_workers_or_batch(name: str, records: list[Record]) -> None:
    model, records = tiny(name), records[::3]
    expected = rows_of(model, records, batch_size=4)
    assert [row.key for row in expected] == [record.key for record in records]
    assert len({row.logit for row in expected}) > len(records) // 2
    order = np.random.default_rng(0).permutation(len(records))
    shuffled = rows_of(model, [records[i] for i in order], batch_size=4, workers=2)
    assert sorted(shuffled, key=lambda row: row.key) == expected
    close(rows_of(model, records, batch_size=1), expected)


def test_scores_do_not_depend_on_the_path(toy: Toy, tmp_path: Path) -> None:
    scores = []
    for place in ("a", "elsewhere/with more"):
        found = rows_of(toy, folder.records(make_tree(tmp_path / place, count=2)))
        scores.append([row.score for row in found])
    assert scores[0] == scores[1]


def test_scoring_draws_from_no_global_generator(toy: Toy, records: list[Record]) -> None:
    """Or validation would change the dropout of the next epoch."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rows_of(toy, records)
    rows_of(toy, records, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
def test_memory_of_freed_tensors_serves_the_next_ones() -> None:
    """Pages that the system has to hand over while 64 MB are filled and freed ten times."""
    code = (
        "import resource, torch\n"
        "from engine.runtime.device import reuse_memory\n"
        "def pages():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10):\n"
        "        torch.ones(1 << 24)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "first = pages()\n"
        "reuse_memory()\n"
        "pages()\n"
        "print(first, pages())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, later = map(int, done.stdout.split())
    assert later < first / 20


def test_scoring_leaves_the_model_as_it_is(toy: Toy, records: list[Record]) -> None:
    before = {key: value.clone() for key, value in toy.state_dict().items()}
    rows_of(toy, records)
    assert all(torch.equal(value, before[key]) for key, value in toy.state_dict().items())
    assert not any(p.grad is not None for p in toy.parameters())


# --- rows


def test_rows_say_what_was_scored(toy: Toy, records: list[Record]) -> None:
    fake = next(record for record in records if record.generator == "gan")
    (row,) = rows_of(toy, [fake])
    assert (row.key, row.source, row.generator, row.label) == (fake.key, "", "gan", 1)
    assert (row.width, row.height, row.error, row.degradation) == (72, 64, "", "none")
    assert row.logit is not None
    assert row.logit == round(row.logit, DECIMALS)
    assert row.score == round(1 / (1 + math.exp(-row.logit)), DECIMALS)
    (unlabelled,) = rows_of(toy, [Record("x", fake.path)])
    assert unlabelled.label is None
    assert unlabelled.score == row.score


def test_batches_come_as_they_are_done(toy: Toy, records: list[Record]) -> None:
    sizes = [len(batch) for batch in score(TorchBackend(toy, CPU), records[:7], ScoringOptions(3))]
    assert sizes == [3, 3, 1]
    assert list(score(TorchBackend(toy, CPU), [], ScoringOptions(3))) == []


def test_unreadable_pictures_have_rows_and_do_not_disturb(toy: Toy, records: list[Record]) -> None:
    expected = rows_of(toy, records[:8])
    broken = [records[0].path.with_name(name) for name in ("gone.png", "empty.png", "text.jpg")]
    broken[1].write_bytes(b"")
    broken[2].write_text("text", encoding="utf-8")
    mixed = list(records[:8])
    for place, path in zip((0, 4, 5), broken, strict=True):
        mixed.insert(place, Record(path.name, path, records[0].label))
    found = rows_of(toy, mixed, batch_size=4)
    close([row for row in found if not row.error], expected)
    errors = {row.key: row.error for row in found if row.error}
    assert errors == {
        "gone.png": "no such file",
        "empty.png": "the file is empty",
        "text.jpg": "not a picture in any known format",
    }
    for row in found:
        assert (row.logit is None) == (row.score is None) == bool(row.error)


def test_a_batch_of_unreadable_pictures_alone(toy: Toy, tmp_path: Path) -> None:
    missing = [Record(f"{i}.png", tmp_path / f"{i}.png") for i in range(3)]
    assert [row.error for row in rows_of(toy, missing, batch_size=2)] == ["no such file"] * 3


class Divergent(Toy):
    """Finite for the first picture of a batch alone."""

    def forward(self, batch: Tensor) -> Tensor:
        logits = super().forward(batch)
        logits[1:] = torch.tensor([math.nan, math.inf, -math.inf])[: len(logits) - 1]
        return logits


def test_logits_that_are_not_finite_are_errors(records: list[Record]) -> None:
    model = Divergent(Toy.Options()).eval()
    found = rows_of(model, records[:4], batch_size=4)
    assert found[0].error == ""
    assert found[0].logit is not None
    for row in found[1:]:
        assert (row.logit, row.score) == (None, None)
        assert row.error == "the detector's logit is not finite"
        assert row.width == 72


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(0.0) == 0.5
    assert sigmoid(1000.0) == 1.0
    assert sigmoid(-1000.0) == 0.0
    assert sigmoid(2.0) + sigmoid(-2.0) == pytest.approx(1, abs=1e-15)


def test_bf16_scores_are_near_those_of_fp32(toy: Toy, records: list[Record]) -> None:
    device = Device(torch.device("cpu"), "bf16")
    rough = [
        row
        for batch in score(TorchBackend(toy, device), records, ScoringOptions(8))
        for row in batch
    ]
    exact = rows_of(toy, records)
    pairs = [(a.score, b.score) for a, b in zip(rough, exact, strict=True)]
    np.testing.assert_allclose(*zip(*pairs, strict=True), atol=0.02)
    assert rough != exact


# --- devices


def test_a_batch_is_submitted_while_the_one_before_is_computed(
    toy: Toy, records: list[Record]
) -> None:
    """As on CUDA; rows and their order are those of a backend that computes at once."""
    events: list[str] = []

    class Ahead(TorchBackend):
        ahead = 1

        def submit(self, items: Sequence[Any], explain: bool) -> Callable[[], Results]:
            results = super().submit(items, explain)
            events.append("submitted")
            return lambda: (events.append("awaited"), results())[1]

    rows = list(score(Ahead(toy, CPU), records, ScoringOptions(3)))
    assert rows == list(score(TorchBackend(toy, CPU), records, ScoringOptions(3)))
    assert events[:4] == ["submitted", "submitted", "awaited", "submitted"]
    assert events.count("awaited") == events.count("submitted") == len(rows)


def test_a_smaller_batch_is_not_compiled_anew(toy: Toy, records: list[Record]) -> None:
    counter, model = CompileCounter(), copy.deepcopy(toy)
    model.compile(backend=counter)
    assert rows_of(model, records[:7]) == rows_of(toy, records[:7])  # passes of 4 and of 3
    assert counter.frame_count == 1


# --- degradations


def degraded(text: str, image: Image.Image) -> Image.Image:
    chain = degradations.parse(text)
    assert chain is not None
    return chain(image, np.random.default_rng(0))


def test_degraded_rows_are_those_of_degraded_pictures(
    toy: Toy, records: list[Record], tmp_path: Path
) -> None:
    chain = degradations.parse("jpeg:60")
    found = rows_of(toy, records[:4], batch_size=4, degradation=chain)
    assert {row.degradation for row in found} == {"jpeg:60"}
    copies = []
    for number, record in enumerate(records[:4]):
        path = tmp_path / f"{number}.png"
        degraded("jpeg:60", open_picture(record.path)).save(path)
        copies.append(Record(path.name, path))
    again = rows_of(toy, copies, batch_size=4)
    assert [row.logit for row in found] == [row.logit for row in again]
    assert [row.logit for row in found] != [row.logit for row in rows_of(toy, records[:4])]


def test_what_cannot_be_degraded_is_an_error_row(toy: Toy, tmp_path: Path) -> None:
    Image.new("RGB", (70_000, 8)).save(tmp_path / "long.png")
    make_picture(1, False).save(tmp_path / "short.png")
    found = [Record(name, tmp_path / name) for name in ("long.png", "short.png")]
    [rows] = score(
        TorchBackend(toy, open_device("cpu", "fp32")),
        found,
        ScoringOptions(2, degradation=degradations.parse("jpeg:90")),
    )
    assert "cannot be processed" in rows[0].error
    assert (rows[0].score, rows[0].width) == (None, 70_000)
    assert not rows[1].error


def test_a_narrow_strip_does_not_fill_the_memory() -> None:
    padded = T.pad_to(Image.new("RGB", (1, 3_000_000)), 160)
    assert padded.width == 160
    assert padded.height <= 100 * 160
