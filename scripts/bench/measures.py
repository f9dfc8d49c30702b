"""The measures of `python scripts/bench`: what the command line, the loops and the networks cost.

A measure takes an empty folder for its files and gives rows of the table. Its figures are ratios of
what one run did in turn, so that they mean the same on any machine and whatever else that does.
The published detectors get random weights, for time depends on shapes alone; nothing is downloaded.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.utils.benchmark import Timer

import detectors
from datasets import Record
from datasets._images import open_picture
from detectors._base import Detector
from engine.config import CONFIGS, USUAL, Config, read_yaml, resolve
from engine.evaluation import metrics
from engine.runtime.device import open_device
from engine.runtime.distributed import ALONE
from engine.runtime.workers import IN_PROCESS, Workers
from engine.scoring import degradations
from engine.scoring.backend import AT_ONCE, Backend
from engine.scoring.backends import by_graph
from engine.scoring.graph_backend import GraphBackend
from engine.scoring.loop import ScoringOptions, score
from engine.scoring.probability import score_of
from engine.scoring.torch_backend import TorchBackend
from engine.training.step import Batch, Stepper, make_optimizer
from engine.weights.choice import Choice
from engine.weights.loaded import locate
from engine.weights.loading import build, open_weights

from . import plain

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "data" / "examples"
MAIN = (sys.executable, "main.py", "--device", "cpu")
BARE_IMPORT = (sys.executable, "-c", "import torch, torchvision")
# Rounds after the one that warms up; one where a round takes half a minute.
REPEATS, SLOW_REPEATS = 3, 1
BATCH = 16
STREAMED = (20_000, 100_000)  # pictures: two parts, ten parts
DECODED, SMALL, RESAMPLES = 60, 2000, 1000
FEW, MANY = 1000, 11_000  # names of pictures that have a score already
# Pictures of a pass: it takes seconds on two idle cores, and a measure about a minute.
SCORED = {"default": 8, "ssp": 8, "ssp_baseline": 8, "spai": 1}
TRAINED = {"ssp": 4, "spai": 1}
COMPUTED = 14  # beside the examples, by each way to compute
APART_PICTURES = 3  # that a detector scores in a process of its own
POLL_SECONDS = 0.02
DERIVATIONS = ("instagram:random", "post", "meme", "screenshot", "repost:3", "print-scan")
Ways = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Figure:
    """A row of the table; `limit` is '' where the figure only informs."""

    what: str
    value: str
    limit: str = ""
    met: bool = True


def at_least(what: str, ratio: float, limit: float, details: str) -> Figure:
    """A ratio that is to be `limit` or more."""
    return Figure(what, f"{ratio:.2f} x ({details})", f">= {limit} x", ratio >= limit)


def at_most(what: str, ratio: float, limit: float, details: str) -> Figure:
    """A ratio that is to be `limit` or less."""
    return Figure(what, f"{ratio:.2f} x ({details})", f"<= {limit} x", ratio <= limit)


# --- time and memory


def seconds(ways: Ways, repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each way. All of them run in turn, after a round that warms them up, so
    that what else the machine does falls on all alike."""
    # The timer would set one thread; the ways take what the command line does.
    threads = torch.get_num_threads()
    timers = {k: Timer("way()", globals={"way": w}, num_threads=threads) for k, w in ways.items()}
    rounds = [{name: t.timeit(1).median for name, t in timers.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(times[name] for times in rounds[1:]) for name in ways}


def command(words: Sequence[object]) -> Callable[[], None]:
    """A command that runs in the repository's root. Calling it raises RuntimeError when it fails,
    but for pictures that could not be read."""

    def run() -> None:
        done = subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{words} exited with {done.returncode}: {done.stderr[-500:]}")

    return run


def peak_memory(words: Sequence[object]) -> float:
    """The most resident memory, in MB, of a command's main process, looked at again and again."""
    child = subprocess.Popen(
        [*map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        # A process that has just ended, and waits to be asked how, has no memory left.
        peak = max(peak, process.memory_info().rss)
        time.sleep(POLL_SECONDS)
    if child.returncode:
        raise RuntimeError(f"{words} exited with {child.returncode}")
    return peak / 2**20


def all_of(way: Callable[[Path], object], paths: Sequence[Path]) -> list[object]:
    """What a way makes of each path."""
    return [way(path) for path in paths]


# --- pictures and detectors


def jpegs(folder: Path, count: int, size: tuple[int, int] = (640, 480)) -> list[Path]:
    """JPEGs, crops of the example photographs, no two of them alike."""
    rng, (width, height) = np.random.default_rng(1), size
    folder.mkdir(parents=True)
    pictures = [plain.decode(path) for path in sorted((EXAMPLES / "real").iterdir())]
    pictures = [p.resize((max(2 * width, p.width), max(2 * height, p.height))) for p in pictures]
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        picture = pictures[number % len(pictures)]
        left = int(rng.integers(picture.width - width))
        top = int(rng.integers(picture.height - height))
        picture.crop((left, top, left + width, top + height)).save(path, quality=90)
    return paths


def labelled_names(folder: Path, files: Sequence[Path], count: int) -> Path:
    """A folder of `count` names of a few files, half of them in real/, half in fake/."""
    for label in ("real", "fake"):
        (folder / label).mkdir(parents=True)
    for number in range(count):
        label = ("real", "fake")[number % 2]
        # An even number of files, so that none gets names in both classes.
        (folder / label / f"{number:06}.jpg").hardlink_to(files[number % len(files)])
    return folder


def detector(name: str) -> Detector:
    """A detector that scores: the shipped one with its weights, others of published size with
    random ones."""
    if name == "default":
        file = open_weights(locate(None, name), name)
        assert file.card is not None
        return build(name, resolve(name, [("card", {name: file.card.options})]).options, file).model
    torch.manual_seed(0)
    kind: Any = detectors.load(name)
    model: Detector = kind(kind.Options()).eval()
    model.optimise()
    return model


def shipped_graph() -> GraphBackend:
    """The shipped detector as main.py scores with it without PyTorch."""
    opened = by_graph(Choice(USUAL), "cpu")
    assert opened is not None
    return opened[0]


class Null(Detector):
    """A detector whose network costs nothing: what is left is the loop around it."""

    def transform(self, train: bool) -> Any:  # noqa: ARG002
        """Picture -> its upper left pixel."""
        return upper_left

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 3) -> logits (B,)."""
        return batch.sum(dim=1)


def upper_left(picture: Image.Image, _: np.random.Generator) -> Tensor:
    """The upper left pixel of a picture, (3,) in [0, 1]."""
    return torch.tensor(picture.getpixel((0, 0))) / 255.0


def scored(
    model: Detector, paths: Sequence[Path], workers: Workers = IN_PROCESS
) -> list[float | None]:
    """Logits of pictures by the product's loop."""
    return scored_by(TorchBackend(model, open_device("cpu", "fp32")), paths, workers)


def scored_by(
    backend: Backend, paths: Sequence[Path], workers: Workers = IN_PROCESS
) -> list[float | None]:
    """Logits of pictures by the product's loop and a backend."""
    records = [Record(path.name, path) for path in paths]
    rows = score(backend, records, ScoringOptions(BATCH, workers))
    return [row.logit for batch in rows for row in batch]


# --- the measures


def measure_help(_: Path) -> Iterator[Figure]:
    """How fast `--help` answers, against an interpreter that starts and ends."""
    ways = {"help": command([*MAIN, "--help"]), "bare": command([sys.executable, "-c", "pass"])}
    took = seconds(ways)
    value = f"{took['help']:.2f} s (python -c pass: {took['bare']:.2f} s)"
    yield Figure("main.py --help", value, "< 0.5 s", took["help"] < 0.5)


def measure_verdict(_: Path) -> Iterator[Figure]:
    """Time and memory of a first verdict on the CPU against those of importing PyTorch, which it
    does without; its time holds one pass of the encoder."""
    words = [*MAIN, "--input", EXAMPLES / "real" / "rocket.jpg"]
    backend = shipped_graph()
    picture = [backend.transform(False)(Image.new("RGB", (512, 512)), np.random.default_rng(0))]
    ways = {"verdict": command(words), "import": command(BARE_IMPORT)}
    took = seconds({**ways, "pass": partial(backend.submit, picture, False)})
    details = (
        f"{took['verdict']:.2f} s, {took['pass']:.2f} s of them one pass, against "
        f"{took['import']:.2f} s"
    )
    ratio = took["verdict"] / took["import"]
    yield at_most("first verdict against importing PyTorch: time", ratio, 1.0, details)
    verdict, bare = peak_memory(words), peak_memory(BARE_IMPORT)
    details = f"{verdict:.0f} MB against {bare:.0f} MB"
    yield at_most("the same: memory", verdict / bare, 1.0, details)


def measure_decode(folder: Path) -> Iterator[Figure]:
    """Pictures a second that one process decodes, against Pillow alone."""
    paths = jpegs(folder / "pictures", DECODED)
    ways = {"ours": open_picture, "pillow": plain.decode}
    took = seconds({name: partial(all_of, way, paths) for name, way in ways.items()})
    rates = [len(paths) / took[name] for name in ways]
    details = f"{rates[0]:.0f} against {rates[1]:.0f} JPEGs of 640 x 480 a second"
    yield at_least("decoding against Pillow alone", rates[0] / rates[1], 0.9, details)


def measure_loop(folder: Path) -> Iterator[Figure]:
    """The loop around a network that costs nothing, against a bare DataLoader."""
    paths = jpegs(folder / "pictures", SMALL, (160, 120))
    model = Null(SimpleNamespace()).eval()
    ways: Ways = {
        "ours": partial(scored, model, paths, Workers(1)),
        "plain": partial(plain.load, paths, upper_left, BATCH),
    }
    took = seconds(ways)
    rates = [len(paths) / took[way] for way in ways]
    details = f"{rates[0]:.0f} against {rates[1]:.0f} JPEGs of 160 x 120 a second"
    yield at_least("scoring loop against a bare DataLoader", rates[0] / rates[1], 0.8, details)


def measure_scoring(folder: Path) -> Iterator[Figure]:
    """Pictures a second of each detector, by the product's loop and by a plain one, both in one
    process: to start another would take as long as so few pictures do."""
    paths = jpegs(folder / "pictures", max(SCORED.values()))
    for name, count in SCORED.items():
        model, own = detector(name), paths[:count]
        ways: Ways = {
            "ours": partial(scored, model, own),
            "plain": partial(plain.score, model, own, AT_ONCE),
        }
        took = seconds(ways, SLOW_REPEATS)
        ours, loop = (count / took[way] for way in ways)
        details = f"{ours:.2g} against {loop:.2g} pictures/s"
        yield at_least(f"{name}: scoring against a plain loop", ours / loop, 0.9, details)


def measure_backends(folder: Path) -> Iterator[Figure]:
    """The shipped detector on the CPU, computed in several ways, against PyTorch in float32: time,
    and how far the score of a picture moves."""
    paths = [*sorted(EXAMPLES.rglob("*.*")), *jpegs(folder / "pictures", COMPUTED)]
    plain_model, compiled, rough = (detector("default") for _ in range(3))
    compiled.compile()
    rough.get_submodule("semantic.encoder").to(torch.bfloat16)  # as --precision bf16 holds it
    backends: dict[str, Backend] = {
        "PyTorch": TorchBackend(plain_model, open_device("cpu", "fp32")),
        "onnxruntime": shipped_graph(),
        "torch.compile": TorchBackend(compiled, open_device("cpu", "fp32")),
        "PyTorch in bf16": TorchBackend(rough, open_device("cpu", "bf16")),
    }
    took = seconds({k: partial(scored_by, b, paths) for k, b in backends.items()}, SLOW_REPEATS)
    logits = {k: [x or 0.0 for x in scored_by(b, paths)] for k, b in backends.items()}
    exact = logits.pop("PyTorch")
    for name, values in logits.items():
        moved = max(abs(score_of(a) - score_of(b)) for a, b in zip(exact, values, strict=True))
        details = f"{took['PyTorch']:.1f} s against {took[name]:.1f} s; scores move by {moved:.5f}"
        what = f"default by PyTorch against {name}, {len(paths)} pictures"
        yield Figure(what, f"{took['PyTorch'] / took[name]:.2f} x ({details})")


# What a process of its own runs for `measure_detectors`: its arguments are a name and pictures.
APART = "import sys; from scripts.bench.measures import alone; alone(*sys.argv[1:])"


def alone(name: str, *pictures: str) -> None:
    """Prints pictures a second of a detector, one at a time after one to warm up, and the most
    memory that this process had, in MB, as JSON."""
    model = detector(name)
    first, *paths = map(Path, pictures)
    plain.score(model, [first], 1)
    begun = time.monotonic()
    plain.score(model, paths, 1)
    rate = len(paths) / (time.monotonic() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([rate, peak / 2 ** (20 if sys.platform == "darwin" else 10)]))


def measure_detectors(folder: Path) -> Iterator[Figure]:
    """Pictures a second and peak memory of each detector at its published input size."""
    paths = jpegs(folder / "pictures", 1 + APART_PICTURES)
    for name in detectors.available():
        if detectors.load(name).made_of(detectors.load(name).Options()):
            continue  # costs what its members do
        words = [sys.executable, "-c", APART, name, *map(str, paths)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        rate, memory = json.loads(done.stdout.splitlines()[-1])
        yield Figure(name, f"{rate:.2g} pictures/s, {memory:.0f} MB")


def measure_bootstrap(_: Path) -> Iterator[Figure]:
    """Every metric of 2,000 real and 2,000 synthetic scores with its interval, against without."""
    labels = np.repeat([0, 1], 2000)
    logits = np.random.default_rng(0).normal(labels.astype(float))
    ways: Ways = {
        "with": partial(metrics.evaluate, labels, logits, 0.5, resamples=RESAMPLES),
        "without": partial(metrics.evaluate, labels, logits, 0.5, resamples=0),
    }
    took = seconds(ways)
    value = f"{took['with']:.2f} s (without intervals {took['without']:.3f} s)"
    what = f"{RESAMPLES} resamples of 4000 scores, every metric"
    yield Figure(what, value, "< 2 s", took["with"] < 2)


def measure_cache(folder: Path) -> Iterator[Figure]:
    """An evaluation whose scores are kept already, and how its memory grows with the pictures."""
    files = jpegs(folder / "pictures", 40)
    words = [*MAIN, "--phase", "eval", "--workers", 1, "--cache", folder / "cache"]
    words += ["--set", "score.resamples=2", "--data"]

    def evaluated(name: str, count: int) -> tuple[float, float]:
        """Pictures a second, and the peak memory in MB."""
        data = labelled_names(folder / f"data_{name}", files, count)
        memory = peak_memory([*words, data, "--output", folder / name])
        info = json.loads((folder / name / "run.json").read_text(encoding="utf-8"))
        return count / max(info["seconds"], 0.1), memory

    first, _ = evaluated("first", len(files))
    _, few = evaluated("few", FEW)
    again, many = evaluated("many", MANY)
    details = f"{again:.0f} against {first:.1f} pictures/s"
    yield at_least("default: known pictures against new ones", again / first, 10, details)
    details = f"{many:.0f} MB against {few:.0f} MB"
    what = f"memory of evaluating {MANY:,} pictures against {FEW:,}"
    yield at_most(what, many / few, 1.2, details)


def recipe(name: str) -> Config:
    """The published recipe of a detector's training."""
    return resolve(name, [(name, read_yaml(CONFIGS / f"{name}.yaml"))])


def measure_training(_: Path) -> Iterator[Figure]:
    """A training step in bf16 on the CPU, against a plain one in fp32; pictures are at hand."""
    pictures = [open_picture(path) for path in sorted((EXAMPLES / "real").iterdir())]
    for name, size in TRAINED.items():
        config, kind = recipe(name), detectors.load(name)
        torch.manual_seed(0)
        model: Detector = kind(config.options).train()
        transform = model.transform(train=True)
        items = [
            transform(pictures[number % len(pictures)], np.random.default_rng(number))
            for number in range(size)
        ]
        values, labels = model.collate(items), [float(number % 2) for number in range(size)]
        batch = Batch(values, labels, [str(number) for number in range(size)])
        # Steps of the two ways change the same weights, which time does not depend on.
        stepper = Stepper(model, replace(config.train, precision="bf16"),
                          open_device("cpu", "bf16"), ALONE)  # fmt: skip
        step = plain.train_step(model, make_optimizer(model, config.train))
        ways: Ways = {
            "ours": partial(stepper.step, [batch], config.train.lr),
            "plain": partial(step, values, torch.tensor(labels)),
        }
        took = seconds(ways, SLOW_REPEATS)
        details = f"{took['plain']:.1f} s against {took['ours']:.1f} s"
        what = f"{name}: training step of {size}, plain fp32 against bf16"
        # No limit: what bf16 gains is the processor's affair.
        yield Figure(what, f"{took['plain'] / took['ours']:.2f} x ({details})")


def measure_derivations(_: Path) -> Iterator[Figure]:
    """What pictures go through, at 1024 px, against saving and opening them as JPEG 75."""
    opened = open_picture(EXAMPLES / "real" / "coffee.png")
    picture = opened.resize((1024, 1024), Image.Resampling.LANCZOS)
    ways: dict[str, Callable[[], object]] = {}
    for name in ("jpeg:75", *DERIVATIONS):
        chain = degradations.parse(name)
        assert chain is not None
        ways[name] = partial(chain, picture, np.random.default_rng(0))
    took = seconds(ways)
    for name in DERIVATIONS:
        details = f"{1 / took[name]:.1f} against {1 / took['jpeg:75']:.1f} a second, one core"
        ratio = took[name] / took["jpeg:75"]
        yield Figure(f"{name} at 1024 px against jpeg:75", f"{ratio:.1f} x ({details})")


def measure_stream(_: Path) -> Iterator[Figure]:
    """Memory of streaming many pictures against few, each in a process of its own."""

    program = (sys.executable, "scripts/bench/stream.py")
    few, many = (peak_memory([*program, count]) for count in STREAMED)
    details = f"{many:.0f} MB against {few:.0f} MB"
    what = "memory of streaming {1:,} pictures against {0:,}".format(*STREAMED)
    yield at_most(what, many / few, 1.25, details)


Measure = Callable[[Path], Iterator[Figure]]
MEASURES: dict[str, Measure] = {
    "help": measure_help,
    "verdict": measure_verdict,
    "decode": measure_decode,
    "loop": measure_loop,
    "scoring": measure_scoring,
    "detectors": measure_detectors,
    "backends": measure_backends,
    "bootstrap": measure_bootstrap,
    "cache": measure_cache,
    "stream": measure_stream,
    "training": measure_training,
    "derivations": measure_derivations,
}
