"""Every script of scripts/ does its whole work in some test: here, or where `ELSEWHERE` says."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_runner import runner, script
from conftest import ROOT, make_picture
from models import backbone_files, randomise

from detectors._default_options import DefaultOptions
from detectors.default import Default
from engine.weights import manifest
from engine.weights.cards import sha256
from scripts import _card, ship_default, train_default

HERE = {"ship_default.py", "setup.sh", "train_default.py"}
# Which test runs the script, rather than parts of it.
ELSEWHERE = {
    "auc_table.py": "test_auc_table.py",
    "build_pictures.py": "test_build_pictures.py",
    "augment_csv.py": "test_augment_csv.py",
    "bench": "test_bench.py",
    "derive.py": "test_derive.py",
    "contact_sheet.py": "test_contact_sheet.py",
    "convert_weights.py": "test_fetch.py",
    "draw_methods.py": "test_docs.py",
    "embed.py": "test_embed_script.py",
    "export_onnx.py": "test_onnx.py",
    "fetch_data.py": "test_fetch_data.py",
    "fetch_weights.py": "test_fetch.py",
    "gpu_check.sh": "test_gpu_check.py",
    "import_backbone.py": "test_import_backbone.py",
    "leaderboard.py": "test_leaderboard.py",
    "make_csv.py": "test_make_csv.py",
    "notebooks": "test_notebooks.py",
    "own_threshold.py": "test_own_threshold.py",
    "publish.py": "test_publish.py",
    "quiz.py": "test_quiz.py",
    "score_ray.py": "test_score_ray.py",
    "serve.py": "test_serve.py",
    "ssp_table.py": "test_ssp_table.py",
    "study.py": "test_study.py",
    **dict.fromkeys(
        ("test_ssp.sh", "train_fake2m.sh", "train_spai.sh", "train_ssp.sh"), "test_scripts_sh.py"
    ),
}


def test_no_script_is_left_out() -> None:
    found = {
        p.name
        for p in (ROOT / "scripts").iterdir()
        if re.fullmatch(r"[a-z]\w*(\.(py|sh))?", p.name)
    }
    assert found == HERE | ELSEWHERE.keys()
    for name, file in ELSEWHERE.items():
        asked = rf"\b{name.removesuffix('.py')}\.main\b|scripts/{name}"
        assert re.search(asked, (ROOT / "tests" / file).read_text(encoding="utf-8")), name


# --- the shipped detector and its card


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A manifest of pictures: generators and sources to train on, others that training never
    sees."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = [("image", "class", "split", "generator", "source", "kind", "permissive")]
    for split, count in (("train", 60), ("val", 24)):
        for number in range(count):
            name, fake = f"{split}_{number}.png", number % 2
            group = f"{split}{number // 2 % 6}"
            make_picture(number + 100 * (split == "val"), bool(fake)).save(folder / name)
            generator, source = (group, "") if fake else ("", f"photos/{group}")
            kind, permissive = ("", "1") if fake else ("photo", str(int(number < 40)))
            rows.append((name, str(fake), split, generator, source, kind, permissive))
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a small encoder, in place of the one that ships."""
    options = DefaultOptions(branch="semantic", blocks=2, crop=48, size="tiny")
    model = Default(options)
    randomise(model)
    [file] = backbone_files(model, tmp_path)
    monkeypatch.setattr(train_default, "OPTIONS", options)
    monkeypatch.setattr(train_default.manifest, "find", lambda _name: file)
    return file


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the weights would ship."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    shutil.copy(manifest.MANIFEST, folder)
    monkeypatch.setattr(manifest, "PRETRAINED", folder)
    monkeypatch.setattr(manifest, "MANIFEST", folder / "manifest.yaml")
    return folder


def test_the_shipped_detector_is_made_anew(
    listed: Path,
    encoder: Path,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = script(capsys, "train_default.py: ", train_default.main)
    output = tmp_path / "run"
    made = train(listed / "manifest.csv", "--output", output, "--passes", 2)
    assert made.status == 0, made.err
    trained = output / "default.safetensors"
    first = trained.read_bytes()
    kept = sorted((output / "features").glob("*/*"))
    assert [path.name for path in kept] == ["pass_0.npy", "pass_1.npy"]
    assert not np.array_equal(*map(np.load, kept))
    kept[1].unlink()  # as if stopped before: what is kept is not computed again
    before = kept[0].stat().st_mtime_ns
    assert train(listed / "manifest.csv", "--output", output, "--passes", 2).status == 0
    assert (trained.read_bytes(), kept[0].stat().st_mtime_ns) == (first, before)

    wanted = {"--licences": "permissive", "--passes": 2, "--output": output}
    assert train(listed / "manifest.csv", *itertools.chain(*wanted.items())).status == 0
    permissive = output / "default-permissive.safetensors"
    assert (permissive.read_bytes() != first) and kept[0].stat().st_mtime_ns == before

    given = ("--device", "cpu", "--phase", "eval")
    use = ("--data", listed / "manifest.csv", "--split", "val", "--backbone_weights", encoder)
    for name, weights in (("val", trained), ("other", permissive)):
        cli = runner(capsys, caplog, monkeypatch, *given, drawn=name == "val")
        done = cli(
            *use, "--weights", weights, "--degrade", "none", "jpeg:90", "longest:50+jpeg:40",
            "--output", tmp_path / name,
        )  # fmt: skip
        assert done.status == 0, done.err
    rival = write_rival(tmp_path / "rival.csv", tmp_path / "val" / "scores.csv")

    monkeypatch.setattr(_card, "RESAMPLES", 20)
    monkeypatch.setattr(ship_default, "FEWEST_REAL", 2)
    ship = script(capsys, "ship_default.py: ", ship_default.main)
    rest = (
        "--manifest", listed / "manifest.csv", "--rival", f"the other={rival}",
        "--note", ROOT / "scripts" / "default_card.md", "--derived", tmp_path / "val",
    )  # fmt: skip
    monkeypatch.setattr(ship_default, "MOST_LOST", 2)
    both = (trained, "--val", tmp_path / "val", *rest)
    done = ship(*both, "--permissive", permissive, tmp_path / "other")
    assert done.status == 0, done.err
    weights = pretrained / "default.safetensors"
    assert weights.read_bytes() == first
    entries = yaml.safe_load((pretrained / "manifest.yaml").read_text(encoding="utf-8"))
    for name in ("default", "default-permissive"):
        assert entries[name]["sha256"] == sha256(pretrained / f"{name}.safetensors")
    card, none = (pretrained / "default.md").read_text(encoding="utf-8"), "0.0 [0.0, 0.0]"
    assert "$" not in card and "`--weights default-permissive`" in card
    for row in (
        "| this detector | longest:50+jpeg:40 | 12 / 12 |",
        "| the other | none | 12 / 12 | 100.0",  # it is told the labels
        "| the other | jpeg:90 | 50.0 [",  # and then calls all real: half of the verdicts flip
        f"| the other | none | {none} | {none} | 100.0 [100.0, 100.0] |",
        f"| the other | jpeg:90 | {none} | {none} | {none} |",
        "| photos/val0 | 2 |", "| photo | 12 |",
    ):  # fmt: skip
        assert row in card, row
    [derived] = re.findall(r"(?m)^\| jpeg:90 \|.*$", card)
    assert derived.count(" | ") == 6 and derived.count("[") == 6  # each figure with its interval
    assert (pretrained / "default_generators.png").read_bytes()[1:4] == b"PNG"

    before_all = {path: path.read_bytes() for path in pretrained.iterdir()}
    for words, said in (
        ((trained, "--val", tmp_path / "other", *rest), str(trained)),
        ((trained, "--val", tmp_path / "nowhere", *rest), "nowhere"),
        ((*both, "--rival", f"x={listed / 'manifest.csv'}"), "degradation"),
    ):
        assert said in ship(*words).complaint
    rival.write_text(rival.read_text().rpartition("\n")[0].rpartition("\n")[0])
    assert "rival.csv" in ship(*both).complaint
    assert {path: path.read_bytes() for path in pretrained.iterdir()} == before_all

    # Pictures that were exchanged under their names have features of their own.
    make_picture(7, fake=True).save(listed / "train_0.png")
    assert train(listed / "manifest.csv", "--output", output, "--passes", 1).status == 0
    assert len([*(output / "features").iterdir()]) == 2


def write_rival(path: Path, scores: Path) -> Path:
    """Scores of a rival that knows the labels, and whose verdicts are right on pictures as they
    are, and real under degradations."""
    with scores.open(newline="") as stream, path.open("w", newline="") as written:
        table = csv.writer(written)
        table.writerow(("key", "degradation", "score", "verdict"))
        for row in csv.DictReader(stream):
            fake = row["label"] == "1" and row["degradation"] == "none"
            verdict = "synthetic" if fake else "real"
            table.writerow((row["key"], row["degradation"], row["label"], verdict))
    return path


def test_a_manifest_without_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("image,class\na.png,1\n")
    train = script(capsys, "train_default.py: ", train_default.main)
    for name, said in (("list.csv", "split"), ("none.csv", "none.csv")):
        assert said in train(tmp_path / name, "--output", tmp_path / "out").complaint


# --- the others


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
