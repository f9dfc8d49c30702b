"""SSP's table: the rows of runs, their averages, and what stands beside published figures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from cli_runner import Cli, runner, script, write_weights
from trees import write_tree

from engine.evaluation import benchmark as benchmarks
from engine.reporting import drawing
from engine.weights import manifest
from engine.weights.cards import Card
from engine.weights.files import read_weights, save_weights
from scripts import ssp_table

SUBSETS = benchmarks.load("genimage").generators


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
         monkeypatch: pytest.MonkeyPatch) -> Cli:  # fmt: skip
    return runner(capsys, caplog, monkeypatch, "--device", "cpu")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return script(capsys, "ssp_table.py: ", ssp_table.main)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what several tests look at."""
    return tmp_path_factory.mktemp("kept")


def evaluated(main: Cli, folder: Path, detector: str, subset: str) -> Path:
    """An evaluation of random weights whose card says that they learnt from a subset; made once."""
    output = folder / f"run_{detector}_{subset}"
    if output.exists():
        return output
    tree = write_tree("genimage", folder / f"tree_{detector}").root
    next(tree.glob("*_adm/val/ai/*")).write_bytes(b"weighs nothing, as it has no score")
    weights = write_weights(folder / f"{detector}_{subset}.safetensors", detector)
    state, card = read_weights(weights)
    assert card is not None
    save_weights(weights, state, Card(card.detector, card.options, extra={"trained_on": [subset]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "png", lambda figure: b"not looked at")
        done = main("--phase", "eval", "--detector", detector, "--weights", weights,
                    "--benchmark", "genimage", "--data_root", tree, "--output", output,
                    "--set", "score.resamples=2")  # fmt: skip
    assert done.status in (0, 1), done.err
    return output


def as_published(run: Path, name: str) -> None:
    """Makes the options in a run's run.json those of published figures."""
    figures, info = benchmarks.load("genimage").published[name], run / "run.json"
    content = json.loads(info.read_text())
    content["config"][figures.detector].update(figures.options)
    info.write_text(json.dumps(content))


def test_a_table_of_runs(main: Cli, cli: Cli, kept: Path, tmp_path: Path) -> None:
    ssp = shutil.copytree(evaluated(main, kept, "ssp", "sdv4"), tmp_path / "ssp")
    base = evaluated(main, kept, "ssp_baseline", "adm")
    as_published(ssp, "ssp-sdv4")
    done = cli(ssp, base, "--output", tmp_path / "table")
    assert done.status == 0, done.err
    rows = list(csv.DictReader((tmp_path / "table" / "table.csv").open()))
    mine = {r["tested_on"]: r for r in rows if r["detector"] == "ssp"}
    assert set(mine) == {*SUBSETS, "average"}
    # The miniature has two pictures of a class, the published figures are over 6,000.
    other = "reported, other pictures"
    assert mine["adm"][other] == "87.4" and mine["average"][other] == "93.5"
    assert not any(row["reported"] for row in rows)
    # Nothing was published of the baseline with other options.
    assert not any(row[other] for row in rows if row["detector"] == "ssp_baseline")
    result = json.loads((ssp / "result.json").read_text())
    cells = {name: cell for part in result.values() for name, cell in part.items()}
    for name in SUBSETS:
        assert float(mine[name]["accuracy"]) == pytest.approx(
            100 * cells[name]["Accuracy"], abs=1e-3
        )
    whole = sum(cell["size"] for cell in cells.values())
    right = sum(cell["size"] * cell["Accuracy"] for cell in cells.values())
    assert float(mine["average"]["accuracy"]) == pytest.approx(100 * right / whole, abs=1e-3)
    assert f"| adm | {cell_of(base, 'midjourney')} / – |" in done.out
    assert (tmp_path / "table" / "table.png").read_bytes().startswith(b"\x89PNG")


def test_averages_are_those_of_the_published_table() -> None:
    accuracy, pictures = {"adm": 90.0, "glide": 60.0}, {"adm": 1, "glide": 2}
    published = {"adm": 91.0, "glide": 61.0, "average": 76.0}
    rows = {
        name: ssp_table.Results(
            name, "adm", accuracy, pictures, published, frozenset({"glide", "average"})
        )
        for name in ("ssp", "ssp_baseline")
    }
    assert {name: found.row()["average"] for name, found in rows.items()} == {
        "ssp": 70.0, "ssp_baseline": 75.0
    }  # fmt: skip
    assert list(ssp_table.csv_rows([rows["ssp"]])) == [
        ["ssp", "adm", "adm", 90.0, 91.0, None],
        ["ssp", "adm", "glide", 60.0, None, 61.0],
        ["ssp", "adm", "average", 70.0, None, 76.0],
    ]


def cell_of(run: Path, subset: str) -> str:
    """A run's accuracy on a subset, as the table prints it."""
    result = json.loads((run / "result.json").read_text())
    return (
        f"{100 * next(part[subset] for part in result.values() if subset in part)['Accuracy']:.1f}"
    )


def test_other_runs_are_refused(main: Cli, cli: Cli, kept: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated(main, kept, "ssp", "sdv4"), tmp_path / "ssp")
    assert "ssp on sdv4; found two" in cli(run, run).complaint
    info = json.loads((run / "run.json").read_text())
    for key, value, said in (
        ("trained_on", [], "none named"),
        ("protocol", "matched", "by matched"),
        ("benchmark", "drct2m", "on drct2m"),
    ):
        (run / "run.json").write_text(json.dumps({**info, key: value}))
        assert said in cli(run).complaint
    assert "run.json" in cli(tmp_path).complaint


def test_published_figures_follow_what_the_weights_learnt_from(main: Cli, kept: Path) -> None:
    run = evaluated(main, kept, "ssp_baseline", "adm")
    assert json.loads((run / "run.json").read_text())["trained_on"] == ["adm"]
    for name, figures in benchmarks.load("genimage").published.items():
        assert name == f"{figures.detector}-{figures.trained_on[0]}"
        if figures.detector == "ssp":
            assert manifest.entry_named(name).trained_on == figures.trained_on
    run_of = benchmarks.Measurement("ssp", None, "none", trained_on=("adm",))
    assert "trained on" not in str(benchmarks.comparable(benchmarks.load("genimage"), run_of))
    _, why = benchmarks.comparable(benchmarks.load("genimage"), run_of, "ssp-sdv4")
    assert "a training on sdv4, these of one on adm" in why[0]
