"""The measures of `python scripts/bench`: what the command line, the loops and the networks cost.

A measure takes an empty folder for its files and gives rows of the table. Its figures are ratios of
what one run did in turn, so that they mean the same on any machine and whatever else that does.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

import detectors
from datasets._images import open_picture
from detectors._base import Detector
from engine.config import CONFIGS, Config, ConfigError, read_yaml, resolve
from engine.evaluation import metrics
from engine.runtime.device import open_device
from engine.runtime.distributed import ALONE
from engine.runtime.workers import Workers
from engine.scoring import degradations
from engine.scoring.backend import AT_ONCE
from engine.training.step import Batch, Stepper, make_optimizer

from . import backends, decoding, plain
from .subjects import (
    BATCH,
    EXAMPLES,
    Null,
    detector,
    jpegs,
    labelled_names,
    scored,
    shipped_graph,
    single,
    upper_left,
)
from .timing import (
    ROOT,
    SLOW_REPEATS,
    Figure,
    Ways,
    all_of,
    at_least,
    at_most,
    command,
    peak_memory,
    seconds,
)

MAIN = (sys.executable, "main.py", "--device", "cpu")
BARE_IMPORT = (sys.executable, "-c", "import torch, torchvision")
STREAMED = (20_000, 100_000)  # pictures: two parts, ten parts
DECODED, SMALL, RESAMPLES = 60, 2000, 1000
FEW, MANY = 1000, 11_000  # names of pictures that have a score already
# Pictures of a pass: it takes seconds on two idle cores, and a measure about a minute.
SCORED = {"default": 8, "ssp": 8, "ssp_baseline": 8, "spai": 1}
TRAINED = {"ssp": 4, "spai": 1}
APART_PICTURES = 3  # that a detector scores in a process of its own
DERIVATIONS = ("instagram:random", "post", "meme", "screenshot", "repost:3", "print-scan")


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


def measure_detectors(folder: Path, names: Sequence[str] = ()) -> Iterator[Figure]:
    """Pictures a second and peak memory of each detector at its published input size."""
    paths = jpegs(folder / "pictures", 1 + APART_PICTURES)
    for name in names or single():
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
# Those of which each detector has rows of its own, and which may be asked for one: `backends:npr`.
OF_DETECTORS: dict[str, Callable[..., Iterator[Figure]]] = {
    "detectors": measure_detectors,
    "backends": backends.measure,
}
MEASURES: dict[str, Measure] = {
    "help": measure_help,
    "verdict": measure_verdict,
    "decode": measure_decode,
    "decoders": decoding.measure_decoders,
    "workers": decoding.measure_workers,
    "loop": measure_loop,
    "scoring": measure_scoring,
    **OF_DETECTORS,
    "bootstrap": measure_bootstrap,
    "cache": measure_cache,
    "stream": measure_stream,
    "training": measure_training,
    "derivations": measure_derivations,
}


def chosen(word: str) -> Measure:
    """The measure of a word of the command line: a name, or `NAME:DETECTOR` where each detector has
    rows of its own.

    Raises:
        ConfigError: there is no such measure, or no such detector.
    """
    name, _, alone = word.partition(":")
    known = OF_DETECTORS if alone else MEASURES
    if name not in known:
        raise ConfigError(f"expected {', '.join(MEASURES)}; found {word}")
    if not alone:
        return MEASURES[name]
    if alone not in single():
        raise ConfigError(f"{name}: expected one of {', '.join(single())}; found {alone}")
    return partial(OF_DETECTORS[name], names=[alone])
