"""Scoring without PyTorch: the same logits, the same command line, and torch is not imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli_runner import Cli, plain_cli, script, write_weights
from conftest import ROOT, make_picture
from PIL import Image
from safetensors.numpy import load_file, save_file

from detectors._default_options import DefaultOptions
from engine.cli.parser import parser
from engine.cli.test_request import without_torch
from engine.scoring import backends
from engine.weights import graph as graph_files
from engine.weights.cards import Card, arrays_digest, card_metadata
from engine.weights.graph import path_of
from engine.weights.loaded import card_of, locate
from engine.weights.onnx_graph import network_digest
from scripts import export_onnx

__all__ = ["plain_cli"]

EXAMPLE = ROOT / "data" / "examples" / "real" / "rocket.jpg"
SHIPPED = locate(None, "default")


def odd_pictures(folder: Path) -> list[Path]:
    """Pictures of unusual sizes and modes."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 210, 4), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((97, 140))
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "one.png": (picture.convert("RGB").resize((1, 1)), {}),
        "strip.png": (picture.convert("RGB").resize((3, 900)), {}),
        "wide.webp": (picture.convert("RGB").resize((1500, 20)), {"lossless": True}),
        "grey.png": (picture.convert("L"), {}),
        "grey_alpha.png": (picture.convert("LA"), {}),
        "palette.gif": (picture.convert("P"), {}),
        "alpha.png": (picture, {}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "deep.png": (Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), {}),
        "turned.jpg": (make_picture(1, fake=False), {"exif": turned}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return [folder / name for name in kinds]


def test_scores_are_pytorchs(plain_cli: Cli, tmp_path: Path) -> None:
    paths = odd_pictures(tmp_path)
    ours, theirs = (plain_cli("--json", *flags, *paths).rows for flags in ((), ("--torch",)))
    assert len(ours) == len(paths)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["logit"] == pytest.approx(other["logit"], abs=1e-4)
        near = {"score": pytest.approx(other["score"], abs=1e-4), "logit": mine["logit"]}
        assert mine == other | near


WITHOUT = """
import sys, main
status = main.main(sys.argv[1:])
assert status == 1, status
assert not [name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision")]
"""


def test_pytorch_is_not_imported(tmp_path: Path) -> None:
    """By a run with all that phase test writes, of a picture and a file that is none."""
    (tmp_path / "broken.png").write_bytes(b"none")
    words = ["--output", tmp_path / "run", "--stability", "--json", "--device", "cpu"]
    words += ["--input", EXAMPLE, tmp_path / "broken.png"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [bool(json.loads(line)["error"]) for line in done.stdout.splitlines()] == [False, True]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["backend"] == "onnxruntime"


def test_runs_of_the_two_do_not_mix(plain_cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert plain_cli(EXAMPLE, "--output", run).status == 0
    info = json.loads((run / "run.json").read_text())
    assert info["weights"]["frozen"].keys() == {"clip-vit-b-16", "graph"}
    said = plain_cli(EXAMPLE, "--output", run, "--resume", "--torch").complaint
    assert "backend" in said


def test_explanations_are_pytorchs(plain_cli: Cli, tmp_path: Path) -> None:
    assert plain_cli(EXAMPLE, "--output", tmp_path, "--explain").status == 0
    assert json.loads((tmp_path / "run.json").read_text())["backend"] == "torch"
    assert len(list((tmp_path / "explain").iterdir())) == 1


def opened(*words: str) -> Any:
    """What the command line of phase test computes with; None for PyTorch."""
    return without_torch(parser().parse_args(list(words)), None)


@pytest.mark.parametrize(
    "words",
    [
        ["--torch"], ["--device", "cuda"], ["--gpu", "0"], ["--precision", "bf16"], ["--compile"],
        ["--detector", "ssp"], ["--set", "default.blocks=4"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_only_pytorch_can(words: list[str]) -> None:
    assert opened(*words) is None


def test_a_gpu_is_pytorchs_unless_the_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_cuda_devices", lambda: 1)
    assert opened() is None
    assert opened("--device", "cpu") is not None


def test_the_shipped_graph_is_of_the_shipped_weights() -> None:
    """Or PyTorch would compute: after shipping others, `export_onnx.py graph` writes it."""
    assert opened("--device", "cpu") is not None
    assert path_of("default").stat().st_size < 300_000


# --- what does not fit


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of the shipped weights."""
    return Path(shutil.copy(SHIPPED, tmp_path))


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped graph, taken in its place."""
    path = Path(shutil.copy(path_of("default"), tmp_path))
    monkeypatch.setattr(graph_files, "path_of", lambda _: path)
    return path


@pytest.mark.parametrize("change", ["key", "shape"])
def test_weights_of_another_network(weights: Path, plain_cli: Cli, change: str) -> None:
    state, card = load_file(weights), card_of(weights)
    assert card is not None
    weight = state.pop("semantic.fc.weight")
    state |= {"semantic.fc.scale": weight} if change == "key" else {"semantic.fc.weight": weight.T}
    state = {key: np.ascontiguousarray(value) for key, value in state.items()}
    save_file(state, weights, card_metadata(card, arrays_digest(sorted(state.items()))))
    said = plain_cli("--weights", weights, EXAMPLE).complaint
    assert "semantic.fc" in said
    assert "--torch" in said


def test_a_damaged_graph(graph: Path, plain_cli: Cli) -> None:
    content = graph.read_bytes()
    for damaged in (content[:5000], content.replace(b"LayerNorm", b"LayerNorn", 1)):
        graph.write_bytes(damaged)
        assert graph.name in plain_cli(EXAMPLE).complaint


def test_an_onnx_file_that_is_no_graph(graph: Path, plain_cli: Cli) -> None:
    proto = onnx.load(graph)
    onnx.helper.set_model_props(proto, card_metadata(Card("default", {}), network_digest(graph)))
    onnx.save(proto, graph)
    assert "expected a graph" in plain_cli(EXAMPLE).complaint


# --- writing it


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Cli:
    """scripts/export_onnx.py."""
    return script(capsys, "export_onnx.py: ", export_onnx.main)


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["both", "artifact"])
def test_every_branch_has_a_graph(
    branch: Any, graph: Path, tmp_path: Path, plain_cli: Cli, export: Cli
) -> None:
    options = DefaultOptions(crop=48, size="tiny", branch=branch)
    weights = write_weights(tmp_path / "tiny.safetensors", options=options)
    assert export("graph", "--weights", weights).status == 0
    assert opened("--device", "cpu", "--weights", str(weights)) is not None
    command = ("--weights", weights, "--json", *odd_pictures(tmp_path))
    ours, theirs = (plain_cli(*flags, *command).rows for flags in ((), ("--torch",)))
    logits = [[row["logit"] for row in rows] for rows in (ours, theirs)]
    # Random weights give large logits, whose rounding grows with them.
    assert logits[0] == pytest.approx(logits[1], abs=1e-4, rel=1e-4)


@pytest.mark.slow
def test_the_shipped_graph_is_what_the_script_writes(graph: Path, export: Cli) -> None:
    before = graph.read_bytes()
    graph.unlink()
    assert export("graph").status == 0
    assert graph.read_bytes() == before
