"""Measures what the command line and the detectors cost, and how close they are to the published.

Every figure is a ratio or a difference within one run, so that it means the same on any machine.
The published detectors get weights by the rule of the golden runs; nothing is downloaded.

    python scripts/bench.py                    the quick ones, about 16 minutes on two cores
    python scripts/bench.py help verdict       only these
    python scripts/bench.py --all              the slow ones, too

Quick (two cores): help 10 s, verdict 3 min, throughput 3 min, spai 4 min, ssp 1 min, cospy 3 min,
bootstrap 1 s, overhead 1 min, processes 1 min.
Slow: parity 10 min, spai_memory 15 min, cospy_memory 2 min (and 6 GB of temporary files),
cospy_bench 5 min, listing 4 min, eval_memory 3 min, train_loading 6 min, train_spai 15 min (and
14 GB of memory), train_cospy 10 min, train_gpu a second without a GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as main.py does, for both sides alike

from engine.config import resolve  # noqa: E402
from engine.weights.loading import build, locate, open_weights  # noqa: E402
from scripts._answer import answer  # noqa: E402
from scripts._bench_base import (  # noqa: E402
    EXAMPLES,
    PHASE_TEST,
    Figure,
    jpeg_folder,
    large_picture,
    median_cost,
)
from scripts._bench_eval import (  # noqa: E402
    measure_bootstrap,
    measure_cospy_bench,
    measure_eval_memory,
    measure_listing,
    measure_overhead,
    measure_processes,
)
from scripts._bench_models import (  # noqa: E402
    measure_cospy,
    measure_cospy_memory,
    measure_spai,
    measure_spai_memory,
    measure_ssp,
    stages,
)
from scripts._bench_parity import measure_parity  # noqa: E402
from scripts._bench_train import (  # noqa: E402
    measure_train_cospy,
    measure_train_gpu,
    measure_train_loading,
    measure_train_spai,
)

BARE_IMPORT = [sys.executable, "-c", "import torch, torchvision"]
FOLDER_PICTURES = 200


def test_command(*inputs: Path) -> list[str]:
    """The command line that scores pictures with the shipped detector on the CPU."""
    names = [str(path) for path in inputs]
    return [sys.executable, *PHASE_TEST, "--workers", "1", "--input", *names]


def measure_help(_: Path) -> list[Figure]:
    """How fast --help answers."""
    cost = median_cost([sys.executable, "main.py", "--help"])
    return [Figure("main.py --help", f"{cost.seconds:.2f} s", "< 0.5 s", cost.seconds < 0.5)]


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


def _stage_rows(paths: list[Path]) -> list[Figure]:
    """Where the time of the shipped detector goes in one process, and what bf16 does to it."""
    file = open_weights(locate(None, "default"), "default")
    assert file.card is not None
    options = resolve("default", [("card", {"default": file.card.options})]).options
    return stages(build("default", options, file).model, paths).rows()


def measure_throughput(folder: Path) -> list[Figure]:
    """Pictures a second over a folder of 200 JPEGs, start-up left out, and where the time goes."""
    paths = jpeg_folder(folder / "pictures", FOLDER_PICTURES)
    small = folder / "few"
    small.mkdir()
    for path in paths[:8]:
        (small / path.name).write_bytes(path.read_bytes())
    whole = median_cost(test_command(folder / "pictures"), repeats=3)
    start = median_cost(test_command(small), repeats=3)
    rate = (len(paths) - 8) / (whole.seconds - start.seconds)
    return [
        Figure(f"{len(paths)} JPEGs of 640 x 480", f"{rate:.0f} pictures/s"),
        *_stage_rows(paths),
    ]


Measure = Callable[[Path], Iterable[Figure]]
QUICK: dict[str, Measure] = {
    "help": measure_help,
    "verdict": measure_verdict,
    "throughput": measure_throughput,
    "spai": measure_spai,
    "ssp": measure_ssp,
    "cospy": measure_cospy,
    "bootstrap": measure_bootstrap,
    "overhead": measure_overhead,
    "processes": measure_processes,
}
SLOW: dict[str, Measure] = {
    "parity": measure_parity,
    "spai_memory": measure_spai_memory,
    "cospy_memory": measure_cospy_memory,
    "cospy_bench": measure_cospy_bench,
    "listing": measure_listing,
    "eval_memory": measure_eval_memory,
    "train_loading": measure_train_loading,
    "train_spai": measure_train_spai,
    "train_cospy": measure_train_cospy,
    "train_gpu": measure_train_gpu,
}
MEASURES = QUICK | SLOW


def chosen(argv: Sequence[str] | None) -> list[str]:
    """Names of the measures that a command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("measures", nargs="*", metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--all", action="store_true", help=f"also {', '.join(SLOW)}")
    args = parser.parse_args(argv)
    if args.all and args.measures:
        parser.error("expected names or --all; found both")
    if unknown := set(args.measures) - set(MEASURES):
        parser.error(f"expected {', '.join(MEASURES)}; found {', '.join(sorted(unknown))}")
    return list(MEASURES) if args.all else args.measures or list(QUICK)


def measure(names: Sequence[str]) -> int:
    """Prints a Markdown table. Returns the exit status, 1 when a limit is not met."""
    import torch

    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    print("| what | measured | limit |\n|---|---|---|")
    met = True
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for figure in MEASURES[name](Path(folder)):
                met = met and figure.met
                mark = "" if figure.met else " NOT MET"
                print(f"| {figure.what} | {figure.value} | {figure.limit}{mark} |", flush=True)
    return 0 if met else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line. Returns the exit status."""
    names = chosen(argv)
    return answer("bench.py", lambda: measure(names))


if __name__ == "__main__":
    sys.exit(main())
