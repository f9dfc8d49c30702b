"""Super-resolution networks as a degradation: weights of others, tiles, derive.py."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Cli, script
from conftest import make_picture
from PIL import Image

from detectors._errors import WeightsError
from engine.config import ConfigError
from engine.runtime.text import one_line
from engine.scoring import degradations, superres
from scripts import derive

pytest.importorskip("spandrel")


def write_network(path: Path, scale: int = 2, channels: int = 3) -> Path:
    """Weights of a small ESRGAN, random but for a seed."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RRDBNet(in_nc=channels, num_filters=8, num_blocks=1, scale=scale)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "x2.pth")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "derive.py: ", derive.main)


def enlarged(image: Image.Image, file: Path, text: str = "superres:2") -> Image.Image:
    with superres.standing(file):
        chain = degradations.parse(text)
    assert chain is not None
    return chain(image, np.random.default_rng(0))  # which knows its network on its own


@pytest.mark.parametrize("size", [(1, 1), (65, 34), (3, 200)])
def test_sizes_are_whole_multiples_and_pixels_the_same_again(
    network: Path, size: tuple[int, int]
) -> None:
    image = make_picture(0, fake=False).resize(size)
    first = enlarged(image, network)
    assert first.size == tuple(2 * max(1, side // 2) for side in size)
    assert enlarged(image, network).tobytes() == first.tobytes()
    assert enlarged(image, network, "superres:2+jpeg:75").size == first.size


def test_tiles_leave_no_seam(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_picture(0, fake=True).resize((150, 90))
    whole = enlarged(image, network)
    monkeypatch.setattr(superres, "TILE", 20)
    tiled = np.asarray(enlarged(image, network), np.int16)
    assert np.abs(tiled - np.asarray(whole, np.int16)).max() <= 1


def test_the_name_tells_the_weights(network: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    state = torch.load(network, weights_only=True)
    torch.save({key: value * 1.1 for key, value in state.items()}, other)
    with superres.standing(network):
        chain = degradations.parse("superres:2+jpeg:75")
        assert chain is not None and degradations.parse(chain.name) == chain
    with superres.standing(other), pytest.raises(ConfigError, match=r"found superres:2@"):
        degradations.parse(chain.name)


def test_without_weights_it_is_refused_and_the_stand_in_named() -> None:
    reads: list[Callable[[], object]] = [
        lambda: degradations.parse("superres:2"),
        lambda: degradations.parse_sweep(["superres:2,4"]),
        lambda: degradations.choice("superres:2", "train.degrade"),
    ]
    for read in reads:
        with pytest.raises(ConfigError, match=r"degrade\.superres=FILE.*enlarge:2") as raised:
            read()
        assert one_line(str(raised.value)) == str(raised.value)


def test_of_a_trainer_s_file_the_average_counts(network: Path, tmp_path: Path) -> None:
    state = torch.load(network, weights_only=True)
    worse = {key: value * 0 for key, value in state.items()}
    torch.save({"params": worse, "params_ema": state}, tmp_path / "wrapped.pth")
    image = make_picture(0, fake=False)
    wrapped = enlarged(image, tmp_path / "wrapped.pth")
    assert wrapped.tobytes() == enlarged(image, network).tobytes()


def test_weights_of_others_are_refused(network: Path, tmp_path: Path) -> None:
    def refused(file: Path, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said), superres.standing(file):
            degradations.parse("superres:2")

    strange = tmp_path / "strange.pth"
    torch.save({"weight": torch.zeros(3, 3)}, strange)
    refused(strange, WeightsError, "strange.pth: expected weights of a super-resolution network")
    grey = write_network(tmp_path / "grey.pth", channels=1)
    refused(grey, WeightsError, "channels 1 to 3")
    refused(tmp_path / "nowhere.pth", WeightsError, "nowhere.pth: expected a weight file")
    larger = write_network(tmp_path / "x4.pth", scale=4)
    refused(larger, ConfigError, r"expected superres:4@\w+ of .*x4.pth; found superres:2")
    notes = tmp_path / "notes.pth"
    notes.write_text("no weights")
    refused(notes, WeightsError, "notes.pth")


def test_derive_writes_what_the_network_makes(run: Cli, network: Path, tmp_path: Path) -> None:
    make_picture(0, fake=False).save(tmp_path / "a.png")
    table = tmp_path / "set.csv"
    table.write_text("image,class\na.png,0\n")
    out = tmp_path / "out"
    words = (table, "--apply", "superres:2", "--output", out, "--workers", 0)
    assert "enlarge:2" in run(*words).complaint
    assert "--set" in run(*words, "--set", "score.batch_size=1").complaint
    assert run(*words, "--set", f"degrade.superres={network}").status == 0
    with (out / "set.csv").open(newline="") as stream:
        [row] = csv.DictReader(stream)
    assert row["degradation"].startswith("superres:2@")
    with Image.open(out / row["image"]) as image, Image.open(tmp_path / "a.png") as before:
        assert image.tobytes() == enlarged(before.convert("RGB"), network).tobytes()
    # No network stands for later calls in this process.
    assert run(*words, "--overwrite").status == 2
    again = run(
        table, "--like_study", "superres", "--set", f"degrade.superres={network}",
        "--output", tmp_path / "study", "--workers", 0,
    )  # fmt: skip
    assert again.status == 0, again.err
