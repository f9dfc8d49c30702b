"""A threshold from one's own real pictures; probabilities for another share of generated ones."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_runner import Cli, cli, script, write_weights
from conftest import make_picture, make_tree, read_csv
from scipy.stats import beta

from engine.config import ConfigError
from engine.evaluation.comparison import read_run
from engine.scoring.own_threshold import Measured, choose, needed, own_band
from engine.scoring.probability import calibrated, sigmoid
from scripts import own_threshold

__all__ = ["cli"]  # a fixture

BAND, REALS = (0.3, 0.6), 60


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_weights(path, band=BAND, seed=3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of REALS real pictures. Do not change the files."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(REALS):
        make_picture(number, fake=False).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def own(capsys: pytest.CaptureFixture[str], weights: Path) -> Cli:
    """scripts/own_threshold.py with the module's weights."""
    run = script(capsys, "own_threshold.py: ", own_threshold.main)
    return lambda *words: run(*words, "--weights", weights, "--device", "cpu", "--workers", 0)


# --- the choice


@pytest.mark.parametrize(
    ("n", "rate", "above"), [(99, 0.01, 0), (198, 0.01, 0), (199, 0.01, 1), (60, 0.05, 2)]
)
def test_a_new_picture_exceeds_it_no_oftener_than_asked(n: int, rate: float, above: int) -> None:
    rng = np.random.default_rng(n)
    logits = rng.normal(size=n).tolist()
    found = choose(logits, rate)
    assert (found.above, found.pictures) == (above, n)
    below = sum(sigmoid(value) <= found.threshold for value in logits)
    assert below == n - above  # of the scores before rounding, too
    drawn = rng.normal(size=(1000, n)).tolist()
    # Of the law itself: 1 - its distribution function at the threshold, a mean over draws.
    limits = np.array([math.log(t / (1 - t)) for t in (choose(d, rate).threshold for d in drawn)])
    alarms = [0.5 * math.erfc(limit / math.sqrt(2)) for limit in limits]
    assert np.mean(alarms) == pytest.approx((above + 1) / (n + 1), rel=0.1)
    low, high = found.interval()
    assert np.mean([low <= alarm <= high for alarm in alarms]) >= 0.94
    assert high == pytest.approx(beta.ppf(0.975, above + 1, n - above))


def test_ties_and_saturated_scores_are_no_false_alarms() -> None:
    assert choose([1.5] * 60, 0.05).above == 0
    assert choose([50.0] * 60, 0.05).threshold == 1
    assert Measured(0.5, 0, 99).interval() == pytest.approx((0, 1 - 0.025 ** (1 / 99)))


def test_how_many_pictures_it_takes() -> None:
    assert [needed(rate) for rate in (0.5, 0.02, 0.01, 0.003)] == [50, 50, 99, 333]
    with pytest.raises(ConfigError, match=r"333.*332"):
        choose([0.0] * 332, 0.003)
    assert choose([0.0] * 333, 0.003).pictures == 333


def test_the_band_ends_at_the_threshold() -> None:
    assert own_band(0.9, (0.3, 0.6)) == (0.3, 0.9)
    assert own_band(0.2, (0.3, 0.6)) == (0.2, 0.2)
    assert own_band(0.2, None) is None


# --- the script, and what reads its file


def test_the_file_keeps_to_the_rate(own: Cli, cli: Cli, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    done = own(photos, "--false_alarms", 0.05, "--output", file)
    assert (done.status, done.out) == (0, f"{file}\n"), done.err
    printed = own(photos, "--false_alarms", 0.05).out
    assert file.read_text() == printed
    values = yaml.safe_load(printed)
    assert values["pictures"] == {"scored": REALS, "copies": 0, "unreadable": 0}
    assert values["false_alarms"]["asked"] == 0.05
    assert values["false_alarms"]["measured"] == pytest.approx(2 / 60, abs=1e-6)
    assert values["options"].items() >= {"default.crop": 48, "default.views": 1}.items()
    rows = cli("--json", "--threshold", file, photos).rows
    scores = sorted(row["score"] for row in rows)
    assert values["threshold"] == pytest.approx(scores[-3], abs=1.1e-6)
    assert {row["threshold"] for row in rows} == {values["threshold"]}
    assert {tuple(row["band"]) for row in rows} == {
        (min(BAND[0], values["threshold"]), values["threshold"])
    }
    assert sum(row["label"] == "synthetic" for row in rows) == 2
    output = tmp_path / "run"
    assert cli("--threshold", file, photos, "--output", output).status == 0
    info = json.loads((output / "run.json").read_text())
    assert (info["threshold"], info["band"]) == (values["threshold"], values["band"])


def test_phase_eval_reads_it(own: Cli, cli: Cli, photos: Path, tmp_path: Path) -> None:
    file, data, output = tmp_path / "own.yaml", tmp_path / "data", tmp_path / "eval"
    make_tree(data, count=2)
    shutil.rmtree(data / "real")
    shutil.copytree(photos, data / "real")
    assert own(photos, "--false_alarms", 0.05, "--output", file).status == 0
    done = cli("--phase", "eval", "--data", data, "--threshold", file, "--output", output)
    assert done.status == 0, done.err
    threshold = yaml.safe_load(file.read_text())["threshold"]
    assert json.loads((output / "run.json").read_text())["threshold"] == threshold
    found = json.loads((output / "metrics.json").read_text())
    assert found["threshold"] == threshold


def test_unreadable_pictures_and_copies_are_counted(own: Cli, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.png").write_bytes(b"no picture")
    shutil.copy(folder / "000.png", folder / "copy.png")
    done = own(folder, "--false_alarms", 0.05)
    assert done.status == 1 and "broken.png" in done.err
    assert yaml.safe_load(done.out)["pictures"] == {"scored": 60, "copies": 1, "unreadable": 1}


def test_too_few_pictures_are_refused(own: Cli, photos: Path, tmp_path: Path) -> None:
    assert "99" in own(photos, "--false_alarms", 0.01).complaint
    few = [photos / f"{number:03}.png" for number in range(49)]
    assert "50" in own(*few, "--false_alarms", 0.2).complaint
    (tmp_path / "broken.png").write_bytes(b"no picture")
    done = own(*few, few[0], tmp_path / "broken.png", "--false_alarms", 0.2)
    assert done.status == 2 and not done.out and "found 49" in done.err.splitlines()[-1]


def test_generated_pictures_are_refused(own: Cli, tree: Path) -> None:
    assert "synthetic" in own(tree, "--false_alarms", 0.2).complaint


def test_a_file_is_not_replaced_unasked(own: Cli, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("mine")
    words = (photos, "--false_alarms", 0.05, "--output", file)
    assert "--overwrite" in own(*words).complaint and file.read_text() == "mine"
    assert own(*words, "--overwrite").status == 0 and "threshold" in file.read_text()
    assert ".yaml" in own(*words[:-1], tmp_path / "own.png").complaint


def test_a_file_serves_what_it_was_made_with(
    own: Cli, cli: Cli, photos: Path, pictures: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    assert own(photos, "--false_alarms", 0.05, "--output", file).status == 0
    other = write_weights(tmp_path / "o.safetensors", seed=1)
    use = ("--threshold", file, pictures[0])
    assert "o.safetensors" in cli("--weights", other, *use).complaint
    assert "default.views" in cli("--set", "default.views=5", *use).complaint
    assert "data.decoding" in cli("--set", "data.decoding=published", *use).complaint
    assert "--prevalence" in cli("--prevalence", 0.1, *use).complaint
    assert "ssp" in cli("--detector", "ssp", *use).complaint


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 2.0}, {"threshold": "high"}, {"threshold": True}, {"band": [0.9, 0.1]},
        {"band": [0.5]}, {"band": 3}, {"band": [0.0, 0.9]}, {"weights": 5}, {"options": []},
        {"threshold": math.nan}, {"detector": None},
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_one_line(
    changes: dict[str, object], cli: Cli, pictures: list[Path], tmp_path: Path
) -> None:
    good = {"threshold": 0.7, "band": [0.2, 0.7], "detector": "x", "weights": "y", "options": {}}
    for values in (good | changes, {k: v for k, v in good.items() if k not in changes}, []):
        file = tmp_path / "other.yaml"
        file.write_text(yaml.safe_dump(values))
        complaint = cli("--threshold", file, pictures[0]).complaint
        assert "--threshold" in complaint and "scripts/own_threshold.py" in complaint


# --- another share of generated pictures


def test_prevalence_restates_the_probability(cli: Cli, tree: Path, tmp_path: Path) -> None:
    usual, rare = cli("--json", tree).rows, cli("--json", "--prevalence", 0.1, tree).rows
    for before, after in zip(usual, rare, strict=True):
        odds = before["score"] / (1 - before["score"]) / 9
        assert after["score"] == pytest.approx(odds / (1 + odds), abs=5e-6)
        assert after["logit"] == pytest.approx(before["logit"] - math.log(9), abs=1e-6)
        assert (after["threshold"], after["band"]) == (0.5, list(BAND))
        low, high = BAND
        score = after["score"]
        words = "real" if score < low else "uncertain" if score <= high else "synthetic"
        assert after["label"] == words
        assert (before["prevalence"], after["prevalence"]) == (0.5, 0.1)
    assert [row["label"] for row in usual] != [row["label"] for row in rare]
    assert cli("--prevalence", 0.5, "--json", tree).rows == usual
    asked = cli("--prevalence", 0.1, "--json", stdin=f"{usual[0]['path']}\n".encode())
    [at_prompt] = asked.rows
    assert at_prompt["score"] == pytest.approx(rare[0]["score"], abs=1e-5)


def test_a_run_goes_on_with_its_prevalence(cli: Cli, tree: Path, tmp_path: Path) -> None:
    words = (tree, "--output", tmp_path / "run")
    assert cli(*words, "--prevalence", 0.1).status == 0
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["prevalence"] == 0.1
    assert "prevalence" in cli(*words, "--prevalence", 0.2, "--resume").complaint
    assert cli(*words, "--prevalence", 0.1, "--resume").status == 0


def test_eval_keeps_scores_as_they_are(cli: Cli, tree: Path, tmp_path: Path) -> None:
    tables, infos, found = [], [], []
    for name, more in (("usual", ()), ("rare", ("--prevalence", 0.1))):
        output = tmp_path / name
        assert cli("--phase", "eval", "--data", tree, "--output", output, *more).status == 0
        tables.append(read_csv(output / "scores.csv"))
        infos.append(json.loads((output / "run.json").read_text()))
        found.append(json.loads((output / "result.json").read_text())[""]["gan"])
    assert tables[0] == tables[1]
    assert infos[1]["counts"]["reused"] == 24
    assert [info["prevalence"] for info in infos] == [0.5, 0.1]
    assert found[0]["AP"] == found[1]["AP"]
    rows = [row for row in tables[0] if row["generator"] in ("", "gan")]
    for cell, limit in zip(found, (0.5, 0.9), strict=True):
        right = [(float(row["score"]) > limit) == (row["label"] == "1") for row in rows]
        assert cell["Accuracy"] == pytest.approx(np.mean(right))
    assert calibrated(0.5, 0.1) == pytest.approx(0.9)
    usual, rare = (read_run(tmp_path / name).rows for name in ("usual", "rare"))
    shifts = {round(rare[key].logit - row.logit, 4) for key, row in usual.items()}
    assert shifts == {round(-math.log(9), 4)}  # what --compare reads
    output = tmp_path / "rare"
    words = ("--phase", "eval", "--data", tree, "--output", output, "--resume")
    assert "prevalence" in cli(*words).complaint
