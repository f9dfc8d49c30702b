"""The ensemble: what is averaged, what is fitted, and how it is trained and used."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Cli, runner, write_weights
from conftest import make_picture, read_csv
from models import tiny
from scipy.special import expit

from datasets import Label, Record
from detectors._ensemble_options import EnsembleOptions
from detectors._fusion import CLIP, Fusion
from detectors.ensemble import Ensemble
from engine.config import ConfigError
from engine.scoring import other_scores
from engine.training import ensemble


@pytest.fixture
def bare(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    return runner(capsys, caplog, monkeypatch, "--device", "cpu", "--detector", "ensemble")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """--set words for an ensemble of two detectors with small weights of different seeds."""
    folder = tmp_path_factory.mktemp("members")
    first = write_weights(folder / "a.safetensors", "default", seed=1)
    second = write_weights(folder / "b.safetensors", "ssp_baseline", seed=2)
    return (
        "--set", "ensemble.members=[default,ssp_baseline]",
        "--set", f"ensemble.weights=['{first}','{second}']",
    )  # fmt: skip


def labelled(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits of a good member on a wide scale and of a poor one on a narrow one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    good = 20 * (labels - 0.5) + rng.normal(0, 10, count) + 5
    poor = 0.1 * (labels - 0.5) + rng.normal(0, 0.2, count)
    return labels, np.stack([good, poor], axis=1)


def grouped(labels: np.ndarray) -> list[str]:
    """Four generators and four sources."""
    return [f"{label} {number % 4}" for number, label in enumerate(labels)]


def test_it_starts_as_the_average_of_its_members() -> None:
    parts = [tiny("default"), tiny("ssp"), tiny("spai")]
    options = EnsembleOptions(members=("default", "ssp", "spai"))
    model = Ensemble(options, parts).eval()
    transform = model.transform(train=False)
    pictures = [make_picture(i, fake=bool(i), size=(300, 260)) for i in range(2)]
    batch = model.collate([transform(p, np.random.default_rng(0)) for p in pictures])
    with torch.inference_mode():
        logits = model.member_logits(batch)
        assert logits.shape == (2, 3)
        for column, part, own in zip(logits.T, parts, batch, strict=True):
            torch.testing.assert_close(column, part(own))
        mean = logits.double().sigmoid().clamp(CLIP, 1 - CLIP).mean(dim=1)
        expected = mean.logit().float()
        torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-5)


def test_one_saturated_member_does_not_decide() -> None:
    sure, doubtful = 80.0, -2.0
    logits = torch.tensor([[sure, doubtful, doubtful], [-sure, 0.5, 3.0], [sure, sure, sure]])
    found = Fusion(3, "average")(logits).detach()
    assert (found > 0).tolist() == [False, True, True]
    assert found[2] == pytest.approx(math.log(999), abs=1e-4)


def test_average_is_the_mean_of_calibrated_probabilities() -> None:
    labels, logits = labelled()
    groups = grouped(labels)
    found = ensemble.fit(labels, logits, groups, "average")
    singles = [ensemble.fit(labels, logits[:, [k]], groups, "average") for k in range(2)]
    calibrated = [expit(ensemble.fused(f, logits[:, [k]])) for k, f in enumerate(singles)]
    mean = expit(ensemble.fused(found, logits))
    np.testing.assert_allclose(mean, np.mean(calibrated, axis=0), atol=1e-5)
    # On its wide scale the good member would drown the other; calibrated they are comparable.
    assert found.slope[0] < 0.2 * found.slope[1]


def test_fusion_leans_on_the_better_member() -> None:
    labels, logits = labelled()
    fitted = ensemble.fit(labels, logits, grouped(labels), "fitted")
    assert fitted.fc is not None
    spread = fitted.calibrated(torch.from_numpy(logits).float()).std(dim=0)
    shares = (fitted.fc.weight[0].abs() * spread).tolist()
    assert shares[0] > 2 * shares[1]
    right = ((ensemble.fused(fitted, logits) > 0) == (labels == 1)).mean()
    assert right >= ((logits[:, 0] > 5) == (labels == 1)).mean() - 0.01


def test_a_member_that_is_upside_down_cannot_be_averaged() -> None:
    labels, logits = labelled()
    with pytest.raises(ValueError, match="higher logits on synthetic"):
        ensemble.fit(labels, -logits, grouped(labels), "average")
    turned = ensemble.fit(labels, -logits, grouped(labels), "fitted")
    assert ((ensemble.fused(turned, -logits) > 0) == (labels == 1)).mean() > 0.8


def test_folds_leave_out_whole_generators() -> None:
    labels = np.array([0] * 30 + [1] * 50)
    groups = ["camera"] * 30 + [f"generator {i % 7}" for i in range(50)]
    found = ensemble.folds(labels, groups)
    assert set(found) == set(range(5))
    for name in set(groups[30:]):
        assert len({f for f, group in zip(found, groups, strict=True) if group == name}) == 1
    for fold in range(5):
        assert set(labels[found == fold]) == {0, 1}, "one source of reals is divided by pictures"
    with pytest.raises(ValueError, match="two pictures of each class"):
        ensemble.folds(labels[29:], groups[29:])


def test_cross_fitting_does_not_see_the_generator_that_it_judges() -> None:
    """A member that knows generators by heart: what it says of one left out is worth nothing."""
    labels = np.array([0] * 200 + [1] * 200)
    groups = [f"{label} {i % 4}" for i, label in enumerate(labels)]
    rng = np.random.default_rng(0)
    logits = 4 * (labels[:, None] - 0.5) + rng.normal(0, 1, (400, 1))
    logits[np.array(groups) == "1 3"] = -5.0
    found = ensemble.cross_fitted(labels, logits, groups, "average")
    again = np.array(groups) == "1 3"
    rest = ensemble.fit(labels[~again], logits[~again], grouped(labels[~again]), "average")
    assert (found[again] < 0).all()
    assert found[again][0] == pytest.approx(ensemble.fused(rest, logits[again])[0], abs=0.5)


def test_plain_average_on_the_command_line(bare: Cli, members: tuple[str, ...], tree: Path) -> None:
    done = bare(*members, "--input", tree / "real", "--json")
    assert (done.status, len(done.rows)) == (0, 12)
    assert any("probabilities are averaged as they are" in line for line in done.log)
    assert done.rows[0]["weights"] == "a.safetensors+b.safetensors"
    unfitted = bare(*members, "--set", "ensemble.fusion=fitted", "--input", tree / "real")
    assert "ensemble.fusion=fitted: expected --weights" in unfitted.complaint
    logits = []
    for name, path in zip(("default", "ssp_baseline"), members[3].split("'")[1::2], strict=True):
        alone = bare("--detector", name, "--weights", path, "--input", tree / "real", "--json")
        logits.append([row["logit"] for row in alone.rows])
    mean = expit(np.array(logits)).clip(CLIP, 1 - CLIP).mean(axis=0)
    expected = np.log(mean / (1 - mean))
    assert [row["logit"] for row in done.rows] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("fusion", ["average", "fitted"])
def test_training_fits_and_the_file_remembers_its_members(
    bare: Cli, members: tuple[str, ...], tree: Path, tmp_path: Path, fusion: str
) -> None:
    output = tmp_path / "run"
    command = (
        *members, "--set", f"ensemble.fusion={fusion}", "--set", "data.val_fraction=0.4",
        "--phase", "train", "--data", tree, "--output", output, "--workers", 0,
    )  # fmt: skip
    done = bare(*command)
    if done.status == 2:
        # Random members may rank the wrong way round, which only the average minds.
        assert fusion == "average"
        assert "higher logits on synthetic" in done.err
        return
    assert done.status == 0, done.err
    assert "| Ensemble |" in done.out
    honest = json.loads((output / "run.json").read_text())["cross_fitted"]
    assert (honest is None) != ("generators left out in fitting" in done.out)
    tables = [output / "scores_0_default.csv", output / "scores_1_ssp_baseline.csv"]
    assert all(len(read_csv(t)) == 24 for t in tables)
    again = bare(*command, "--resume")
    assert again.out == done.out
    assert any("24 of 24 pictures were scored before" in line for line in again.log)
    assert bare(*command).status == 2

    best = output / "best.safetensors"
    scored = bare("--weights", best, "--input", tree / "real", "--json")
    assert (scored.status, len(scored.rows)) == (0, 12)
    assert {row["weights"] for row in scored.rows} == {"best.safetensors"}
    fitted = json.loads((output / "run.json").read_text())
    assert [m["detector"] for m in fitted["members"]] == ["default", "ssp_baseline"]
    swapped = members[3].split("'")
    other = write_weights(tmp_path / "other.safetensors", "default", seed=9)
    wrong = bare(
        "--weights", best, "--input", tree / "real",
        "--set", f"ensemble.weights=['{other}','{swapped[3]}']",
    ).complaint  # fmt: skip
    assert "fitted with other weights" in wrong
    assert fitted["members"][0]["options"]["views"] == 1
    single = ("--weights", best, "--input", tree / "real", "--set", "default.views=5")
    assert "fitted with default.views=1; found 5" in bare(*single).complaint


def test_a_resumed_run_has_the_same_members(
    bare: Cli, members: tuple[str, ...], tree: Path, tmp_path: Path
) -> None:
    command = (*members, "--input", tree / "real", "--output", tmp_path / "out")
    assert bare(*command).status == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [m["options"].get("views") for m in run["weights"]["members"]] == [1, None]
    assert "weights" in bare(*command, "--resume", "--set", "default.views=5").complaint
    assert bare(*command, "--resume").status == 0


# --- members that are missing, and members of other programs


def test_a_missing_logit_is_left_out() -> None:
    """Of the mean; a fitted layer hears neither yes nor no. All missing: no number."""
    logits = torch.tensor([[2.0, torch.nan, -1.0], [torch.nan] * 3])
    for kind in ("average", "fitted"):
        found = Fusion(3, kind)(logits).detach()
        assert found[1].isnan()
        both = torch.tensor([2.0, -1.0])
        wanted = both.sigmoid().mean().logit() if kind == "average" else both.sum() / 3
        assert found[0] == pytest.approx(float(wanted), abs=1e-5)


def other_program(tree: Path, path: Path, without: int = 0) -> Path:
    """A CSV with scores that know the labels, but for the first pictures."""
    files = sorted(file for file in tree.rglob("*") if file.is_file())
    lines = [f"{file.resolve()},{0.9 if 'fake' in file.parts else 0.2}" for file in files[without:]]
    path.write_text("\n".join(["image,score", *lines, ""]))
    return path


def test_other_programs_scores_are_members(
    bare: Cli, members: tuple[str, ...], tree: Path, tmp_path: Path
) -> None:
    """Fitted to them in phase train, averaged with them in eval, refused in test."""
    file = other_program(tree, tmp_path / "other.csv", without=2)
    scores = ("--set", f"ensemble.scores=['{file}']")
    output = tmp_path / "eval"
    evaluate = ("--phase", "eval", "--data", tree, "--output", output, *members, *scores)
    done = bare(*evaluate, "--set", "score.resamples=20")
    assert done.status == 0, done.err
    alone = bare(*members, "--input", tree, "--json")
    of_two = {Path(row["path"]).name: row for row in alone.rows if "real" in row["path"]}
    rows = {row["key"]: float(row["score"]) for row in read_csv(output / "scores.csv")}
    real = {Path(key).name: score for key, score in rows.items() if key.startswith("real")}
    for name, row in of_two.items():
        with_it = (2 * row["score"] + 0.2) / 3
        assert real[name] == pytest.approx(with_it, abs=2e-3)
    refused = bare(*evaluate, "--degrade", "flip", "--overwrite").complaint
    assert "ensemble.scores" in refused and "flip" in refused
    assert "ensemble.scores" in bare(*members, *scores, "--input", tree).complaint
    fit = bare(
        *("--phase", "train", "--data", tree, "--output", tmp_path / "fit", *members, *scores),
        *("--set", "ensemble.fusion=fitted"),
    )
    assert fit.status == 0, fit.err
    assert "other.csv" in fit.out
    (tmp_path / "empty.csv").write_text("image,score\n")
    wrong = ("--set", f"ensemble.scores=['{tmp_path / 'empty.csv'}']")
    assert "found none" in bare(*evaluate[:-1], wrong[1], "--overwrite").complaint


def test_a_run_of_this_program_may_be_a_member(tmp_path: Path) -> None:
    """Its scores.csv has sums of files, and rows of degraded pictures: names count, and pictures as
    they are. Two scores of one picture are refused, whichever comes last."""
    records = [Record(key, tmp_path / key, Label.REAL) for key in ("a.png", "b.png")]
    file = tmp_path / "scores.csv"
    lines = ["digest,key,degradation,logit", "12,a.png,none,1", "12,a.png,flip,2", "34,b.png,,3"]
    file.write_text("\n".join([*lines, ""]))
    assert other_scores.logits(file, records) == {"a.png": 1, "b.png": 3}
    file.write_text("\n".join([*lines, "12,a.png,none,4", ""]))
    with pytest.raises(ConfigError, match=r"a\.png"):
        other_scores.logits(file, records)


def test_a_member_without_weights_may_be_left_out(
    bare: Cli, members: tuple[str, ...], tree: Path
) -> None:
    first = members[-1].split("'")[1]
    sets = (
        *("--set", "ensemble.members=[default,npr]"),
        *("--set", f"ensemble.weights=['{first}',npr]"),
    )
    assert "npr" in bare(*sets, "--input", tree).complaint
    done = bare(*sets, "--set", "ensemble.missing=leave_out", "--input", tree, "--json")
    assert (done.status, len(done.rows)) == (0, 24)
    assert any("npr is left out" in line for line in done.log)
