"""What the measures of bench.py share: figures, child processes, alternating runs, pictures."""

from __future__ import annotations

import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.runtime.device import M_MMAP_MAX, M_TRIM_THRESHOLD

ROOT = Path(__file__).resolve().parent.parent
CHILD = Path(__file__).with_name("_bench_child.py")
PHASE_TEST = ["main.py", "--phase", "test", "--device", "cpu"]
EXAMPLES = ROOT / "data" / "examples"
REPEATS = 5
SAME_LOGIT = 1e-3
GB = 1e9
M_MMAP_THRESHOLD = -3  # as in malloc.h


@dataclass(frozen=True)
class Figure:
    """One line of the result; `limit` is '' where the figure only informs."""

    what: str
    value: str
    limit: str = ""
    met: bool = True


@dataclass(frozen=True)
class Cost:
    """Wall time in seconds and peak resident memory in MB of a child process."""

    seconds: float
    megabytes: float


def run_once(command: list[str]) -> Cost:
    """Runs a command from the repository's root. Raises RuntimeError when it fails."""
    child = subprocess.run(
        [sys.executable, "-S", str(CHILD), *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    )
    seconds, peak, status = child.stdout.split()
    if int(status):
        raise RuntimeError(f"{' '.join(command)} exited with {status}: {child.stderr[-500:]}")
    return Cost(float(seconds), int(peak) / 2**20)


def median_cost(command: list[str], repeats: int = REPEATS) -> Cost:
    """Median time and memory of several runs, after one that warms the file cache."""
    run_once(command)
    costs = [run_once(command) for _ in range(repeats)]
    return Cost(
        statistics.median(c.seconds for c in costs), statistics.median(c.megabytes for c in costs)
    )


def memory(what: str, command: list[str], limit: float) -> Figure:
    """Peak resident memory of one run of a command against a limit in GB (10^9 bytes)."""
    cost = run_once([sys.executable, *command])
    found = cost.megabytes * 2**20 / GB
    value = f"{found:.2f} GB ({cost.seconds:.0f} s)"
    return Figure(what, value, f"< {limit} GB", found < limit)


# --- two ways to the same logits


@dataclass(frozen=True)
class Run:
    """Median seconds of a way, and the logits it gave, on the CPU in float32."""

    seconds: float
    logits: Tensor


def alternate(ways: Mapping[str, Callable[[], Tensor]], repeats: int = REPEATS) -> dict[str, Run]:
    """Runs all ways in turn, `repeats` times after one that warms them up, so that what else the
    machine does falls on all alike."""
    logits = {name: way().float().cpu() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.monotonic()
            way()
            seconds[name].append(time.monotonic() - start)
    return {name: Run(statistics.median(seconds[name]), logits[name]) for name in ways}


def return_memory() -> None:
    """Undoes `engine.predict.reuse_memory`: what glibc settles on after a while by itself."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 1 << 16)
        mallopt(M_MMAP_THRESHOLD, 1 << 25)
        mallopt(M_TRIM_THRESHOLD, 1 << 26)


def matrix_speedup() -> Figure:
    """How much faster this machine multiplies large matrices in bf16: no network gains more."""

    def multiply(dtype: torch.dtype) -> Callable[[], Tensor]:
        layer, x = torch.nn.Linear(768, 3072, dtype=dtype), torch.randn(9456, 768).to(dtype)

        def run() -> Tensor:
            with torch.inference_mode():
                return layer(x)

        return run

    runs = alternate({"fp32": multiply(torch.float32), "bf16": multiply(torch.bfloat16)})
    ratio = runs["fp32"].seconds / runs["bf16"].seconds
    return Figure("bf16 against fp32: products of matrices alone", f"{ratio:.2f} x faster")


def faster(what: str, plain: Run, product: Run, limit: float) -> Figure:
    """How many times the product is as fast as the plain way."""
    ratio = plain.seconds / product.seconds
    value = f"{ratio:.2f} x ({plain.seconds:.2f} s against {product.seconds:.2f} s)"
    return Figure(what, value, f">= {limit} x", ratio >= limit)


def same(what: str, plain: Run, product: Run) -> Figure:
    """The largest difference of the logits, relative where they are beyond 1."""
    scale = plain.logits.abs().clamp(min=1)
    found = float(((plain.logits - product.logits).abs() / scale).max())
    return Figure(what, f"{found:.1e}", f"<= {SAME_LOGIT}", found <= SAME_LOGIT)


def moved(what: str, plain: Run, product: Run) -> Figure:
    """The largest difference of the probabilities; `parity` holds it to a limit."""
    found = float((plain.logits.sigmoid() - product.logits.sigmoid()).abs().max())
    return Figure(what, f"{found:.4f}")


# --- pictures


def large_picture(path: Path) -> None:
    """A 12-megapixel JPEG with structure at every scale."""
    rng = np.random.default_rng(0)
    canvas = np.zeros((3000, 4000, 3), dtype=np.float32)
    for side in (8, 64, 512):
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
        canvas += np.asarray(layer) / 3
    Image.fromarray(canvas.astype(np.uint8)).save(path, quality=92)


def square_picture(path: Path, side: int) -> None:
    """A picture of `side` x `side` px; its structure has about 10 px."""
    rng = np.random.default_rng(0)
    coarse = max(1, side // 10)
    noise = rng.integers(0, 256, (coarse, coarse, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
    picture.save(path, quality=92)


def jpeg_folder(folder: Path, count: int) -> list[Path]:
    """JPEGs of 640 x 480, crops of the example photographs."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in sorted((EXAMPLES / "real").iterdir())]
    sources = [s.resize((max(800, s.width), max(600, s.height))) for s in sources]
    paths = []
    for index in range(count):
        source = sources[index % len(sources)]
        left = int(rng.integers(source.width - 639))
        top = int(rng.integers(source.height - 479))
        paths.append(folder / f"{index:03}.jpg")
        source.crop((left, top, left + 640, top + 480)).save(paths[-1], quality=90)
    return paths
