"""Checks and measures every detector on one GPU, step by step: `scripts/gpu_check.sh` runs it.

Each step is a process with a limit of its own; one that fails or takes too long costs its row, not
the others. Published detectors get random weights, for neither time nor what rounding does to a
network needs others. Writes gpu_check.json and gpu_check.md, anew after every step.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from engine.cli.arguments import number  # noqa: E402
from scripts._shared import answer, new_parser, say  # noqa: E402

PROGRAM, FAILED = "gpu_check", 1
TESTS, DETECTOR, TRAINING = "tests", "detector", "training"
RECIPES = ("cospy", "spai", "ssp")
LIMITS = {TESTS: 150, DETECTOR: 40, TRAINING: 40}  # seconds
HALVES = ("bf16", "fp16")
COMPARED = 4  # pictures whose scores are compared
MEASURED_SECONDS = 4.0
STEPS = 3  # of a training, after the first, which warms up
POLL = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200")


@dataclass(frozen=True)
class Row:
    """What a step gave: `outcome` ok, failed, or out of time; `figures` by their names; `note`, the
    last line of a step that failed."""

    step: str
    what: str
    outcome: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    note: str = ""


# --- in a step's own process


def _busy_share(poll: subprocess.Popen[str]) -> float | None:
    """The mean share of time in which the GPU computed, by what `POLL` printed."""
    poll.terminate()
    shares = [int(line) for line in (poll.stdout or ()) if line.strip().isdecimal()]
    return round(sum(shares) / len(shares) / 100, 2) if shares else None


def _peak_megabytes(device: Any) -> float:
    import resource

    import torch

    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def _model(name: str, tiny: bool) -> Any:
    import torch

    import detectors
    from scripts.bench.subjects import detector

    if not tiny:
        return detector(name)
    torch.manual_seed(0)
    kind: Any = detectors.load(name)
    return kind(kind.tiny()).eval()


def _items(transform: Any, count: int) -> list[Any]:
    """Items of the example pictures, again and again."""
    import numpy as np

    from datasets._images import open_picture
    from scripts.bench.subjects import EXAMPLES

    pictures = [open_picture(path) for path in sorted(EXAMPLES.rglob("*.*"))][:count]
    items = [transform(picture, np.random.default_rng(0)) for picture in pictures]
    return [items[number % len(items)] for number in range(count)]


def measure_detector(name: str, device: str, tiny: bool) -> dict[str, Any]:
    """How far scores on a device are from those of the CPU in fp32, in each precision; pictures a
    second at the published batch, with decoding left out; memory."""
    import torch

    from engine.runtime.device import open_device
    from engine.scoring.probability import sigmoid
    from engine.scoring.torch_backend import TorchBackend
    from scripts.bench.measures import recipe

    model, on_cuda = _model(name, tiny), device.startswith("cuda")
    batch = 2 if tiny else recipe(name).score.batch_size
    items = _items(model.transform(train=False), batch)

    def scores(on: str, precision: str) -> list[float]:
        opened = open_device(on, precision)
        backend = TorchBackend(copy.deepcopy(model).to(opened.device), opened)
        return [sigmoid(logit) for logit, _ in backend.submit(items[:COMPARED], False)()]

    exact = scores("cpu", "fp32")
    figures: dict[str, Any] = {"batch": batch}
    for precision in ("fp32", *HALVES) if on_cuda else HALVES[:1]:
        moved = max(abs(a - b) for a, b in zip(exact, scores(device, precision), strict=True))
        figures[f"moved_{precision}"] = round(moved, 5)
    opened = open_device(device, HALVES[0])
    backend = TorchBackend(model.to(opened.device, memory_format=torch.channels_last), opened)
    backend.submit(items, False)()
    poll = subprocess.Popen(POLL, stdout=subprocess.PIPE, text=True) if on_cuda else None
    begun, done, pending = time.monotonic(), 0, backend.submit(items, False)
    while time.monotonic() - begun < (0 if tiny else MEASURED_SECONDS) or not done:
        following = backend.submit(items, False)  # as the scoring loop does
        pending()
        pending, done = following, done + batch
    pending()
    figures["pictures_a_second"] = round((done + batch) / (time.monotonic() - begun), 1)
    figures["busy"] = _busy_share(poll) if poll else None
    figures["peak_mb"] = _peak_megabytes(opened.device)
    return figures


def measure_training(name: str, device: str, tiny: bool) -> dict[str, Any]:
    """Seconds of a training step of a recipe at its batch size, and its losses, in the precision
    that training takes there."""
    import torch

    import detectors
    from engine.runtime.device import training_device
    from engine.runtime.distributed import ALONE
    from engine.training.step import Batch, Stepper
    from scripts.bench.measures import recipe

    config, kind = recipe(name), detectors.load(name)
    torch.manual_seed(0)
    options = kind.tiny() if tiny else config.options
    on = training_device(torch.device(device), config.train.precision)
    model: Any = kind(options).train().to(on.device)
    size = 2 if tiny else config.train.batch_size
    values = model.collate(_items(model.transform(train=True), size))
    batch = Batch(values, [float(n % 2) for n in range(size)], [str(n) for n in range(size)])
    stepper = Stepper(model, config.train, on, ALONE)
    losses, begun = [stepper.step([batch], config.train.lr).loss], time.monotonic()
    for _ in range(1 if tiny else STEPS):
        losses.append(stepper.step([batch], config.train.lr).loss)
    seconds = (time.monotonic() - begun) / (len(losses) - 1)
    return {
        "batch": size, "precision": on.precision, "step_seconds": round(seconds, 3),
        "losses": [round(loss, 4) for loss in losses], "peak_mb": _peak_megabytes(on.device),
    }  # fmt: skip


MEASURES = {DETECTOR: measure_detector, TRAINING: measure_training}


# --- in the main process


def plan(device: str) -> list[tuple[str, str]]:
    """Steps and what they are of, the most telling first."""
    import detectors

    names = [n for n in detectors.available() if n not in detectors.combined()]
    tests = [(TESTS, "pytest -m gpu")] if device.startswith("cuda") else []
    return [*tests, *((DETECTOR, n) for n in names), *((TRAINING, n) for n in RECIPES)]


def run_step(step: str, what: str, args: argparse.Namespace, left: float) -> Row:
    """The row of a step that runs in a process of its own, for `left` seconds at most."""
    if left <= 0:
        return Row(step, what, "out of time", 0.0)
    if step == TESTS:
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/test_gpu.py"]
    else:
        words = [__file__, "--device", args.device, "--step", step, what]
        words += ["--tiny"] if args.tiny else []
    # A rehearsal has no measure of its own: a busy machine takes minutes to import PyTorch.
    limit, begun = left if args.tiny else min(LIMITS[step], left), time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=limit,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Row(step, what, "out of time", round(limit, 1), note=f"limit of {limit:.0f} s")
    seconds = round(time.monotonic() - begun, 1)
    lines = (done.stdout if step == TESTS or not done.returncode else done.stderr).split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    if done.returncode:
        return Row(step, what, "failed", seconds, note=last)
    return Row(step, what, "ok", seconds, {"summary": last} if step == TESTS else json.loads(last))


def table(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += ["| step | of | outcome | seconds | figures |", "|---|---|---|---|---|"]
    for row in rows:
        figures = ", ".join(f"{k} {v}" for k, v in row.figures.items()) or row.note
        cells = (row.step, row.what, row.outcome, row.seconds, figures.replace("|", "\\|"))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def check(args: argparse.Namespace) -> int:
    """The exit status. Runs all steps, and writes what they gave."""
    import torch

    from engine.runtime.files import write_file

    on_cuda = args.device.startswith("cuda")
    machine = {
        "device": torch.cuda.get_device_name(args.device) if on_cuda else args.device,
        "torch": torch.__version__, "python": platform.python_version(),
        "networks": "tiny" if args.tiny else "published sizes",
    }  # fmt: skip
    begun, rows = time.monotonic(), list[Row]()
    args.output.mkdir(parents=True, exist_ok=True)
    for step, what in plan(args.device):
        if args.only and what not in args.only:
            continue
        rows.append(run_step(step, what, args, args.seconds - (time.monotonic() - begun)))
        say(PROGRAM, f"{step} {what}: {rows[-1].outcome}")
        text = json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1)
        write_file(args.output / "gpu_check.json", text + "\n")
        write_file(args.output / "gpu_check.md", table(machine, rows))
    print(table(machine, rows), end="")
    return 0 if all(row.outcome == "ok" for row in rows) else FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command line."""
    p = new_parser(PROGRAM, __doc__, "0 every step went well; 1 one did not; 2 wrong usage")
    p.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a rehearsal (cuda)")
    p.add_argument("--tiny", action="store_true", help="small networks, as tests have them")
    p.add_argument("--seconds", type=number(float, 1), default=480.0, help="for all steps (480)")
    p.add_argument("--output", type=Path, default=Path("runs", "gpu_check"), metavar="DIR")
    p.add_argument("--only", nargs="+", metavar="NAME", help="these detectors and recipes")
    p.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args(arguments)
    if args.step:
        step, what = args.step
        print(json.dumps(MEASURES[step](what, args.device, args.tiny)))
        return 0
    return answer(PROGRAM, lambda: check(args), (OSError, RuntimeError, AssertionError))


if __name__ == "__main__":
    sys.exit(main())
