"""What all tests use: import path, threads, and small generated pictures."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from datasets import Record
    from engine.config import DataOptions

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Before torch is imported, here or in a subprocess: tests are many and their tensors small.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"  # as main.py has it; busy threads would slow other tests
os.environ["HF_HUB_OFFLINE"] = "1"

EXAMPLE = ROOT / "data" / "examples" / "real" / "coffee.png"
GENERATORS = ("gan", "diffusion")


def make_picture(seed: int, fake: bool, size: tuple[int, int] = (72, 64)) -> Image.Image:
    """A smooth coloured picture (width, height) with sensor-like noise; a fake one also carries
    the checkerboard that transposed convolutions leave."""
    rng = np.random.default_rng((seed, fake))
    small = Image.fromarray(rng.integers(40, 216, (5, 5, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(np.float64)
    pixels += rng.normal(0, 3, pixels.shape)
    if fake:
        y, x = np.mgrid[: size[1], : size[0]]
        pixels += np.where((x + y) % 2, 14, -14)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_tree(root: Path, count: int = 6, size: tuple[int, int] = (72, 64), seed: int = 0) -> Path:
    """Writes `root`/real/ and `root`/fake/<generator>/ with `count` pictures of each generator and
    as many real ones as fakes; JPEG and PNG in turn, so that the format says nothing."""
    groups = [("real", count * len(GENERATORS), False)]
    groups += [(f"fake/{name}", count, True) for name in GENERATORS]
    for number, (folder, pictures, fake) in enumerate(groups):
        (root / folder).mkdir(parents=True)
        for index in range(pictures):
            picture = make_picture(1000 * (seed * len(groups) + number) + index, fake, size)
            path = root / folder / f"{index:03}.{('jpg', 'png')[index % 2]}"
            picture.save(path, **({"quality": 95, "subsampling": 0} if index % 2 == 0 else {}))
    return root


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, in which names may be of any bytes."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def train_and_val(path: Path, options: DataOptions) -> tuple[list[Record], list[Record], str]:
    """`divide` of what a folder, a CSV or an archive holds."""
    import datasets
    from datasets._splits import divide

    return divide(datasets.contents(path), path, options)


def pytest_collection_finish() -> None:
    """A first backward pass before any test: had an export come first, which counts a GPU that is
    not there, autograd would start a thread for it, and tests could no longer fork."""
    if torch := sys.modules.get("torch"):
        torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that one test keeps are not found by another, nor by the user. Outside of `tmp_path`,
    whose content some tests look at: matplotlib keeps its fonts there, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user_cache")))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A labelled folder: 12 real pictures, 6 of each of two generators."""
    return make_tree(tmp_path / "tree")


@pytest.fixture
def pictures(tree: Path) -> list[Path]:
    """The picture files of `tree`, sorted."""
    return sorted(path for path in tree.rglob("*") if path.is_file())


def split(root: Path) -> tuple[list[Record], list[Record]]:
    """17 pictures of a new tree to train on, 7 for validation, both of either class."""
    from datasets import folder
    from datasets._splits import hold_out

    return hold_out(folder.records(make_tree(root)), 0.25)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], list[Record]]:
    """As `split` has it. Do not change the files."""
    return split(tmp_path_factory.mktemp("pictures") / "tree")


@pytest.fixture
def own_parts(tmp_path: Path) -> tuple[list[Record], list[Record]]:
    """As `parts`, for a test that spoils some of them."""
    return split(tmp_path / "own tree")
