"""The table of generators against sources of real pictures, from result CSVs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Cli, script
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    roc_auc_score,
)

from scripts import auc_table

SKLEARN = {
    "auc": roc_auc_score,
    "ap": average_precision_score,
    "acc": lambda labels, scores: accuracy_score(labels, scores > 0.5),
    "bacc": lambda labels, scores: balanced_accuracy_score(labels, scores > 0.5),
}
SIZES = {"fake_a": 40, "fake_b": 25, "real_x": 30, "real_y": 50}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "auc_table.py: ", auc_table.main)


def write(
    path: Path, scores: list[str], label: int, columns: str = "image,class,split,spai"
) -> None:
    more = "," * (columns.count(",") - 3)
    rows = [f"{path.stem}/{i}.png,{label},test,{score}{more}" for i, score in enumerate(scores)]
    path.write_text("\n".join([columns, *rows]) + "\n")


@pytest.fixture
def scores(tmp_path: Path) -> dict[str, np.ndarray]:
    """Scores of each file below `tmp_path`, a third of them exactly 0 or 1."""
    rng = np.random.default_rng(0)
    found = {}
    for name, size in SIZES.items():
        values = rng.beta(2, 3, size) if name.startswith("real") else rng.beta(3, 2, size)
        found[name] = np.where(rng.random(size) < 0.3, values.round(), values)
        write(tmp_path / f"{name}.csv", list(map(str, found[name])), int(name.startswith("fake")))
    return found


def expected(scores: dict[str, np.ndarray], metric: str) -> np.ndarray:
    """(fakes, reals)."""
    table = []
    for fake in ("fake_a", "fake_b"):
        row = []
        for real in ("real_x", "real_y"):
            labels = np.repeat([1, 0], [SIZES[fake], SIZES[real]])
            row.append(SKLEARN[metric](labels, np.concatenate([scores[fake], scores[real]])))
        table.append(row)
    return np.array(table)


@pytest.mark.parametrize("metric", SKLEARN)
def test_values_are_scikit_learns(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray], metric: str
) -> None:
    done = cli(tmp_path, "--metric", metric, "--csv", tmp_path / "table.csv")
    assert done.status == 0
    title, *rows = csv.reader((tmp_path / "table.csv").open())
    assert [row[0] for row in rows] == ["a", "b", "mean of 2"]
    values = np.array([[float(value) for value in row[1:]] for row in rows])
    assert values.shape == (3, 6)
    ours = expected(scores, metric)
    np.testing.assert_allclose(values[:2, :2], ours)
    np.testing.assert_allclose(values[:2, 2], ours.mean(axis=1))
    np.testing.assert_allclose(values[2, 2], ours.mean())
    for name, column in zip([m for m in SKLEARN if m != metric], (3, 4, 5), strict=True):
        np.testing.assert_allclose(values[:2, column], expected(scores, name).mean(axis=1))
    assert title[1].endswith(", x")
    printed = done.out.splitlines()
    assert len(printed) == 5
    assert printed[2].split(" | ")[1] == f"{100 * ours[0, 0]:.2f}"


def test_a_threshold_moves_the_accuracies_alone(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray]
) -> None:
    at = [cli(tmp_path, "--threshold", x).out.splitlines()[-1].split(" | ") for x in (0.5, 0.8)]
    assert at[0][:-2] == at[1][:-2]
    assert at[0][-2] != at[1][-2]


@pytest.mark.usefixtures("scores")
def test_pictures_without_a_score_are_counted(cli: Cli, tmp_path: Path) -> None:
    before = cli(tmp_path).out
    with (tmp_path / "fake_a.csv").open("a") as stream:
        stream.write("broken.png,1,test,\n")
    done = cli(tmp_path)
    assert done.out == before
    assert done.err == "auc_table.py: fake_a.csv: 1 pictures without a score\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("fake_a", "image,class,split\na.png,1,test\n", "found none beside"),
        ("fake_a", "image,class,split,x,y\na.png,1,test,0.1,0.2\n", "found x, y beside"),
        ("fake_a", "image,class,split,x\na.png,0,test,0.1\n", "found '0' at 'a.png'"),
        ("real_x", "image,class,split,x\na.png,1,test,0.1\n", "expected class 0"),
        ("fake_a", "image,class,split,x\na.png,1,test,1.5\n", "found '1.5'"),
        ("fake_a", "image,class,split,x\na.png,1,test,nan\n", "found 'nan'"),
        ("fake_a", "image,class,split,x\na.png,1,test,much\n", "found 'much'"),
        ("fake_a", "image,class,split,x\na.png,1,test,\n", "expected scores in column x"),
    ],
)
@pytest.mark.usefixtures("scores")
def test_files_of_another_form_are_one_line(
    cli: Cli, tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / f"{name}.csv").write_text(content)
    complaint = cli(tmp_path).complaint
    assert said in complaint
    assert f"{name}.csv" in complaint


@pytest.mark.usefixtures("scores")
def test_the_column_of_several_is_named(cli: Cli, tmp_path: Path) -> None:
    before = cli(tmp_path).out
    text = (tmp_path / "fake_a.csv").read_text().splitlines()
    lines = [f"{text[0]},other", *(f"{line},0.3" for line in text[1:])]
    (tmp_path / "fake_a.csv").write_text("\n".join(lines) + "\n")
    assert "--tag" in cli(tmp_path).complaint
    assert cli(tmp_path, "--tag", "spai").out == before
    assert "column other" in cli(tmp_path, "--tag", "other").complaint


@pytest.mark.usefixtures("scores")
def test_both_classes_are_needed(cli: Cli, tmp_path: Path) -> None:
    for name in ("real_x", "real_y"):
        (tmp_path / f"{name}.csv").unlink()
    assert "no real_*.csv" in cli(tmp_path).complaint
