"""Splits, sets, epochs of an evaluation: what is measured, where results lie, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_runner import Cli, runner, write_weights
from conftest import make_tree, read_csv

FEW = ("--cache", "none", "--min_pictures", 1)


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training's folder with the weights of epochs 2 and 10."""
    folder = tmp_path_factory.mktemp("trained")
    for number in (2, 10):
        write_weights(folder / f"epoch_{number}.safetensors", seed=number)
    return folder


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    return runner(capsys, caplog, monkeypatch, *FEW, "--phase", "eval", "--device", "cpu")


def listed(file: Path, tree: Path, splits: Sequence[str] = ("",)) -> Path:
    """A CSV of a tree's pictures, whose splits are dealt out in turn to each class."""
    lines = ["image,class,split"]
    for folder, label in (("real", 0), ("fake", 1)):
        pictures = sorted(path for path in (tree / folder).rglob("*") if path.is_file())
        for number, path in enumerate(pictures):
            split = splits[number % len(splits)]
            lines.append(f"{path.relative_to(tree).as_posix()},{label},{split}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    return file


def left_out(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if "left out" in line]


# --- splits


def test_a_csv_with_several_splits_is_evaluated_on_test(
    cli: Cli, epochs: Path, tree: Path, tmp_path: Path
) -> None:
    table = listed(tmp_path / "set.csv", tree, ("train", "test", "train", ""))
    use = ("--data", table, "--csv_root", tree, "--weights", epochs / "epoch_2.safetensors")

    def scored(name: str, *words: object) -> tuple[int, list[str]]:
        done = cli(*use, *words, "--output", tmp_path / name)
        assert done.status == 0, done.err
        return len(read_csv(tmp_path / name / "scores.csv")), left_out(done.log)

    count, [line] = scored("usual")
    assert count == 6 and "6 rows of split test" in line and "18 rows of others" in line
    assert line.removeprefix("note: ") in (tmp_path / "usual" / "report.md").read_text()
    assert scored("train", "--split", "train") == (12, [])
    assert scored("all", "--split", "all") == (24, [])
    assert scored("set", "--set", "data.split=training") == (12, [])
    assert "'val'" in cli(*use, "--split", "val", "--output", tmp_path / "x").complaint


@pytest.mark.parametrize(("splits", "count"), [(("train",), 24), (("test", ""), 24), (("",), 24)])
def test_a_csv_of_one_split_is_evaluated_whole(
    cli: Cli, epochs: Path, tree: Path, tmp_path: Path, splits: tuple[str, ...], count: int
) -> None:
    table = listed(tmp_path / "set.csv", tree, splits)
    use = ("--data", table, "--csv_root", tree, "--weights", epochs / "epoch_2.safetensors")
    done = cli(*use, "--output", tmp_path / "out")
    assert done.status == 0 and left_out(done.log) == []
    assert len(read_csv(tmp_path / "out" / "scores.csv")) == count


# --- several sets, several epochs


def test_each_set_is_a_part_with_its_own_root(cli: Cli, epochs: Path, tmp_path: Path) -> None:
    """The same CSV under two roots, as of pictures and their copies, is two sets."""
    trees = [make_tree(tmp_path / name, count=2, seed=seed) for seed, name in enumerate("ab")]
    table = listed(tmp_path / "lists" / "set.csv", trees[0])
    other = listed(tmp_path / "lists" / "other.csv", trees[1])
    use = ("--weights", epochs / "epoch_2.safetensors", "--output", tmp_path / "out")
    sets = ("--test_csv", table, "--test_csv", table, other)
    roots = [word for tree in (*trees, trees[1]) for word in ("--csv_root", tree)]
    done = cli(*use, *sets, *roots)
    assert done.status == 0, done.err
    found = read_csv(tmp_path / "out" / "series.csv")
    assert [(row["folder"], row["epoch"], row["set"]) for row in found] == [
        ("set", "", "set"), ("set_2", "", "set_2"), ("other", "", "other"),
    ]  # fmt: skip
    assert {(row["real"], row["synthetic"], row["errors"]) for row in found} == {("4", "4", "0")}
    for row in found:
        folder = tmp_path / "out" / row["folder"]
        saved = json.loads((folder / "metrics.json").read_text())["pooled"]["metrics"]
        assert float(row["AUROC"]) == saved["AUROC"][0] and (folder / "report.html").is_file()
    first, second, third = (
        [line["score"] for line in read_csv(tmp_path / "out" / name / "scores.csv")]
        for name in ("set", "set_2", "other")
    )
    assert first != second == third
    assert len(done.out.splitlines()) == 4 and "| set_2 |" in (
        tmp_path / "out" / "series.md"
    ).read_text()  # fmt: skip
    assert "each set once" in cli(*use, *sets, "--csv_root", trees[0]).complaint
    assert "each of the 3" in cli(*use, *sets, *roots[:4]).complaint


def test_a_slip_in_one_set_leaves_no_folder_behind(
    cli: Cli, epochs: Path, tree: Path, tmp_path: Path
) -> None:
    table = listed(tmp_path / "set.csv", tree, ("train", "val"))
    use = ("--weights", epochs, "--epochs", "all", "--output", tmp_path / "out")
    sets = ("--csv_root", tree, "--test_csv", tree, table)
    assert "a split test" in cli(*use, *sets).complaint
    assert not (tmp_path / "out").exists()


def test_epochs_are_evaluated_each_into_its_folder(
    cli: Cli, epochs: Path, tree: Path, tmp_path: Path
) -> None:
    use = ("--weights", epochs, "--data", tree, "--output", tmp_path / "out")
    done = cli(*use, "--epochs", "all", "--tag", "mine")
    assert done.status == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine"]
    found = read_csv(tmp_path / "out" / "mine" / "series.csv")
    assert [(row["folder"], row["epoch"]) for row in found] == [
        ("epoch_2", "2"),
        ("epoch_10", "10"),
    ]
    for row in found:
        folder = tmp_path / "out" / "mine" / row["folder"]
        info = json.loads((folder / "run.json").read_text())
        assert (info["weights"]["file"], info["tag"]) == (f"{row['folder']}.safetensors", "mine")
        assert "(mine)" in (folder / "report.md").read_text().splitlines()[0]
    assert found[0]["AUROC"] != found[1]["AUROC"]
    assert json.loads((tmp_path / "out" / "mine" / "run.json").read_text())["tag"] == "mine"

    again = cli(*use, "--epochs", "2,10", "--tag", "mine", "--resume")
    assert again.status == 0 and again.out == done.out
    assert "parts" in cli(*use, "--epochs", "2", "--tag", "mine", "--resume").complaint
    assert "--resume" in cli(*use, "--epochs", "2", "--tag", "mine").complaint
    one = cli(*use, "--epochs", "2", "--tag", "mine", "--overwrite")
    assert one.status == 0 and len(read_csv(tmp_path / "out" / "mine" / "series.csv")) == 1


def test_epochs_and_sets_cross(cli: Cli, epochs: Path, tree: Path, tmp_path: Path) -> None:
    """SPAI's names of checkpoints are read; one that cannot be read costs the exit status 1."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number in (2, 10):
        shutil.copy(epochs / f"epoch_{number}.safetensors", folder)
    (folder / "ckpt_epoch_2.pth").write_bytes(b"not read: the other file of this epoch is")
    (tmp_path / "bad.csv").write_text("image,class\nnowhere.png,0\n" + f"{tree}/real/000.jpg,0\n")
    sets = ("--test_csv", tree, tmp_path / "bad.csv")
    use = ("--weights", folder, "--epochs", "10,2", *sets, "--output", tmp_path / "out")
    assert cli(*use).status == 1
    found = read_csv(tmp_path / "out" / "series.csv")
    names = [f"epoch_{number}/{name}" for number in (10, 2) for name in (tree.name, "bad")]
    assert [row["folder"] for row in found] == names
    assert [row["errors"] for row in found] == ["0", "1"] * 2
    assert found[1]["AUROC"] == "" != found[1]["accuracy_real"]
