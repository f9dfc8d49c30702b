"""The measure `parity`: what the published code computes, against the product in fp32 and bf16."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets._images import open_picture
from detectors import ssp
from detectors._base import Detector
from engine.runtime.device import PRECISIONS, Device
from engine.scoring.loop import move
from engine.scoring.probability import sigmoid

from ._bench_base import ROOT, Figure
from ._bench_weights import CASES, Case, load, rule

LOGIT, PROBABILITY, BF16 = 1e-3, 1e-4, 0.02


@dataclass(frozen=True)
class Pair:
    """A golden picture's logit of synthetic, published and found."""

    published: float
    found: float

    @property
    def relative(self) -> float:
        """Difference of the logits, as a part of the published one."""
        return abs(self.found - self.published) / abs(self.published)

    @property
    def probability(self) -> float:
        """Difference of the probabilities."""
        return abs(sigmoid(self.found) - sigmoid(self.published))


def golden_pictures(case: Case) -> dict[str, dict[str, Any]]:
    """What the golden file holds of each picture."""
    recorded = rule().golden(case.golden)
    return recorded.get("images", recorded)


def published_logit(expected: dict[str, Any]) -> float:
    """SSP's golden file holds the logit of REAL, as published."""
    return -expected["logit_real"] if "logit_real" in expected else expected["logit"]


def batch_of(model: Detector, name: str, expected: dict[str, Any]) -> Any:
    """A golden picture as a batch; SSP's at the positions that the published code drew."""
    image = open_picture(rule().GOLDEN / "inputs" / name)
    if isinstance(model, ssp.Ssp):
        corners = np.array(expected["patches_top_left"])[expected["chosen"]]
        item = ssp.patches_to_item(ssp.prepare(image), corners[None])
    else:
        item = model.transform(train=False)(image, np.random.default_rng(0))
    return model.collate([item])


def pairs(case: Case, device: Device) -> list[Pair]:
    """All pictures of a golden file by the product."""
    model = load(case, PRECISIONS[device.precision]).model.to(device.device)
    found = []
    for name, expected in golden_pictures(case).items():
        batch = batch_of(model, name, expected)
        with torch.inference_mode(), device.autocast():
            logit = float(model(move(batch, device.device)))
        found.append(Pair(published_logit(expected), logit))
    return found


def exact(case: Case) -> Figure:
    """fp32 on the CPU, within the tolerance of the golden files."""
    found = pairs(case, Device(torch.device("cpu")))
    relative = max(pair.relative for pair in found)
    value = f"{len(found)} pictures, logit {relative:.1e} of itself"
    limit, met = f"<= {LOGIT}", relative <= LOGIT
    if any("probability" in key for key in next(iter(golden_pictures(case).values()))):
        probability = max(pair.probability for pair in found)
        value += f", probability {probability:.1e}"
        limit, met = f"{limit}, {PROBABILITY}", met and probability <= PROBABILITY
    return Figure(f"{case.golden}: {case.title} in fp32", value, limit, met)


def reduced(case: Case, device: torch.device) -> Figure:
    """bf16: how far the probability is from the published one."""
    worst = max(pairs(case, Device(device, "bf16")), key=lambda pair: pair.probability)
    value = f"probability {worst.probability:.4f} (logit {worst.found - worst.published:+.4f})"
    what = f"{case.golden}: {case.title} in bf16, {device.type}"
    return Figure(what, value, f"<= {BF16}", worst.probability <= BF16)


def golden_tests() -> Figure:
    """The tests that hold every recorded step to its tolerance, slow ones too."""
    files = sorted(str(path) for path in (ROOT / "tests").glob("test_golden*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", *files]
    # The tests take one thread where nothing else is said; these are few and large.
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    child = subprocess.run(
        [*command, "--timeout", "1800"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    last = (child.stdout.strip().splitlines() or ["no output"])[-1]
    counted = re.search(r"\d+ (passed|failed|error).*(?= in )", last)
    value = counted[0] if counted else last
    return Figure("tests/test_golden*.py, every step", value, "all", child.returncode == 0)


def measure_parity(_: Path) -> Iterator[Figure]:
    """Row by row, as each takes up to a minute."""
    yield golden_tests()
    for case in CASES:
        yield exact(case)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for case in CASES:
            yield reduced(case, torch.device(device))
