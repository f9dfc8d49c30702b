"""scripts/embed.py: features of a detector, and maps of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Cli, cli, script, weights
from PIL import Image

from engine.weights.files import read_weights
from scripts import embed

__all__ = ["cli", "weights"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], weights: Path) -> Cli:
    cli = script(capsys, "embed.py: ", embed.main)
    own = ("--weights", weights, "--device", "cpu", "--workers", 0)
    return lambda *words, stdin=b"": cli(*words, *own)


def test_features_are_what_the_last_layer_gets(
    run: Cli, cli: Cli, weights: Path, tree: Path, tmp_path: Path
) -> None:
    (tree / "real" / "000.jpg").write_bytes(b"no picture")
    output = tmp_path / "maps"
    done = run(tree, "--output", output)
    assert done.status == 1
    assert [Path(line).name for line in done.out.splitlines()] == [
        "features.npz", "points.csv", "tsne.png", "pca.png",
    ]  # fmt: skip
    content = np.load(output / "features.npz")
    assert len(content["keys"]) == 23
    assert dict(zip(*np.unique(content["generators"], return_counts=True), strict=True)) == {
        "": 11, "diffusion": 6, "gan": 6,
    }  # fmt: skip
    assert (content["labels"] == (content["generators"] != "")).all()
    # The last layer makes of them the logits that main.py gives.
    state, _ = read_weights(weights)
    weight, bias = (state[f"semantic.fc.{name}"].numpy() for name in ("weight", "bias"))
    logits = {row["path"]: row["logit"] for row in cli("--json", tree).rows}
    for key, feature in zip(content["keys"], content["features"], strict=True):
        assert feature @ weight[0] + bias[0] == pytest.approx(logits[key], abs=1e-4)
    rows = list(csv.DictReader((output / "points.csv").open(newline="")))
    assert [row["key"] for row in rows] == content["keys"].tolist()
    pca = np.array([[float(row["pca_x"]), float(row["pca_y"])] for row in rows])
    assert pca.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert pca[:, 0].var() >= pca[:, 1].var()
    with Image.open(output / "tsne.png") as image:
        assert image.width > image.height
    # The same command, the same files.
    saved = {path: path.read_bytes() for path in output.iterdir()}
    assert run(tree, "--output", output).status == 2
    run(tree, "--output", output, "--overwrite")
    assert {path: path.read_bytes() for path in output.iterdir()} == saved
    run(tree, "--output", output, "--overwrite", "--limit", 2)
    assert len(np.load(output / "features.npz")["keys"]) <= 6


def test_views_of_a_picture_are_averaged() -> None:
    heard = embed.Penultimate()
    layer = torch.nn.Linear(3, 1)
    layer.register_forward_hook(heard.note)
    views = torch.arange(12.0).view(4, 3)
    layer(views)
    expected = views.view(2, 2, 3).mean(dim=1).tolist()
    assert heard.features(2).tolist() == expected
    # A detector may call its classifier for each picture, as one does whose sizes differ.
    other = torch.nn.Linear(5, 1)
    other.register_forward_hook(heard.note)
    other(torch.zeros(4, 5))
    for part in views.split(2):
        layer(part)
    assert heard.features(2).tolist() == expected


@pytest.mark.parametrize(
    ("words", "named"),
    [("--perplexity 0", "--perplexity"), ("--limit 0", "--limit"), ("--detector nosuch", "nosuch")],
)
def test_mistakes_are_one_line(
    run: Cli, tree: Path, tmp_path: Path, words: str, named: str
) -> None:
    done = run(tree, "--output", tmp_path / "maps", *words.split())
    assert done.status == 2
    assert named in done.err


def test_too_few_pictures(run: Cli, pictures: list[Path], tmp_path: Path) -> None:
    assert "at least 5" in run(*pictures[:3], "--output", tmp_path / "maps").complaint
