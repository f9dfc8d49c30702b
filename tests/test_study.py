"""scripts/study.py: a detector before and after what pictures go through, end to end."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, script, weights
from conftest import make_picture
from sklearn.metrics import roc_auc_score

from scripts import study

__all__ = ["weights"]


def write_set(folder: Path, name: str, fake: bool, seed: int) -> Path:
    """A CSV of three pictures of one class."""
    rows = []
    for index in range(3):
        path = folder / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(10 * seed + index, fake).save(path)
        rows.append([f"{name}/{index}.png", str(int(fake))])
    with (folder / f"{name}.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "class"], *rows])
    return folder / f"{name}.csv"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def logits(scores: Path, degradation: str) -> list[float]:
    rows = read(scores / "scores.csv")
    return [float(r["logit"]) for r in rows if r["degradation"] == degradation]


def test_the_study_on_twelve_pictures(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("fake_sd3", "fake_flux", "real_coco", "real_raise")
    csvs = [write_set(tmp_path, n, n.startswith("fake"), i) for i, n in enumerate(names)]
    output = tmp_path / "out"
    cli: Cli = script(capsys, "study.py: ", study.main)
    words = (
        *csvs, "--output", output, "--resamples", 40, "--weights", weights, "--device", "cpu",
        "--workers", 0,
    )  # fmt: skip
    done = cli(*words)
    assert done.status == 0, done.err
    table = {(r["format"], r["derivation"], r["generator"], r["source"]): float(r["auc"])
             for r in read(output / "study.csv")}  # fmt: skip
    assert len(table) == 2 * 5 * 2 * 2
    scores = output / "scores"
    # The study's own formats of super-resolution differ by class.
    for generator, source in (("sd3", "coco"), ("flux", "raise")):
        fake = logits(scores / f"fake_{generator}", "enlarge:2")
        real = logits(scores / f"real_{source}", "enlarge:2+jpeg:75")
        auc = roc_auc_score([1] * 3 + [0] * 3, fake + real)
        assert table["study", "superres", generator, source] == pytest.approx(auc)
    means = {(r["format"], r["derivation"]): r for r in read(output / "means.csv")}
    for (form, derivation), row in means.items():
        own = [auc for key, auc in table.items() if key[:2] == (form, derivation)]
        assert float(row["auc"]) == pytest.approx(np.mean(own))
        drop = float(means[form, "original"]["auc"]) - float(row["auc"])
        assert float(row["drop"]) == pytest.approx(drop)
        assert float(row["low"]) <= float(row["auc"]) <= float(row["high"])
    before = np.concatenate([logits(scores / name, "none") for name in names]) > 0
    after = np.concatenate([logits(scores / name, "meme") for name in names]) > 0
    assert float(means["study", "meme"]["flipped"]) == pytest.approx((before != after).mean())
    assert "| study | screenshot |" in done.out
    assert (output / "study.png").read_bytes().startswith(b"\x89PNG")
    # The same command once more scores nothing anew, and says the same.
    saved = {path: path.read_bytes() for path in output.glob("*.csv")}
    again = cli(*words)
    assert (again.status, again.out) == (0, done.out), again.err
    assert {path: path.read_bytes() for path in output.glob("*.csv")} == saved


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = script(capsys, "study.py: ", study.main)
    assert "nosuch.csv" in cli("nosuch.csv", "--output", tmp_path / "out").complaint
    table = write_set(tmp_path, "fake_a", fake=True, seed=0)
    twice = cli(table, table, "--output", tmp_path / "out").complaint
    assert twice.startswith("study.py: CSV: expected each set once")
    assert cli(table, "--device", "cpu", "--gpu", 0, "--output", tmp_path / "out").complaint
    words = ("--set", "degrade.superres=nosuch.pth", "--output", tmp_path / "out")
    assert "nosuch.pth: expected a weight file" in cli(table, *words).complaint
    assert not (tmp_path / "out").exists()
