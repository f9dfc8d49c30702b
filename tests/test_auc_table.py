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
    assert [row[0] for row in rows[:3]] == ["a", "b", "mean of 2"]
    values = np.array([[float(value) for value in row[1:]] for row in rows[:3]])
    assert values.shape == (3, 7)
    ours = expected(scores, metric)
    np.testing.assert_allclose(values[:2, :2], ours)
    np.testing.assert_allclose(values[:2, 2], ours.mean(axis=1))
    np.testing.assert_allclose(values[2, 2], ours.mean())
    for name, column in zip([m for m in SKLEARN if m != metric], (3, 4, 5), strict=True):
        np.testing.assert_allclose(values[:2, column], expected(scores, name).mean(axis=1))
    assert title[1].endswith(", x")
    printed = done.out.splitlines()
    assert len(printed) == 8
    assert printed[2].split(" | ")[1] == f"{100 * ours[0, 0]:.2f}"


def test_a_threshold_moves_the_accuracies_alone(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray]
) -> None:
    at = [cli(tmp_path, "--threshold", x).out.splitlines()[4].split(" | ") for x in (0.5, 0.8)]
    assert at[0][:-3] == at[1][:-3]
    assert not any(one == other for one, other in zip(at[0][-3:], at[1][-3:], strict=True))


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1])
def test_the_accuracy_of_a_class_alone(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray], threshold: float
) -> None:
    done = cli(tmp_path, "--csv", tmp_path / "table.csv", "--threshold", threshold)
    title, *rows = csv.reader((tmp_path / "table.csv").open())
    assert title[-1] == "single-class accuracy"
    found = {row[0]: float(row[-1]) for row in rows}
    ours = {name: (values > threshold).mean() for name, values in scores.items()}
    assert found == pytest.approx(
        {
            "a": ours["fake_a"],
            "b": ours["fake_b"],
            "mean of 2": (ours["fake_a"] + ours["fake_b"]) / 2,
            "real x": 1 - ours["real_x"],
            "real y": 1 - ours["real_y"],
            "mean of 2 real": 1 - (ours["real_x"] + ours["real_y"]) / 2,
        }
    )
    assert all(row[1:-1] == [""] * 6 for row in rows[3:])
    assert done.out.splitlines()[5].split(" | ")[-1] == f"{100 * found['real x']:.2f} |"


def test_names_stay_in_their_cells(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "fake_a|b\nc.csv", "a.png,1,test,0.7")
    put(tmp_path / "real_x.csv", "b.png,0,test,0.2")
    lines = cli(tmp_path).out.splitlines()
    assert len(lines) == 6
    assert lines[2].startswith(r"| a\|b\nc | 100.00 |")


# --- splits


def put(path: Path, *rows: str, columns: str = "image,class,split,spai") -> None:
    path.write_text("\n".join([columns, *rows]) + "\n")


def test_pictures_of_several_splits_are_not_mixed(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "fake_a.csv", "a.png,1,test,0.9", "b.png,1,valid,0.1")
    put(tmp_path / "real_x.csv", "c.png,0,test,0.5", "d.png,0,val,0.95")
    complaint = cli(tmp_path).complaint
    assert "found test, val: choose one with --split" in complaint
    splits = ("test", "val", "validation")
    values = [cli(tmp_path, "--split", s).out.splitlines()[2].split(" | ")[1] for s in splits]
    assert values == ["100.00", "0.00", "0.00"]
    complaint = cli(tmp_path, "--split", "train").complaint
    assert "fake_a.csv: expected rows of split 'train'; found test, val" in complaint


def test_a_file_of_another_split_is_not_mixed_in(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "fake_a.csv", "a.png,1,test,0.9")
    put(tmp_path / "real_x.csv", "c.png,0,train,0.5")
    assert "found test, train" in cli(tmp_path).complaint
    assert "real_x.csv" in cli(tmp_path, "--split", "test").complaint


def test_a_split_that_is_not_stated_is_no_other(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "fake_a.csv", "a.png,1,0.9", columns="image,class,spai")
    put(tmp_path / "real_x.csv", "c.png,0,test,0.5")
    assert cli(tmp_path).status == 0
    complaint = cli(tmp_path, "--split", "test").complaint
    assert "fake_a.csv: expected rows of split 'test'; found none stated" in complaint


@pytest.mark.usefixtures("scores")
def test_what_is_no_score_is_no_tag(cli: Cli, tmp_path: Path) -> None:
    for tag in ("image", "class", "split"):
        complaint = cli(tmp_path, "--tag", tag).complaint
        assert complaint.startswith(
            f"auc_table.py: --tag: expected a column of scores; found {tag}"
        )


@pytest.mark.usefixtures("scores")
def test_pictures_without_a_score_are_counted(cli: Cli, tmp_path: Path) -> None:
    before = cli(tmp_path).out
    with (tmp_path / "fake_a.csv").open("a") as stream:
        stream.write("broken.png,1,test,\n")
    done = cli(tmp_path)
    assert done.out == before
    assert done.err == "auc_table.py: fake_a.csv: 1 pictures without a score\n"


def test_files_of_another_form_are_one_line(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray]
) -> None:
    for name, content, message in (
        ("fake_a", "image,class,split\na.png,1,test\n", "found none beside"),
        ("fake_a", "image,class,split,x,y\na.png,1,test,0.1,0.2\n", "found x, y beside"),
        ("fake_a", "image,class,split,x\na.png,0,test,0.1\n", "found '0' at 'a.png'"),
        ("real_x", "image,class,split,x\na.png,1,test,0.1\n", "expected class 0"),
        ("fake_a", "image,class,split,x\na.png,1,test,1.5\n", "found '1.5'"),
        ("fake_a", "image,class,split,x\na.png,1,test,nan\n", "found 'nan'"),
        ("fake_a", "image,class,split,x\na.png,1,test,much\n", "found 'much'"),
        ("fake_a", "image,class,split,x\na.png,1,test,\n", "expected scores in column x"),
    ):
        path = tmp_path / f"{name}.csv"
        before = path.read_text()
        path.write_text(content)
        complaint = cli(tmp_path).complaint
        assert message in complaint and f"{name}.csv" in complaint
        path.write_text(before)


@pytest.mark.usefixtures("scores")
def test_the_column_of_several_is_named(cli: Cli, tmp_path: Path) -> None:
    before = cli(tmp_path).out
    text = (tmp_path / "fake_a.csv").read_text().splitlines()
    lines = [f"{text[0]},other", *(f"{line},0.3" for line in text[1:])]
    (tmp_path / "fake_a.csv").write_text("\n".join(lines) + "\n")
    assert "--tag" in cli(tmp_path).complaint
    assert cli(tmp_path, "--tag", "spai").out == before
    assert "a column other of scores" in cli(tmp_path, "--tag", "other").complaint


@pytest.mark.usefixtures("scores")
def test_both_classes_are_needed(cli: Cli, tmp_path: Path) -> None:
    for name in ("real_x", "real_y"):
        (tmp_path / f"{name}.csv").unlink()
    assert "no real_*.csv" in cli(tmp_path).complaint


# --- files of other forms that count


def test_the_folder_by_either_name(cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray]) -> None:
    assert cli("--input_dir", tmp_path).out == cli(tmp_path).out
    for words in ((), (tmp_path, "--input_dir", tmp_path)):
        assert "DIR once" in cli(*words).complaint


def test_neither_pictures_nor_classes_are_needed(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray]
) -> None:
    """The study's tables of its combined model have the columns spai and class alone."""
    before = cli(tmp_path).out
    for name, values in scores.items():
        label = int(name.startswith("fake"))
        columns = {
            "fake_a": ("spai,class", f",{label}"),
            "real_x": ("class,spai", ""),
            "fake_b": ("spai,generator,source", ",g,s"),  # as this project's own CSV files have
        }
        header, end = columns.get(name, ("spai", ""))
        start = f"{label}," if name == "real_x" else ""
        lines = [f"{start}{value}{end}" for value in values]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    assert cli(tmp_path).out == before
    with (tmp_path / "fake_a.csv").open("a") as stream:
        stream.write("0.5,0\n")
    assert "'0' at 'row 41'" in cli(tmp_path).complaint


def test_all_csv_files_count_by_their_class(
    cli: Cli, tmp_path: Path, scores: dict[str, np.ndarray]
) -> None:
    """One that holds both classes is a generator and a source; one without a class is named."""
    before = cli(tmp_path, "--csv", tmp_path / "before.csv").out
    for old, new in (("fake_a", "a"), ("real_x", "x")):
        (tmp_path / f"{old}.csv").rename(tmp_path / f"{new}.csv")
    both = [(tmp_path / f"{name}.csv").read_text() for name in ("fake_b", "real_y")]
    for name in ("fake_b", "real_y"):
        (tmp_path / f"{name}.csv").unlink()
    (tmp_path / "both.csv").write_text(both[0] + both[1].split("\n", 1)[1])
    done = cli(tmp_path)
    cells = [line.split(" | ") for line in done.out.splitlines()]
    wanted = [line.split(" | ") for line in before.splitlines()]
    assert [row[0] for row in cells[2:4]] == ["| a", "| both"]
    # The sources are in another order: both before x.
    assert cells[2][1:3] == wanted[2][1:3][::-1] and cells[3][1:3] == wanted[3][1:3][::-1]
    assert done.err.startswith("auc_table.py: before.csv: passed over")
    put(tmp_path / "fake_both.csv", "a.png,1,test,0.7")
    assert "expected both once" in cli(tmp_path).complaint
    put(tmp_path / "c.csv", "a.png,2,test,0.7")
    assert "c.csv: expected class 0 or 1" in cli(tmp_path).complaint
