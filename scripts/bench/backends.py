"""The measure `backends`: what computes a detector on the CPU, against PyTorch in float32.

Each detector and way to compute has a process of its own: a compiler that crashes, hangs or takes
all memory costs its one row, and the next network starts with the memory free. There the way and
PyTorch take turns on the same items, so that decoding, which others do meanwhile, is left out.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets._images import open_picture
from detectors._base import Detector
from detectors._errors import OptionError, WeightsError
from engine.runtime import threads
from engine.runtime.device import open_device
from engine.runtime.distributed import ALONE
from engine.scoring.backend import AT_ONCE, Backend
from engine.scoring.probability import sigmoid
from engine.scoring.torch_backend import TorchBackend
from engine.weights.loaded import Loaded
from engine.weights.onnx import load_onnx, open_onnx
from engine.weights.onnx_export import export

from .subjects import detector, jpegs, shipped_graph, single
from .timing import REPEATS, ROOT, SLOW_REPEATS, Figure, seconds

PLAIN = "PyTorch"
MOST = 4 * AT_ONCE  # pictures
# Of the timed passes of both ways together: it decides how many pictures they are of.
TIMED_SECONDS = 20.0
LIMIT_SECONDS = 180  # of a process, most of which exporting or compiling takes
WORDS = 90  # letters of an error in a row of the table
Logits = list[float]


@dataclass(frozen=True)
class Comparison:
    """What the process of a detector and a way has measured.

    `pictures`: of a pass; `plain`, `other`: seconds of it by PyTorch in fp32 and by the way;
    `ready`: seconds until the way had computed its first pass; `moved`: the largest difference of a
    score; `apart`: that of a logit, as a share of the largest logit.
    """

    pictures: int
    plain: float
    other: float
    ready: float
    moved: float
    apart: float


# --- in the process of one detector and one way


def _exported(name: str, model: Detector) -> Backend:
    """The detector by onnxruntime: the shipped one as main.py has it without PyTorch, others by the
    files that scripts/export_onnx.py would write of them."""
    if name == "default":
        return shipped_graph()
    on = open_device("cpu", "fp32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export(Loaded(model, name, path, "", 0.5, None), path, {})
        file = open_onnx(path, name)
        return TorchBackend(load_onnx(name, model.options, file, on, compiled=False).model, on)


def _compiled(_: str, model: Detector) -> Backend:
    """The detector by torch.compile, as --compile has it."""
    # A copy of the module, not of its weights: the plain way goes on without the compiler.
    twin = copy.copy(model)
    twin.compile()
    return TorchBackend(twin, open_device("cpu", "fp32"))


def _rough(_: str, model: Detector) -> Backend:
    """The detector in bf16, as --precision bf16 holds it: frozen parts in it, the rest under
    autocast."""
    twin = copy.deepcopy(model)
    for prefix in twin.external(twin.options):
        twin.get_submodule(prefix.rstrip(".")).to(torch.bfloat16)
    return TorchBackend(twin, open_device("cpu", "bf16"))


WAYS: dict[str, Callable[[str, Detector], Backend]] = {
    "onnxruntime": _exported,
    "torch.compile": _compiled,
    "PyTorch in bf16": _rough,
}


def _logits(backend: Backend, items: Sequence[Any]) -> Logits:
    return [logit for logit, _ in backend.submit(items, False)()]


def _timed_items(backend: Backend, items: Sequence[Any]) -> tuple[Sequence[Any], int]:
    """As many items as both ways compute in `TIMED_SECONDS`, and how often each is timed."""
    _logits(backend, items[:1])
    begun = time.perf_counter()
    _logits(backend, items[:1])
    took = time.perf_counter() - begun
    # Both ways, with the round that warms them up, and the pass that gives logits.
    count = int(TIMED_SECONDS / took) // (2 * (2 + REPEATS))
    if count >= AT_ONCE:
        # Whole passes: torch.compile would compile a smaller one anew.
        return items[: count // AT_ONCE * AT_ONCE], REPEATS
    return items[: max(1, count)], REPEATS if count else SLOW_REPEATS


def compared(name: str, way: str, pictures: Sequence[Path]) -> Comparison:
    """The comparison of a way to compute a detector with PyTorch in fp32.

    Args:
        name: of the detector.
        way: one of `WAYS`.
        pictures: of one size, of which the first few are taken where the detector is slow.

    Raises:
        OptionError, WeightsError: the way cannot compute this detector.
    """
    on = open_device("cpu", "fp32")
    threads.set_threads(None, on.device, ALONE)
    model = detector(name)
    plain, transform = TorchBackend(model, on), model.transform(train=False)
    items: Sequence[Any] = [
        transform(open_picture(path), np.random.default_rng(0)) for path in pictures
    ]
    plain.prepare()
    items, repeats = _timed_items(plain, items)
    begun = time.perf_counter()
    other = WAYS[way](name, model)
    values = _logits(other, items)
    ready = time.perf_counter() - begun
    exact = _logits(plain, items)
    took = seconds({k: partial(_logits, b, items) for k, b in ((PLAIN, plain), (way, other))},
                   repeats)  # fmt: skip
    pairs = list(zip(exact, values, strict=True))
    return Comparison(
        pictures=len(items),
        plain=took[PLAIN],
        other=took[way],
        ready=ready,
        moved=max(abs(sigmoid(a) - sigmoid(b)) for a, b in pairs),
        apart=max(abs(a - b) for a, b in pairs) / max(max(map(abs, exact)), 1e-6),
    )


def tell(name: str, way: str, *pictures: str) -> None:
    """Prints the comparison as a line of JSON; why there is none, as a text."""
    try:
        told: Any = asdict(compared(name, way, [Path(path) for path in pictures]))
    except (OptionError, WeightsError) as error:
        told = str(error)
    print(json.dumps(told))


# --- in the process of the table

CHILD = (sys.executable, "-c",
         "import sys; from scripts.bench.backends import tell; tell(*sys.argv[1:])")  # fmt: skip


def _answer(words: Sequence[object]) -> Comparison | str:
    """What a process has told, or why it told nothing."""
    try:
        done = subprocess.run(
            [*map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"not done within {LIMIT_SECONDS} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"ended with status {done.returncode}: {last}"
    told = json.loads(done.stdout.splitlines()[-1])
    return told if isinstance(told, str) else Comparison(**told)


def measure(folder: Path, names: Sequence[str] = ()) -> Iterator[Figure]:
    """Detectors on the CPU, computed in several ways, against PyTorch in fp32: time, how long until
    the first pass is done, and how far scores move."""
    pictures = jpegs(folder / "pictures", MOST)
    for name in names or single():
        for way in WAYS:
            what = f"{name} by PyTorch against {way}"
            answer = _answer([*CHILD, name, way, *pictures])
            if isinstance(answer, str):
                # Bars would end the cell of the table.
                yield Figure(what, f"none: {' '.join(answer.split()):.{WORDS}}".replace("|", "/"))
                continue
            details = (
                f"{answer.plain:.2g} s against {answer.other:.2g} s, {answer.pictures} pictures; "
                f"ready after {answer.ready:.0f} s; scores move by {answer.moved:.5f}, logits by "
                f"{100 * answer.apart:.2g} %"
            )
            yield Figure(what, f"{answer.plain / answer.other:.2f} x ({details})")
