"""Measures what the command line costs: start-up, the first verdict, memory, throughput.

Every figure is a ratio or a difference within one run, so that it means the same on any machine.

    python scripts/bench.py                    everything, about two minutes on two cores
    python scripts/bench.py help verdict       only these; also: throughput
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
EXAMPLES = ROOT / "data" / "examples"
BARE_IMPORT = [sys.executable, "-c", "import torch, torchvision"]
PHASE_TEST = ["main.py", "--phase", "test", "--device", "cpu", "--workers", "1"]
REPEATS, FOLDER_PICTURES = 5, 200


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
    start = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    errors = child.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {child.returncode}: {errors[-500:]}")
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return Cost(seconds, usage.ru_maxrss / unit)


def median_cost(command: list[str], repeats: int = REPEATS) -> Cost:
    """Median time and memory of several runs, after one that warms the file cache."""
    run_once(command)
    costs = [run_once(command) for _ in range(repeats)]
    return Cost(
        statistics.median(c.seconds for c in costs), statistics.median(c.megabytes for c in costs)
    )


def test_command(*inputs: Path) -> list[str]:
    """The command line that scores pictures with the shipped detector on the CPU."""
    names = [str(path) for path in inputs]
    return [sys.executable, *PHASE_TEST, "--input", *names]


def measure_help(_: Path) -> list[Figure]:
    """How fast --help answers."""
    cost = median_cost([sys.executable, "main.py", "--help"])
    return [Figure("main.py --help", f"{cost.seconds:.2f} s", "< 0.5 s", cost.seconds < 0.5)]


def large_picture(path: Path) -> None:
    """A 12-megapixel JPEG with structure at every scale."""
    rng = np.random.default_rng(0)
    canvas = np.zeros((3000, 4000, 3), dtype=np.float32)
    for side in (8, 64, 512):
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC)
        canvas += np.asarray(layer) / 3
    Image.fromarray(canvas.astype(np.uint8)).save(path, quality=92)


def measure_verdict(folder: Path) -> list[Figure]:
    """Time and memory of a first verdict beyond those of importing PyTorch."""
    bare = median_cost(BARE_IMPORT)
    first = median_cost(test_command(EXAMPLES / "real" / "rocket.jpg"))
    picture = folder / "large.jpg"
    large_picture(picture)
    large = median_cost(test_command(picture), repeats=3)
    extra, memory = first.seconds - bare.seconds, large.megabytes - bare.megabytes
    return [
        Figure("import torch, torchvision", f"{bare.seconds:.2f} s, {bare.megabytes:.0f} MB"),
        Figure("first verdict beyond that import", f"{extra:+.2f} s", "<= 1.5 s", extra <= 1.5),
        Figure(
            "peak memory beyond it, 12 megapixels", f"{memory:+.0f} MB", "<= 400 MB", memory <= 400
        ),
    ]


def jpeg_folder(folder: Path) -> list[Path]:
    """200 JPEGs of 640 x 480, crops of the example photographs."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    sources = [Image.open(path).convert("RGB") for path in sorted((EXAMPLES / "real").iterdir())]
    sources = [s.resize((max(800, s.width), max(600, s.height))) for s in sources]
    paths = []
    for index in range(FOLDER_PICTURES):
        source = sources[index % len(sources)]
        left = int(rng.integers(source.width - 639))
        top = int(rng.integers(source.height - 479))
        paths.append(folder / f"{index:03}.jpg")
        source.crop((left, top, left + 640, top + 480)).save(paths[-1], quality=90)
    return paths


def _stage_seconds(paths: list[Path]) -> list[Figure]:
    """Where the time goes in one process: decode, transform, forward; fp32 against bf16."""
    import torch

    from datasets._images import open_picture
    from engine.config import resolve
    from engine.weights import build, locate, open_weights

    file = open_weights(locate(None, "default"), "default")
    assert file.card is not None
    options = resolve("default", [("card", {"default": file.card.options})]).options
    model = build("default", options, file).model
    transform, rng = model.transform(train=False), np.random.default_rng(0)
    seconds = dict.fromkeys(("decode", "transform", "forward fp32", "forward bf16"), 0.0)
    scores: dict[str, list[float]] = {"fp32": [], "bf16": []}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        seconds[name] += time.monotonic() - start

    for first in range(0, len(paths), 16):
        with timed("decode"):
            images = [open_picture(path) for path in paths[first : first + 16]]
        with timed("transform"):
            items = [transform(image, rng) for image in images]
        batch = model.collate(items)
        for precision in scores:
            bf16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
            with timed(f"forward {precision}"), torch.inference_mode(), bf16:
                logits = model(batch)
            scores[precision] += torch.sigmoid(logits.float()).tolist()
    total = seconds["decode"] + seconds["transform"] + seconds["forward fp32"]
    shares = ", ".join(
        f"{name} {100 * seconds[name] / total:.0f} %"
        for name in ("decode", "transform", "forward fp32")
    )
    moved = max(abs(a - b) for a, b in zip(scores["fp32"], scores["bf16"], strict=True))
    speedup = seconds["forward fp32"] / seconds["forward bf16"]
    return [
        Figure("share of the time in one process", shares),
        Figure("forward in bf16 against fp32", f"{speedup:.2f} x faster"),
        Figure(
            "largest move of a score by bf16", f"{moved:.4f}", "< 0.005 to be the default", True
        ),
    ]


def measure_throughput(folder: Path) -> list[Figure]:
    """Pictures a second over a folder of 200 JPEGs, start-up left out, and where the time goes."""
    paths = jpeg_folder(folder / "pictures")
    small = folder / "few"
    small.mkdir()
    for path in paths[:8]:
        (small / path.name).write_bytes(path.read_bytes())
    whole = median_cost(test_command(folder / "pictures"), repeats=3)
    start = median_cost(test_command(small), repeats=3)
    rate = (len(paths) - 8) / (whole.seconds - start.seconds)
    return [
        Figure(f"{len(paths)} JPEGs of 640 x 480", f"{rate:.0f} pictures/s"),
        *_stage_seconds(paths),
    ]


MEASURES = {"help": measure_help, "verdict": measure_verdict, "throughput": measure_throughput}


def main() -> int:
    """Prints a Markdown table. Exit status 1 when a limit is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("measures", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    args = parser.parse_args()
    if unknown := set(args.measures) - set(MEASURES):
        parser.error(f"expected {', '.join(MEASURES)}; found {', '.join(sorted(unknown))}")
    import torch

    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| what | measured | limit |\n|---|---|---|")
    met = True
    for name in args.measures or MEASURES:
        with tempfile.TemporaryDirectory() as folder:
            for figure in MEASURES[name](Path(folder)):
                met = met and figure.met
                mark = "" if figure.met else " NOT MET"
                print(f"| {figure.what} | {figure.value} | {figure.limit}{mark} |", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
