"""The cluster bootstrap, AUROC by source of real pictures, and generators of few pictures."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as reference

from engine.evaluation import analysis, bootstrap, estimates, metrics
from engine.evaluation import clusters as _clusters
from engine.evaluation.analysis import View
from engine.evaluation.benchmark_file import Published
from engine.evaluation.cells import by_cell
from engine.reporting import report, results
from engine.reporting.tables import percent
from engine.scoring.table import ScoreRow


def row(label: int, logit: float, source: str, generator: str, key: str) -> ScoreRow:
    score = 1 / (1 + math.exp(-logit))
    return ScoreRow(key, source, generator, label, logit, score, "", "none", 8, 8)


def table(
    rng: np.random.Generator, generators: int, sources: int, n: int, spread: float = 0.7
) -> list[ScoreRow]:
    """`n` pictures of each; every generator and source has a mean of its own around 1.2 and 0."""
    rows = []
    for label, prefix, count in ((1, "g", generators), (0, "s", sources)):
        for place in range(count):
            centre = rng.normal(1.2 * label, spread)
            for i, logit in enumerate(rng.normal(centre, 1.0, n)):
                name = f"{prefix}{place}"
                source, generator = ("", name) if label else (name, "")
                rows.append(row(label, float(logit), source, generator, f"{name}/{i}"))
    return rows


def groups(rows: list[ScoreRow], label: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for each in rows:
        if each.label == label:
            found.setdefault(each.generator or each.source, []).append(each.logit or 0.0)
    return found


def plain_bootstrap(rows: list[ScoreRow], resamples: int) -> np.ndarray:
    """AUROC, AP and accuracy of resamples of clusters, by loops."""
    rng = np.random.default_rng(5)
    values = []
    for _ in range(resamples):
        logits: list[float] = []
        labels: list[int] = []
        for label in (0, 1):
            clusters = list(groups(rows, label).values())
            for place in rng.integers(len(clusters), size=len(clusters)):
                logits += rng.choice(clusters[place], len(clusters[place])).tolist()
                labels += [label] * len(clusters[place])
        right = (np.array(logits) > 0) == np.array(labels)
        values.append(
            (
                reference.roc_auc_score(labels, logits),
                reference.average_precision_score(labels, logits),
                right.mean(),
            )
        )
    return np.array(values)


@pytest.mark.slow
def test_the_cluster_bootstrap_equals_a_plain_loop() -> None:
    rows = table(np.random.default_rng(1), 8, 6, 10)
    uneven = [each for i, each in enumerate(rows) if not each.key.startswith("g0/") or i < 3]
    found = _clusters.samples(uneven, 0.5, 3000, 0)
    expected = np.quantile(plain_bootstrap(uneven, 1500), [0.1, 0.5, 0.9], axis=0)
    for place, name in enumerate(("AUROC", "AP", "accuracy")):
        ours = np.quantile(found[name], [0.1, 0.5, 0.9])
        assert ours == pytest.approx(expected[:, place], abs=0.012), name


def test_every_metric_of_a_resample_is_that_of_its_pictures() -> None:
    """Resamples of clusters have classes of varying sizes, which every metric must divide by."""
    rng = np.random.default_rng(2)
    synthetic, logits = np.array([False] * 7 + [True] * 9), np.round(rng.normal(size=16), 1)
    ranking = bootstrap.rank(synthetic, logits)
    counts = rng.integers(0, 3, size=(6, 16))
    counts[:, [0, 7]] += 1
    width = ranking.thresholds.size
    both = [
        np.array([np.bincount(places, each[chosen], width) for each in counts]).astype(np.int64)
        for chosen, places in ((synthetic, ranking.fakes), (~synthetic, ranking.reals))
    ]
    samples = bootstrap.samples_of(ranking, both[0], both[1])
    found = bootstrap.statistics(samples, int((ranking.thresholds > 0).sum()))
    for place, each in enumerate(counts):
        drawn = np.repeat(np.arange(16), each)
        labels = synthetic[drawn].astype(int)
        expected = metrics.evaluate(labels, logits[drawn], 0.5, 0)
        for name in estimates.METRICS:
            assert found[name][place] == pytest.approx(expected[name].value), name


@pytest.mark.slow
def test_intervals_over_clusters_cover_what_those_over_pictures_miss() -> None:
    rng = np.random.default_rng(0)
    true = 0.5 * (1 + math.erf(1.2 / math.sqrt(4 * (1 + 0.7**2))))
    covered = dict.fromkeys(("pictures", "clusters", "mean"), 0)
    for seed in range(40):
        rows = table(rng, 15, 15, 8)
        measured = metrics.evaluate_rows(rows, 0.5, 150, seed)
        cells = by_cell(rows)
        mean = _clusters.mean_samples(cells, False, 0.5, 150, seed)["generators"]["AUROC"]
        for name, (low, high) in {
            "pictures": measured["AUROC"][1:],
            "clusters": _clusters.intervals(rows, measured, 0.5, 150, seed)["AUROC"][1:],
            "mean": np.quantile(mean, [0.025, 0.975]),
        }.items():
            covered[name] += low <= true <= high
    assert covered["clusters"] >= 35 and covered["mean"] >= 35 and covered["pictures"] <= 31


def test_the_mean_over_generators_is_resampled_with_its_generators() -> None:
    rows = table(np.random.default_rng(3), 12, 7, 12, 2.0)
    found = analysis.analyse(rows, 0.5, 200)
    mean = found.headline
    estimate = mean.estimates["AUROC"]
    assert mean.kind == "generators" and estimate.value == mean.values["AUROC"]
    # With generators and sources alike in all, there is little left but the pictures' own noise.
    alike = analysis.analyse(table(np.random.default_rng(3), 12, 7, 12, 0.0), 0.5, 200)
    narrow = alike.headline.estimates["AUROC"]
    assert narrow.high - narrow.low < 0.7 * (estimate.high - estimate.low)
    assert analysis.analyse(rows, 0.5, 200).headline == mean
    line = next(x for x in report.summary_text(rows, 0.5, found).splitlines() if "(headline)" in x)
    assert percent(estimate) in line


def test_crossed_cells_are_resampled_by_generator_and_by_source() -> None:
    values = {("a", "x"): [1.0, 1.0], ("b", "x"): [0.5, 0.5], ("a", "y"): [0.0, 0.0]}
    rows = {
        cell: [row(0, -value[0], cell[0], "", f"{cell}r{i}") for i in range(2)]
        + [row(1, 0.5 - value[0], cell[0], cell[1], f"{cell}f{i}") for i in range(2)]
        for cell, value in values.items()
    }
    found = _clusters.mean_samples(rows, True, 0.5, 200, 0)
    for kind in ("generators", "cells"):
        means = found[kind]["accuracy_synthetic"]
        # A resample that drew source b and generator y alone has no cell.
        assert means.size < 200 and set(np.round(means, 2)) <= {0.0, 0.25, 0.33, 0.5, 0.67, 1.0}


def test_too_few_generators_and_sources_have_no_interval_over_them() -> None:
    rows = table(np.random.default_rng(4), 3, 3, 12)
    found = analysis.analyse(rows, 0.5, 50)
    assert found.clustered == {} and found.headline.estimates == {}
    assert "over generators and sources" not in report.summary_text(rows, 0.5, found)


def test_fakes_alone_have_an_interval_over_generators() -> None:
    fakes = [each for each in table(np.random.default_rng(4), 6, 1, 12, 3.0) if each.label]
    found = analysis.analyse(fakes, 0.5, 50)
    rate = found.clustered["detection_rate"]
    assert rate.value == found.pooled["detection_rate"].value
    assert rate.low < found.pooled["detection_rate"].low


def test_the_auroc_of_a_source_is_that_of_its_reals_against_all_fakes(tmp_path: Path) -> None:
    rows = table(np.random.default_rng(6), 3, 4, 15)
    found = analysis.analyse(rows, 0.5, 300)
    fakes = [each for values in groups(rows, 1).values() for each in values]
    assert list(found.sources_real) == ["s0", "s1", "s2", "s3"]
    for name, reals in groups(rows, 0).items():
        labels = [0] * len(reals) + [1] * len(fakes)
        measured = found.sources_real[name]
        assert measured["AUROC"].value == pytest.approx(
            reference.roc_auc_score(labels, [*reals, *fakes])
        )
        alone = metrics.evaluate(labels, [*reals, *fakes], 0.5, 300)["AUROC"]
        assert measured["AUROC"].low == pytest.approx(alone.low, abs=0.03)
        assert measured["AUROC"].high == pytest.approx(alone.high, abs=0.03)
        assert measured["accuracy_real"].value == np.mean(np.array(reals) <= 0)
    report.write_report(tmp_path, rows, 0.5, {}, "T", found)
    text = (tmp_path / "report.md").read_text()
    assert f"| s2 | 15 | 45 | 0 | {percent(found.sources_real['s2']['AUROC'])} |" in text
    one = analysis.analyse([each for each in rows if each.source in ("", "s0")], 0.5, 10)
    assert one.sources_real == {}


def few() -> list[ScoreRow]:
    """Two generators of twelve pictures, one of two, and twelve real ones."""
    rows = table(np.random.default_rng(7), 2, 1, 12)
    return [*rows, *(row(1, -9.0, "", "rare", f"rare/{i}") for i in range(2))]


def test_generators_of_few_pictures_are_in_no_mean_and_shown_apart(tmp_path: Path) -> None:
    rows = few()
    found = analysis.analyse(rows, 0.5, 50)
    mean = found.headline
    alone = [found.cells["", name]["AUROC"].value for name in ("g0", "g1")]
    assert mean.values["AUROC"] == pytest.approx(np.mean(alone))
    assert (mean.number, mean.left_out) == (2, 1)
    text = report.summary_text(rows, 0.5, found)
    assert "mean over 2 generators, 1 left out (headline)" in text
    assert "rare, in no mean" in text and "1 of 3 generators have fewer than 10" in text
    report.write_report(tmp_path, rows, 0.5, {}, "T", found)
    tables = (tmp_path / "report.md").read_text().split("\n## Generators\n")[1].split("\n\n")
    assert ["| rare |" in each for each in tables if "| generator |" in each] == [False, True]
    whole = analysis.analyse(rows, 0.5, 50, view=View(min_pictures=2))
    assert whole.headline.name == "mean over 3 generators"
    assert "--min_pictures" not in report.summary_text(rows, 0.5, whole)


def test_reals_are_counted_too_and_all_few_have_no_mean() -> None:
    rows = [each for each in few() if each.label or each.key < "s0/3"]
    found = analysis.analyse(rows, 0.5, 50)
    assert found.counted == {} and found.headline.kind == "pictures"
    assert "so that there is no mean over them" in report.summary_text(rows, 0.5, found)


def test_a_published_mean_of_all_is_not_set_beside_one_of_fewer() -> None:
    cells = {"AUROC": {"": {"g0": 90.0, "g1": 80.0, "rare": 10.0}}}
    figures = Published("P", "d", {}, (), cells, {}, {}, {"AUROC": {"generators": 60.0}})
    for least, expected in ((10, 85.0), (2, 60.0)):
        found = analysis.analyse(few(), 0.5, 10, view=View(published=figures, min_pictures=least))
        [line] = [x for x in report.average_lines(found) if "mean over" in x.names[0]]
        assert line.beside.published == {"AUROC": expected}


@pytest.mark.parametrize(("n", "stated"), [(1, False), (4, False), (5, True)])
def test_a_handful_of_pictures_has_no_interval(n: int, stated: bool) -> None:
    fakes = [row(1, float(i), "", "g", f"f{i}") for i in range(n)]
    reals = [row(0, -1.0, "s", "", f"r{i}") for i in range(30)]
    for rows in (fakes, [*reals, *fakes]):
        found = metrics.evaluate_rows(rows, 0.5, 50)
        assert all(math.isnan(each.low) != stated for each in found.estimates.values())
        assert ("[" in percent(next(iter(found.estimates.values())))) == stated


def test_every_number_is_in_the_json_too() -> None:
    rows = table(np.random.default_rng(8), 6, 5, 12)
    rows[0] = dataclasses.replace(rows[0], logit=-math.inf)  # whose log loss is infinite
    found = analysis.analyse(rows, 0.5, 50)
    written = json.loads(json.dumps(results.metrics_json(found), allow_nan=False))
    assert written["pooled"]["metrics"]["AUROC"] == list(found.pooled["AUROC"])
    assert written["pooled"]["metrics"]["log_loss"][0] is None
    over = written["over_generators_and_sources"]
    assert over["metrics"]["AUROC"] == list(found.clustered["AUROC"])
    assert (over["generators"], over["sources"]) == (6, 5)
    assert written["averages"][0]["metrics"]["AUROC"] == list(found.headline.estimates["AUROC"])
    assert [each["generator"] for each in written["cells"]] == [f"g{i}" for i in range(6)]
    assert set(written["sources"]) == {f"s{i}" for i in range(5)}


def test_the_size_of_a_chunk_changes_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(np.random.default_rng(9), 6, 5, 6)
    once = results.metrics_json(analysis.analyse(rows, 0.5, 60))
    monkeypatch.setattr(bootstrap, "CHUNK", 500)
    assert results.metrics_json(analysis.analyse(rows, 0.5, 60)) == once


def test_a_share_varies_with_its_clusters() -> None:
    names = [f"source{number // 10}" for number in range(100)]
    whole = _clusters.share([number < 50 for number in range(100)], names, 500, 0)
    spread = _clusters.share([number % 2 == 0 for number in range(100)], names, 500, 0)
    assert whole.value == spread.value == 0.5
    # Of ten clusters, half of them marked, a resample has 10 +- 1.6.
    assert whole.low <= 0.25 and whole.high >= 0.75
    assert spread.low >= 0.35 and spread.high <= 0.65
    assert math.isnan(_clusters.share([True, False], ["a", "b"], 500, 0).low)
