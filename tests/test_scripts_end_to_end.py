"""Every script of scripts/ does its whole work in some test: here, or where `ELSEWHERE` says."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from cli_runner import Cli, runner, script, write_weights
from conftest import ROOT, make_picture

from detectors.default import Default, DefaultOptions
from engine import manifest
from engine.weight_files import read_weights, save_weights, sha256
from scripts import bench, make_default_csv, ship_default

HERE = {"bench.py", "make_default_csv.py", "ship_default.py", "setup.sh"}
# Which test runs the script, rather than parts of it.
ELSEWHERE = {
    "auc_table.py": "test_auc_table.py",
    "augment_csv.py": "test_augment_csv.py",
    "contact_sheet.py": "test_contact_sheet.py",
    "convert_weights.py": "test_fetch.py",
    "draw_methods.py": "test_docs.py",
    "export_onnx.py": "test_onnx.py",
    "fetch_data.py": "test_fetch_data.py",
    "fetch_weights.py": "test_fetch.py",
    "make_csv.py": "test_make_csv.py",
    "own_threshold.py": "test_own_threshold.py",
    "ssp_table.py": "test_ssp_table.py",
    **dict.fromkeys(
        ("test_ssp.sh", "train_fake2m.sh", "train_spai.sh", "train_ssp.sh"), "test_scripts_sh.py"
    ),
}
FAKES = {"train": ("known",), "val": ("new", "newer")}


def test_no_script_is_left_out() -> None:
    found = {
        p.name for p in (ROOT / "scripts").iterdir() if re.fullmatch(r"[a-z]\w*\.(py|sh)", p.name)
    }
    assert found == HERE | ELSEWHERE.keys()
    for name, file in ELSEWHERE.items():
        asked = rf"\b{name.removesuffix('.py')}\.main\b|scripts/{name}"
        assert re.search(asked, (ROOT / "tests" / file).read_text(encoding="utf-8")), name


# --- the card of the shipped detector


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A manifest of pictures: a generator to train on and one that training never sees."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = [("image", "class", "split", "generator", "source", "source_path")]
    for split, generators in FAKES.items():
        for number in range(40):
            name = f"{split}_{number}.png"
            fake = bool(number % 2)
            generator = generators[number // 2 % len(generators)] if fake else ""
            make_picture(number + 100 * (split == "val"), fake).save(folder / name)
            # A source whose pictures are each a group of their own.
            rows.append(
                (name, str(int(fake)), split, generator, "EnragedAntelope/Artists-SD35L", name)
            )
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the weights would ship."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    shutil.copy(manifest.MANIFEST, folder)
    monkeypatch.setattr(manifest, "PRETRAINED", folder)
    monkeypatch.setattr(manifest, "MANIFEST", folder / "manifest.yaml")
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The output of a training, by its weights: higher logits mean synthetic, as in a detector that
    has learnt something."""
    folder = tmp_path / "run"
    folder.mkdir()
    options = DefaultOptions(crop=48, views=1)
    path = write_weights(folder / "best.safetensors", options=options)
    state, card = read_weights(path)
    assert card
    model = Default(options)
    model.load_state_dict(state)
    seen: list[torch.Tensor] = []
    model.fc.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    transform = model.eval().transform(train=False)
    pictures = [make_picture(number, fake) for fake in (False, True) for number in range(20)]
    with torch.inference_mode():
        model(model.collate([transform(picture, None) for picture in pictures]))
        real, fake = (part.mean(0) for part in seen[0].reshape(40, -1).chunk(2))
    towards = (fake - real) / (fake - real).square().sum()
    state |= {"fc.weight": 8 * towards[None], "fc.bias": -4 * (towards @ (real + fake))[None]}
    save_weights(path, state, replace(card, extra={"epoch": 4}))
    return folder


@pytest.fixture
def ship(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "ship_default.py: ", ship_default.main)


def test_the_shipped_detector_is_made_anew(
    listed: Path,
    trained: Path,
    pretrained: Path,
    ship: Cli,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = tmp_path / "runs" / "default.csv"
    written = script(capsys, "", make_default_csv.main)(listed / "manifest.csv", table)
    assert (written.status, written.err) == (0, "")
    counts = {(s, kind): int(n) for s, kind, n in map(str.split, written.out.splitlines())}
    assert counts["val", "synthetic"] == counts["val", "real"] == 20
    assert sum(counts.values()) == 80 and counts["heldout", "synthetic"] > 0

    cli = runner(capsys, caplog, monkeypatch, "--device", "cpu", "--phase", "eval")
    use = ("--data", table, "--csv_root", listed, "--weights", trained / "best.safetensors")
    for name, split, steps in (
        ("val90", "val", ("jpeg:90",)), ("val75", "val", ("jpeg:75",)),
        ("heldout90", "heldout", ("jpeg:90",)), ("sweep", "val", ("none", "jpeg:90")),
    ):  # fmt: skip
        degrade = ("--degrade", *steps, "--set", f"data.split={split}", "score.resamples=2")
        assert cli(*use, *degrade, "--output", tmp_path / name).status == 0

    note = ("--note", ROOT / "scripts" / "default_card.md")
    runs = ("--val", tmp_path / "val90", tmp_path / "val75", "--heldout", tmp_path / "heldout90")
    done = ship(trained, *runs, *note)
    assert done.status == 0, done.err
    fields = dict(line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
    weights = pretrained / "default.safetensors"
    assert fields["sha256"] == sha256(weights)
    entries = yaml.safe_load((pretrained / "manifest.yaml").read_text(encoding="utf-8"))
    assert entries["default"]["sha256"] == sha256(weights)
    card = (pretrained / "default.md").read_text(encoding="utf-8")
    assert "$" not in card.replace("$q", "") and "| unseen generators | jpeg:75 | 20 / 20 |" in card
    assert (pretrained / "default_generators.png").read_bytes()[1:4] == b"PNG"
    assert read_weights(weights)[1].band is not None  # type: ignore[union-attr]

    before = {path: path.read_bytes() for path in pretrained.iterdir()}
    other = write_weights(trained / "best.safetensors", seed=1)
    assert str(other) in ship(trained, *runs, *note).complaint
    swept = ("--val", tmp_path / "sweep", *runs[3:], *note)
    assert "one degradation" in ship(trained, *swept).complaint
    nowhere = ("--val", tmp_path / "nowhere", *runs[3:], *note)
    assert "nowhere" in ship(trained, *nowhere).complaint
    assert {path: path.read_bytes() for path in pretrained.iterdir()} == before


def test_a_manifest_without_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("image,class\na.png,1\n")
    make = script(capsys, "make_default_csv.py: ", make_default_csv.main)
    for name, said in (("list.csv", "split"), ("none.csv", "none.csv")):
        assert said in make(tmp_path / name, tmp_path / "out.csv").complaint
    assert not (tmp_path / "out.csv").exists()


# --- the others


def test_a_measure_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["bootstrap"]) in (0, 1)  # a busy machine may miss the limit
    row = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"\| 1000 resamples .* \| \d+\.\d\d s \| < 2 s( NOT MET)? \|", row)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--help",), 0, "--dev"),
        (("-h",), 0, "--all"),
        (("--dve",), 2, "--dve"),
        (("--dev", "x"), 2, "x"),
    ],
)
def test_setup_says_how_it_is_called(words: tuple[str, ...], status: int, said: str) -> None:
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "setup.sh", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    shown, other = (done.stderr, done.stdout) if status else (done.stdout, done.stderr)
    assert said in shown and other == ""
    assert status == 0 or len(shown.splitlines()) == 1
