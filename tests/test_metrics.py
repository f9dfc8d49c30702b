"""Every metric against scikit-learn; intervals, cells and errors by construction."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from engine import metrics
from engine.table import ScoreRow

Arrays = tuple[NDArray[np.int64], NDArray[np.float64]]


def random(seed: int, n: int = 300, share: float = 0.4) -> Arrays:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < share).astype(np.int64)
    labels[:2] = 0, 1
    return labels, rng.normal(1.2 * labels, 1.0)


def tied(seed: int) -> Arrays:
    labels, logits = random(seed)
    return labels, np.round(2 * logits) / 2


def saturated(seed: int) -> Arrays:
    """Logits beyond 40: as float64 scores nearly all are exactly 1."""
    labels, logits = random(seed)
    return labels, 60 + 5 * logits


INPUTS = {
    "random": random(0),
    "few synthetic": random(1, share=0.02),
    "few real": random(2, share=0.98),
    "tied": tied(3),
    "saturated": saturated(4),
    "all tied": (np.array([0, 1, 0, 1, 1]), np.zeros(5)),
    "two pictures": (np.array([0, 1]), np.array([0.3, 0.1])),
    "perfect": (np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 1.0, 2.0])),
    "inverted": (np.array([1, 1, 0, 0]), np.array([-2.0, -1.0, 1.0, 2.0])),
    "signed zeros": (np.array([0, 1, 0, 1]), np.array([0.0, -0.0, -0.0, 0.0])),
}


@pytest.fixture(params=INPUTS.values(), ids=INPUTS.keys())
def arrays(request: pytest.FixtureRequest) -> Arrays:
    return request.param


def reference_tpr(labels: NDArray[np.int64], logits: NDArray[np.float64], fpr: float) -> float:
    fprs, tprs, _ = reference.roc_curve(labels, logits, drop_intermediate=False)
    return float(tprs[fprs <= fpr].max())


def row(label: int | None, logit: float | None, source: str = "s", **other: str) -> ScoreRow:
    score = None if logit is None else 1 / (1 + math.exp(-logit))
    generator = other.get("generator", "g" if label else "")
    return ScoreRow(
        other.get("key", "k"),
        source,
        generator,
        label,
        logit,
        score,
        other.get("error", ""),
        "",
        None,
        None,
    )


def test_ranking_metrics_equal_scikit_learn(arrays: Arrays) -> None:
    assert metrics.auroc(*arrays) == pytest.approx(reference.roc_auc_score(*arrays), abs=1e-12)
    assert metrics.average_precision(*arrays) == pytest.approx(
        reference.average_precision_score(*arrays), abs=1e-12
    )


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.07, 0.5, 1.0])
def test_tpr_at_fpr_equals_scikit_learn(arrays: Arrays, fpr: float) -> None:
    assert metrics.tpr_at_fpr(*arrays, fpr) == reference_tpr(*arrays, fpr)


def test_tpr_at_fpr_includes_a_rate_that_rounds_badly() -> None:
    # 7 of 100 reals lie above the synthetic pictures, and 0.07 * 100 is not 7 in binary.
    labels = np.array([0] * 100 + [1] * 3)
    logits = np.array([2.0] * 7 + [-1.0] * 93 + [1.0] * 3)
    assert metrics.tpr_at_fpr(labels, logits, 0.07) == 1.0
    assert metrics.tpr_at_fpr(labels, logits, 0.0699) == 0.0


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_accuracies_equal_scikit_learn(arrays: Arrays, threshold: float) -> None:
    labels, logits = arrays
    with np.errstate(divide="ignore"):
        called = (logits > np.log(threshold) - np.log1p(-threshold)).astype(int)
    confusion = reference.confusion_matrix(labels, called, labels=[0, 1], normalize="true")
    assert metrics.accuracy(*arrays, threshold) == pytest.approx(
        reference.accuracy_score(labels, called)
    )
    assert metrics.balanced_accuracy(*arrays, threshold) == pytest.approx(
        reference.balanced_accuracy_score(labels, called)
    )
    assert metrics.accuracy_real(*arrays, threshold) == pytest.approx(confusion[0, 0])
    assert metrics.accuracy_synthetic(*arrays, threshold) == pytest.approx(confusion[1, 1])
    assert metrics.detection_rate(*arrays, threshold) == pytest.approx(confusion[1, 1])


def test_evaluate_measures_what_the_single_functions_do(arrays: Arrays) -> None:
    threshold = 0.3
    found = metrics.evaluate(*arrays, threshold, resamples=20)
    expected = {
        "AP": metrics.average_precision(*arrays),
        "AUROC": metrics.auroc(*arrays),
        "accuracy": metrics.accuracy(*arrays, threshold),
        "balanced_accuracy": metrics.balanced_accuracy(*arrays, threshold),
        "accuracy_real": metrics.accuracy_real(*arrays, threshold),
        "accuracy_synthetic": metrics.accuracy_synthetic(*arrays, threshold),
        "TPR@1%FPR": metrics.tpr_at_fpr(*arrays, 0.01),
        "TPR@5%FPR": metrics.tpr_at_fpr(*arrays, 0.05),
    }
    assert {name: each.value for name, each in found.estimates.items()} == pytest.approx(expected)
    assert (found.n_real, found.n_synthetic) == (sum(arrays[0] == 0), sum(arrays[0] == 1))


def test_order_of_the_pictures_does_not_change_a_value() -> None:
    labels, logits = tied(5)
    shuffled = np.random.default_rng(0).permutation(labels.size)
    first = metrics.evaluate(labels, logits, 0.5, resamples=5)
    second = metrics.evaluate(labels[shuffled], logits[shuffled], 0.5, resamples=5)
    for name in metrics.METRICS:
        assert first.estimates[name].value == pytest.approx(second.estimates[name].value)


def test_logits_tell_apart_what_saturated_scores_tie() -> None:
    labels, logits = saturated(6)
    scores = 1 / (1 + np.exp(-logits))
    assert metrics.auroc(labels, scores) == pytest.approx(0.5, abs=0.02)
    assert metrics.auroc(labels, logits) > 0.7


def test_infinite_logits_rank_at_the_ends() -> None:
    assert metrics.auroc([0, 1, 0, 1], [-np.inf, 0.0, 0.0, np.inf]) == 0.875


def test_a_logit_at_the_threshold_is_real() -> None:
    assert metrics.accuracy([0, 1], [0.0, 0.0], 0.5) == 0.5
    assert metrics.detection_rate([1], [0.0], 0.5) == 0.0
    found = metrics.evaluate([0, 1], [0.0, 0.0], 0.5, resamples=2)
    assert found.estimates["accuracy_real"].value == 1.0
    assert found.estimates["accuracy_synthetic"].value == 0.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused_where_two_are_compared(label: int) -> None:
    labels, logits = [label] * 3, [0.1, 0.2, 0.3]
    for function in (metrics.auroc, metrics.average_precision):
        with pytest.raises(ValueError, match="needs real and synthetic"):
            function(labels, logits)
    for rate in (metrics.tpr_at_fpr, metrics.balanced_accuracy):
        with pytest.raises(ValueError, match="needs real and synthetic"):
            rate(labels, logits, 0.5)
    other = metrics.accuracy_real if label else metrics.accuracy_synthetic
    with pytest.raises(ValueError, match="found none"):
        other(labels, logits, 0.5)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        metrics.accuracy([], [], 0.5)
    with pytest.raises(ValueError, match="one shape"):
        metrics.auroc([0, 1], [0.1])
    with pytest.raises(ValueError, match="labels 0"):
        metrics.auroc([0, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="NaN"):
        metrics.auroc([0, 1], [0.1, np.nan])
    for threshold in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="threshold between 0 and 1"):
            metrics.evaluate([0, 1], [0.1, 0.2], threshold)
    with pytest.raises(ValueError, match="false positive rate"):
        metrics.tpr_at_fpr([0, 1], [0.1, 0.2], 5)
    with pytest.raises(ValueError, match="confidence"):
        metrics.evaluate([0, 1], [0.1, 0.2], 0.5, confidence=95)


def test_intervals_are_reproducible_and_follow_the_seed() -> None:
    arrays = random(7)
    first = metrics.evaluate(*arrays, 0.5, seed=3)
    assert metrics.evaluate(*arrays, 0.5, seed=3) == first
    other = metrics.evaluate(*arrays, 0.5, seed=4)
    assert other.estimates["AUROC"].value == first.estimates["AUROC"].value
    assert other.estimates["AUROC"] != first.estimates["AUROC"]


def test_intervals_contain_the_value_and_stay_in_range(arrays: Arrays) -> None:
    for estimate in metrics.evaluate(*arrays, 0.5, resamples=50).estimates.values():
        assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    arrays = random(8)
    narrow = metrics.evaluate(*arrays, 0.5, confidence=0.5).estimates["AUROC"]
    wide = metrics.evaluate(*arrays, 0.5, confidence=0.99).estimates["AUROC"]
    assert wide.low < narrow.low < narrow.high < wide.high


def test_intervals_equal_a_plain_stratified_bootstrap() -> None:
    labels, logits = random(9, n=400)
    rng = np.random.default_rng(0)
    reals, fakes = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    samples: dict[str, list[float]] = {"AP": [], "AUROC": [], "accuracy": [], "TPR@5%FPR": []}
    for _ in range(600):
        drawn = np.concatenate([rng.choice(reals, reals.size), rng.choice(fakes, fakes.size)])
        sample = labels[drawn], logits[drawn]
        samples["AP"].append(reference.average_precision_score(*sample))
        samples["AUROC"].append(reference.roc_auc_score(*sample))
        samples["accuracy"].append(float(((sample[1] > 0) == sample[0]).mean()))
        samples["TPR@5%FPR"].append(reference_tpr(*sample, 0.05))
    found = metrics.evaluate(labels, logits, 0.5).estimates
    for name, values in samples.items():
        low, high = np.quantile(values, [0.025, 0.975])
        tolerance = 0.15 * (high - low)
        assert found[name].low == pytest.approx(low, abs=tolerance), name
        assert found[name].high == pytest.approx(high, abs=tolerance), name


def test_classes_are_resampled_separately() -> None:
    # With constant logits per class every stratified resample has the same accuracies; one that
    # mixed the classes would change the share of each, and with it the accuracy.
    labels = np.array([0] * 30 + [1] * 10)
    found = metrics.evaluate(labels, np.zeros(40), 0.5).estimates["accuracy"]
    assert found == (0.75, 0.75, 0.75)


def test_chunks_do_not_mix_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = np.array([0] * 30 + [1] * 10), np.zeros(40)
    monkeypatch.setattr(metrics, "CHUNK", 130)
    found = metrics.evaluate(labels, logits, 0.5, resamples=10)
    assert found.estimates["AUROC"] == (0.5, 0.5, 0.5)
    assert found.estimates["AP"] == (0.25, 0.25, 0.25)


def test_a_thousand_resamples_of_four_thousand_scores_take_under_two_seconds() -> None:
    arrays = random(10, n=4000)
    start = time.process_time()
    metrics.evaluate(*arrays, 0.5)
    assert time.process_time() - start < 2.0


def test_without_resamples_there_are_values_and_no_intervals(arrays: Arrays) -> None:
    found = metrics.evaluate(*arrays, 0.5, resamples=0)
    for name in metrics.METRICS:
        assert found[name].value == metrics.evaluate(*arrays, 0.5, resamples=2)[name].value
        assert math.isnan(found[name].low) and math.isnan(found[name].high)
    assert metrics.evaluate([1], [1.0], 0.5, resamples=0)["detection_rate"].value == 1.0
    with pytest.raises(ValueError, match="resamples"):
        metrics.evaluate(*arrays, 0.5, resamples=-1)


def test_one_class_has_its_rate_alone() -> None:
    fakes = metrics.evaluate(np.ones(200), np.linspace(-1, 3, 200), 0.5)
    assert set(fakes.estimates) == {"detection_rate"}
    rate = fakes.estimates["detection_rate"]
    assert rate.value == 0.75 and 0.67 < rate.low < 0.72 and 0.78 < rate.high < 0.83
    reals = metrics.evaluate(np.zeros(4), [-1.0, -1.0, -1.0, 1.0], 0.5)
    assert set(reals.estimates) == {"accuracy_real"}
    assert reals.estimates["accuracy_real"].value == 0.75
    assert metrics.evaluate([], [], 0.5) == metrics.Metrics(0, 0)


def test_errors_are_counted_and_enter_no_metric() -> None:
    good = [row(0, -1.0), row(1, 1.0), row(1, 2.0)]
    bad = [row(1, None, error="truncated"), row(0, None, error="empty"), row(0, math.nan)]
    unknown = [row(None, 5.0), row(None, None, error="truncated")]
    found = metrics.evaluate_rows(good + bad + unknown, 0.5, resamples=10)
    assert (found.n_real, found.n_synthetic, found.n_errors) == (1, 2, 3)
    assert found.estimates == metrics.evaluate_rows(good, 0.5, resamples=10).estimates
    assert found.estimates["accuracy"].value == 1.0


def test_a_cell_is_a_generator_with_the_reals_of_its_source() -> None:
    coco, flickr = row(0, -1.0, "coco"), row(0, -2.0, "flickr")
    glide = [row(1, 1.0, "coco", generator="glide"), row(1, 2.0, "flickr", generator="glide")]
    broken = row(1, None, "coco", generator="glide", error="truncated")
    wild = row(1, 3.0, "wild", generator="lexica")
    found = metrics.cells([wild, *glide, broken, flickr, coco, row(None, 1.0, "coco")])
    assert found == {
        ("coco", "glide"): [coco, glide[0], broken],
        ("flickr", "glide"): [flickr, glide[1]],
        ("wild", "lexica"): [flickr, coco, wild],
    }
    assert list(found) == sorted(found)
    assert metrics.evaluate_rows(found["coco", "glide"], 0.5, resamples=2).n_errors == 1


def test_one_class_tables_have_cells_of_what_there_is() -> None:
    fake = row(1, 1.0)
    assert metrics.cells([row(0, 1.0)]) == {}
    assert metrics.cells([fake]) == {("s", "g"): [fake]}
