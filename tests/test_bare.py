"""Command lines that name neither a detector nor pictures: what is missing, and what is done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cli_runner import Cli, runner, write_weights
from conftest import ROOT, make_tree
from trees import write_tree

from detectors._cospy_options import CoSpyOptions
from detectors.cospy import CoSpy
from engine.cli import bare, parser
from engine.scoring.table import read_table
from engine.weights import manifest
from engine.weights.cards import sha256

WEIGHTS = "fetch_weights.py cospy-sd-v1_4 siglip-so400m-384"
PICTURES = "fetch_data.py cospy_bench"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a clone with no more than weights in place of those that ship."""
    shipped = tmp_path / "pretrained"
    shipped.mkdir()
    weights = write_weights(shipped / "default.safetensors")
    entries = yaml.safe_load(manifest.MANIFEST.read_text("utf-8"))
    entries["default"]["sha256"] = sha256(weights)
    (shipped / "manifest.yaml").write_text(yaml.safe_dump(entries))
    monkeypatch.setattr(manifest, "MANIFEST", shipped / "manifest.yaml")
    monkeypatch.setattr(manifest, "PRETRAINED", shipped)
    monkeypatch.setattr(manifest, "cached", lambda hub: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    return runner(capsys, caplog, monkeypatch, "--device", "cpu")


def filled(*words: str) -> tuple[list[str], dict[str, object]]:
    """What is said of a command line, and which choices are made for it."""
    args = parser.parser().parse_args(list(words))
    before = dict(vars(args))
    said = list(bare.fill(args))
    return said, {name: value for name, value in vars(args).items() if value != before[name]}


def put(name: str) -> None:
    """Something with the name of a file that is looked for."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).touch()


# --- evaluation


def test_with_nothing_there_the_examples_are_a_demonstration(cli: Cli, here: Path) -> None:
    done = cli("--phase", "eval")
    weights, pictures = done.err.splitlines()
    assert done.status == 0 and "pooled" in done.out
    assert WEIGHTS in weights and PICTURES in pictures and "demonstration" in pictures
    output = here / "runs" / "demonstration"
    assert len(read_table(output / "scores.csv")) == 6
    assert "54%" in (output / "report.md").read_text(encoding="utf-8")
    assert (output / "report.html").is_file()
    before = (output / "scores.csv").read_bytes()
    assert cli("--phase", "eval").status == 0  # asked twice
    assert (output / "scores.csv").read_bytes() == before
    assert cli("--phase", "eval", "--seed", 5).status == 0  # and otherwise
    assert json.loads((output / "run.json").read_text())["config"]["score"]["seed"] == 5
    done = cli("--phase", "eval", "--limit", 1, "--output", "mine")
    assert done.status == 0 and len(read_table(here / "mine" / "scores.csv")) == 2
    assert "--overwrite" in cli("--phase", "eval", "--output", "mine").err


def test_pictures_without_weights(cli: Cli, here: Path) -> None:
    write_tree("cospy_bench", here, count=1)
    root = here / "data" / "test" / "Co-Spy-Bench"
    root.parent.mkdir(parents=True)
    (here / "set").rename(root)
    done = cli("--phase", "eval", "--sources", "cc3m")
    weights, pictures = done.err.splitlines()
    assert done.status == 0 and WEIGHTS in weights and "Co-Spy-Bench" in pictures
    assert "fetch_data" not in pictures
    run = json.loads((here / "runs" / "default" / "eval_cospy_bench" / "run.json").read_text())
    assert (run["benchmark"], run["config"]["detector"]) == ("cospy_bench", "default")
    (root / "real_image_examples" / "CC3M").rename(here / "gone")
    said, chosen = filled("--phase", "eval")  # an interrupted download
    assert "cc3m" in said[1] and PICTURES in said[1] and chosen["data"] == bare.EXAMPLES


def test_what_is_published_is_evaluated_when_all_is_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree("cospy_bench", here, count=1)
    (here / "data" / "test").mkdir(parents=True)
    (here / "set").rename(here / "data" / "test" / "Co-Spy-Bench")
    have = {"cospy-sd-v1_4", "siglip-so400m-384"}
    monkeypatch.setattr(manifest, "find", lambda name: here if name in have else None)
    assert filled("--phase", "eval") == ([], {"train_dataset": "sd-v1_4", "pretrain": True})
    # What the user trained comes first, as published; ours lacks the autoencoder.
    put("ckpt/sd-v1_4/fusion/best_model.pth")
    assert filled("--phase", "eval") == ([], {"train_dataset": "sd-v1_4"})
    put("ckpt/sd-v1_4/fusion/best.safetensors")
    said, chosen = filled("--phase", "eval")
    assert "fetch_weights.py sd-v1_4-vae)" in said[0] and chosen["detector"] == "default"
    have.clear()
    said, _ = filled("--phase", "eval")
    assert "fetch_weights.py siglip-so400m-384 sd-v1_4-vae)" in said[0]


def test_weights_without_pictures(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "find", lambda name: here)
    said, chosen = filled("--phase", "eval")
    assert "fetch_weights" not in said[0] and PICTURES in said[1]
    assert (chosen["detector"], chosen["data"]) == ("default", bare.EXAMPLES)


# --- training


def test_training_says_what_it_lacks_before_torch(here: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import main; "
    code += "print(main.main(['--phase', 'train', '--epochs', '2']), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        cwd=here,
        check=True,
    )
    assert done.stdout.split() == ["2", "False"]
    lacking, own = done.stderr.splitlines()
    for part in ("fetch_data.py sd-v1_4", "train.sh", "ckpt/sd-v1_4/semantic"):
        assert part in lacking
    assert own.endswith(bare.OWN)


def test_training_begins_when_all_is_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "find", lambda name: here)
    put("data/train/sd-v1_4/x")
    for part in ("artifact", "semantic"):
        put(f"ckpt/sd-v1_4/{part}/best_model.pth")
    assert filled("--phase", "train") == ([], {"train_dataset": "sd-v1_4"})


def test_the_command_for_pictures_of_ones_own_works(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "mine")
    (tmp_path / "mine" / "fake" / "gan").rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    assert cli(*bare.OWN.split()[2:], "--check").status == 0


def test_the_names_are_those_that_training_and_weights_have() -> None:
    options = CoSpyOptions(**bare.MEANT.options)
    home = CoSpy.home(options)
    meant = (home.evaluate, home.train, home.pictures, CoSpy.entry(options))
    assert meant == (
        bare.MEANT.benchmark, bare.MEANT.family, bare.MEANT.pictures, bare.MEANT.weights,
    )  # fmt: skip
    assert tuple(CoSpy.external(options).values()) == bare.MEANT.encoders
    assert CoSpy.output_folder(options, Path()) == bare.MEANT.trained
