"""Every metric against scikit-learn; intervals, cells and errors by construction."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from engine.evaluation import bootstrap, cells, estimates, metrics
from engine.reporting.tables import percent
from engine.scoring import probability
from engine.scoring.table import ScoreRow

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
    "extreme": (np.array([0, 1, 0, 1, 1]), np.array([-800.0, 800.0, 800.0, -800.0, 0.5])),
    "signed zeros": (np.array([0, 1, 0, 1]), np.array([0.0, -0.0, -0.0, 0.0])),
}


@pytest.fixture(params=INPUTS.values(), ids=INPUTS.keys())
def arrays(request: pytest.FixtureRequest) -> Arrays:
    return request.param


def reference_tpr(labels: NDArray[np.int64], logits: NDArray[np.float64], fpr: float) -> float:
    fprs, tprs, _ = reference.roc_curve(labels, logits, drop_intermediate=False)
    return float(tprs[fprs <= fpr].max())


def reference_eer(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    """Walks along the ROC until as many reals are flagged as fakes are missed."""
    fprs, tprs, _ = reference.roc_curve(labels, logits, drop_intermediate=False)
    for i in range(1, len(fprs)):
        before, after = fprs[i - 1] + tprs[i - 1] - 1, fprs[i] + tprs[i] - 1
        if after >= 0:
            share = -before / (after - before)
            return float(fprs[i - 1] + share * (fprs[i] - fprs[i - 1]))
    raise AssertionError("the ROC ends at (1, 1)")


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > 0 else 1 - 1 / (1 + math.exp(logit))


def reference_bins(
    labels: NDArray[np.int64], logits: NDArray[np.float64]
) -> list[tuple[float, float, int]]:
    bins: list[list[tuple[float, int]]] = [[] for _ in range(15)]
    for label, logit in zip(labels.tolist(), logits.tolist(), strict=True):
        score = sigmoid(logit)
        bins[min(int(15 * score), 14)].append((score, label))
    return [
        (sum(s for s, _ in held) / len(held), sum(y for _, y in held) / len(held), len(held))
        for held in bins
        if held
    ]


def reference_log_loss(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> float:
    losses = []
    for label, logit in zip(labels.tolist(), logits.tolist(), strict=True):
        wrong = -logit if label else logit
        losses.append(max(wrong, 0.0) + math.log1p(math.exp(-abs(wrong))))
    return math.fsum(losses) / len(losses)


def value(arrays: Arrays | tuple[list[int], list[float]], name: str) -> float:
    """One metric at the threshold 0.5, without an interval."""
    return metrics.evaluate(*arrays, 0.5, resamples=0)[name].value


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
    for name, function, scikit in (
        ("AUROC", metrics.auroc, reference.roc_auc_score),
        ("AP", metrics.average_precision, reference.average_precision_score),
    ):
        assert function(*arrays) == pytest.approx(scikit(*arrays), abs=1e-12)
        assert value(arrays, name) == pytest.approx(scikit(*arrays), abs=1e-12)


def tpr_at_fpr(labels: NDArray[np.int64], logits: NDArray[np.float64], fpr: float) -> float:
    samples = bootstrap.measured(bootstrap.rank(labels == 1, logits))
    return float(bootstrap.tprs_at_fpr(samples, fpr)[0])


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.07, 0.5, 1.0])
def test_tpr_at_fpr_equals_scikit_learn(arrays: Arrays, fpr: float) -> None:
    assert tpr_at_fpr(*arrays, fpr) == reference_tpr(*arrays, fpr)
    if fpr in (0.01, 0.05):
        assert value(arrays, f"TPR@{fpr:.0%}FPR") == reference_tpr(*arrays, fpr)


def test_tpr_at_fpr_includes_a_rate_that_rounds_badly() -> None:
    # 7 of 100 reals lie above the synthetic pictures, and 0.07 * 100 is not 7 in binary.
    labels = np.array([0] * 100 + [1] * 3)
    logits = np.array([2.0] * 7 + [-1.0] * 93 + [1.0] * 3)
    assert tpr_at_fpr(labels, logits, 0.07) == 1.0
    assert tpr_at_fpr(labels, logits, 0.0699) == 0.0


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
    measured = metrics.evaluate(*arrays, threshold, resamples=0)
    assert tuple(measured.estimates) == estimates.METRICS
    for name in ("accuracy", "balanced_accuracy"):
        assert measured[name].value == getattr(metrics, name)(*arrays, threshold)
    assert measured["accuracy_real"].value == pytest.approx(confusion[0, 0])
    assert measured["accuracy_synthetic"].value == pytest.approx(confusion[1, 1])
    fakes = metrics.evaluate(labels[labels == 1], logits[labels == 1], threshold, resamples=0)
    assert fakes["detection_rate"].value == pytest.approx(confusion[1, 1])


def test_equal_error_rate_equals_a_walk_along_the_roc(arrays: Arrays) -> None:
    assert value(arrays, "EER") == pytest.approx(reference_eer(*arrays), abs=1e-12)


def test_equal_error_rate_is_interpolated() -> None:
    # From (0, 2/3) straight to (1/2, 2/3), which crosses fpr = 1/3 on the way.
    assert value(([1, 1, 0, 1, 0], [5, 4, 3, 2, 1]), "EER") == pytest.approx(1 / 3)
    assert value(([1, 0, 1, 0], [0, 0, 0, 0]), "EER") == 0.5
    assert value(([1, 1, 0], [2, 1, 0]), "EER") == 0.0
    assert value(([0, 1], [1, 0]), "EER") == 1.0


def test_best_accuracy_is_that_of_the_best_of_all_thresholds(arrays: Arrays) -> None:
    labels, logits = arrays
    rights = [((logits > cut) == labels).mean() for cut in (-np.inf, *logits)]
    assert value(arrays, "best_accuracy") == pytest.approx(max(rights), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "logits", "accuracy"),
    [
        ([0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0], 0.75),
        ([1, 1, 0], [0.0, 1.0, 2.0], 2 / 3),  # all called synthetic
        ([0, 0, 1], [1.0, 2.0, 0.0], 2 / 3),  # none
        ([0, 1], [-np.inf, np.inf], 1.0),
        ([1, 1, 0], [-np.inf, -np.inf, 2.0], 1 / 3),  # no threshold lies below -inf
    ],
)
def test_best_accuracy_at_the_ends(labels: list[int], logits: list[float], accuracy: float) -> None:
    assert value((labels, logits), "best_accuracy") == pytest.approx(accuracy)


def test_calibration_equals_a_loop_over_the_pictures(arrays: Arrays) -> None:
    expected = reference_bins(*arrays)
    found = metrics.calibration_bins(*arrays)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)
    assert sum(each.size for each in found) == arrays[0].size
    error = sum(size * abs(score - share) for score, share, size in expected) / arrays[0].size
    assert value(arrays, "ECE") == pytest.approx(error, abs=1e-12)


def test_a_score_on_an_edge_lies_in_the_bin_above() -> None:
    third = probability.threshold_logit(5 / 15)
    below = np.nextafter(third, -1)
    found = metrics.calibration_bins([0, 1, 1], [below, third, third])
    assert [(each.share, each.size) for each in found] == [(0.0, 1), (1.0, 2)]


def test_proper_scores_equal_scikit_learn(arrays: Arrays) -> None:
    labels, logits = arrays
    scores = [sigmoid(logit) for logit in logits.tolist()]
    brier = reference.brier_score_loss(labels, scores)
    assert value(arrays, "Brier") == pytest.approx(brier, abs=1e-12)
    loss = value(arrays, "log_loss")
    assert loss == pytest.approx(reference_log_loss(*arrays), rel=1e-12)
    if np.abs(logits).max() < 20:
        assert loss == pytest.approx(reference.log_loss(labels, scores))


@pytest.mark.filterwarnings("error")
def test_log_loss_of_finite_logits_is_finite() -> None:
    assert value(([0, 1], [-800.0, -800.0]), "log_loss") == 400.0
    assert value(([0, 1], [1.5e308, -1.5e308]), "log_loss") == pytest.approx(1.5e308)
    assert value(([0, 0, 1], [-1e308, -800.0, 750.0]), "log_loss") == pytest.approx(0, abs=1e-300)
    assert value(([0, 1], [0.0, 0.0]), "log_loss") == pytest.approx(math.log(2))
    # 1 - sigmoid(40) is 0 in floating point, the probability of an error is not.
    sure = [0, 1], [-40.0, 40.0]
    assert value(sure, "log_loss") == pytest.approx(math.exp(-40), rel=1e-9)
    assert value(sure, "Brier") == pytest.approx(math.exp(-80), rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_infinite_logits_lose_all_or_nothing() -> None:
    right = [0, 0, 1, 1], [-np.inf, -1.0, 1.0, np.inf]
    found = metrics.evaluate(*right, 0.5, resamples=50)
    assert found["log_loss"].value == pytest.approx(math.log1p(math.exp(-1)) / 2)
    assert math.isfinite(found["log_loss"].high)
    for labels, logits in (([0, 1, 1], [-1.0, -np.inf, 2.0]), ([0, 0, 1], [np.inf, -1.0, 2.0])):
        found = metrics.evaluate(labels, logits, 0.5, resamples=200)
        # Some resamples leave the lost picture out.
        assert found["log_loss"].value == found["log_loss"].high == math.inf
        assert 0 < found["log_loss"].low < 2
        for name in estimates.METRICS:
            assert not np.isnan(found[name]).any(), name
        assert found["Brier"].value < 1


@pytest.mark.filterwarnings("error")
def test_an_interval_ends_at_a_resample_where_infinity_is_near() -> None:
    # About every third resample leaves the lost picture out, and the ends fall among both kinds.
    labels, logits = [0] + [1] * 9, [-1.0, -np.inf] + [2.0] * 8
    for confidence in np.linspace(0.05, 0.95, 19):
        found = metrics.evaluate(labels, logits, 0.5, resamples=11, confidence=confidence)
        assert not np.isnan(found["log_loss"]).any()


def test_calibration_is_defined_for_one_class() -> None:
    assert metrics.calibration_bins([1, 1], [0.0, 0.0]) == [(0.5, 1.0, 2)]


def test_a_perfect_detector_is_better_by_every_metric() -> None:
    labels, logits = random(11, n=600)
    worse, found = (metrics.evaluate(labels, each, 0.5, 2) for each in (logits, 40.0 * labels - 20))
    assert set(estimates.METRICS) > estimates.LOWER_IS_BETTER
    for name in estimates.METRICS:
        rises = found[name].value > worse[name].value
        assert rises != (name in estimates.LOWER_IS_BETTER), name


def test_numbers_that_are_no_fractions_are_marked_and_not_printed_as_percent() -> None:
    assert frozenset({"Brier", "log_loss"}) == estimates.PLAIN
    found = metrics.evaluate([0, 1, 0, 1], [-1.0, 2.0, 3.0, np.inf], 0.5, resamples=20)
    for name in estimates.METRICS:
        plain = isinstance(found[name], estimates.PlainEstimate)
        assert plain == (name in estimates.PLAIN), name
    loss = found["log_loss"]
    assert percent(loss) == f"{loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]"
    assert percent(estimates.PlainEstimate(math.inf, math.nan, math.nan)) == "inf"
    assert estimates.METRICS[:8] == (
        *("AP", "AUROC", "accuracy", "balanced_accuracy", "accuracy_real", "accuracy_synthetic"),
        *("TPR@1%FPR", "TPR@5%FPR"),
    )


def test_order_of_the_pictures_does_not_change_a_value() -> None:
    labels, logits = tied(5)
    shuffled = np.random.default_rng(0).permutation(labels.size)
    first = metrics.evaluate(labels, logits, 0.5, resamples=5)
    second = metrics.evaluate(labels[shuffled], logits[shuffled], 0.5, resamples=5)
    for name in estimates.METRICS:
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
    found = metrics.evaluate([0, 1], [0.0, 0.0], 0.5, resamples=2)
    assert found.estimates["accuracy_real"].value == 1.0
    assert found.estimates["accuracy_synthetic"].value == 0.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused_where_two_are_compared(label: int) -> None:
    labels, logits = [label] * 3, [0.1, 0.2, 0.3]
    for function in (metrics.auroc, metrics.average_precision):
        with pytest.raises(ValueError, match="needs real and synthetic"):
            function(labels, logits)
    with pytest.raises(ValueError, match="needs real and synthetic"):
        metrics.balanced_accuracy(labels, logits, 0.5)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        metrics.accuracy([], [], 0.5)
    with pytest.raises(ValueError, match="at least one picture"):
        metrics.calibration_bins([], [])
    with pytest.raises(ValueError, match="one shape"):
        metrics.auroc([0, 1], [0.1])
    with pytest.raises(ValueError, match="labels 0"):
        metrics.auroc([0, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="NaN"):
        metrics.auroc([0, 1], [0.1, np.nan])
    for threshold in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="threshold between 0 and 1"):
            metrics.evaluate([0, 1], [0.1, 0.2], threshold)
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
    for name, estimate in metrics.evaluate(*arrays, 0.5, resamples=50).estimates.items():
        assert 0.0 <= estimate.low <= estimate.value <= estimate.high
        assert estimate.high <= 1.0 or name == "log_loss"


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    arrays = random(8)
    narrow = metrics.evaluate(*arrays, 0.5, confidence=0.5).estimates["AUROC"]
    wide = metrics.evaluate(*arrays, 0.5, confidence=0.99).estimates["AUROC"]
    assert wide.low < narrow.low < narrow.high < wide.high


def test_interval_of_an_accuracy_is_that_of_its_binomial() -> None:
    """A smoke of the statistics that are `slow`: 100 right of 120 in each class."""
    labels = np.repeat([0, 1], 120)
    logits = np.where(np.arange(240) % 120 < 100, 1.0, -1.0) * (2 * labels - 1)
    accuracy = metrics.evaluate(labels, logits, 0.5, resamples=300)["accuracy"]
    width = 1.96 * math.sqrt(100 / 120 * 20 / 120 / 240)
    assert accuracy.low == pytest.approx(100 / 120 - width, abs=0.02)
    assert accuracy.high == pytest.approx(100 / 120 + width, abs=0.02)


@pytest.mark.slow
def test_intervals_equal_a_plain_stratified_bootstrap() -> None:
    labels, logits = random(9, n=400)
    rng = np.random.default_rng(0)
    reals, fakes = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    samples: dict[str, list[float]] = {
        **{"AP": [], "AUROC": [], "accuracy": [], "TPR@5%FPR": []},
        **{"EER": [], "best_accuracy": [], "ECE": [], "Brier": [], "log_loss": []},
    }
    for _ in range(600):
        drawn = np.concatenate([rng.choice(reals, reals.size), rng.choice(fakes, fakes.size)])
        sample = labels[drawn], logits[drawn]
        samples["AP"].append(reference.average_precision_score(*sample))
        samples["AUROC"].append(reference.roc_auc_score(*sample))
        samples["accuracy"].append(float(((sample[1] > 0) == sample[0]).mean()))
        samples["TPR@5%FPR"].append(reference_tpr(*sample, 0.05))
        samples["EER"].append(reference_eer(*sample))
        for name in ("best_accuracy", "ECE", "Brier", "log_loss"):
            samples[name].append(value(sample, name))
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


@pytest.mark.parametrize("chunk", [1, 130, 1 << 20])
def test_the_size_of_a_chunk_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, logits = tied(12)
    logits[:40] = random(13)[1][:40]
    once = metrics.evaluate(labels, logits, 0.5, resamples=120)
    pair = metrics.paired_difference(labels, logits, 2 * logits, estimates.METRICS, 0.5, 120)
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    assert metrics.evaluate(labels, logits, 0.5, resamples=120) == once
    again = metrics.paired_difference(labels, logits, 2 * logits, estimates.METRICS, 0.5, 120)
    assert again == pair


def normal_distribution(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


@pytest.mark.slow
def test_intervals_contain_the_true_value_as_often_as_they_say() -> None:
    # Logits of unit variance around +-0.6 have these very AUROC and accuracy.
    true = {"AUROC": normal_distribution(1.2 / math.sqrt(2)), "accuracy": normal_distribution(0.6)}
    labels = np.repeat([0, 1], 60)
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(true, 0)
    for seed in range(300):
        logits = rng.normal(1.2 * labels - 0.6)
        found = metrics.evaluate(labels, logits, 0.5, resamples=300, seed=seed)
        for name, value in true.items():
            covered[name] += found[name].low <= value <= found[name].high
    for name, count in covered.items():
        assert 0.91 <= count / 300 <= 0.985, (name, count / 300)


def test_without_resamples_there_are_values_and_no_intervals(arrays: Arrays) -> None:
    found = metrics.evaluate(*arrays, 0.5, resamples=0)
    for name in estimates.METRICS:
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
    assert metrics.evaluate([], [], 0.5) == estimates.Metrics(0, 0)


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
    found = cells.by_cell([wild, *glide, broken, flickr, coco, row(None, 1.0, "coco")])
    assert found == {
        ("coco", "glide"): [coco, glide[0], broken],
        ("flickr", "glide"): [flickr, glide[1]],
        ("", "lexica"): [flickr, coco, wild],
    }
    assert list(found) == sorted(found)
    assert metrics.evaluate_rows(found["coco", "glide"], 0.5, resamples=2).n_errors == 1


def test_one_class_tables_have_cells_of_what_there_is() -> None:
    fake = row(1, 1.0)
    assert cells.by_cell([row(0, 1.0)]) == {}
    assert cells.by_cell([fake]) == {("s", "g"): [fake]}


def names_of(rows: list[ScoreRow]) -> list[str]:
    return [row.key for row in rows]


@pytest.fixture
def two_sources() -> list[ScoreRow]:
    """Reals a0-a2 and b0, b1; fakes of two generators from two sources, all interleaved."""
    return [
        row(1, 1.0, "x", generator="glide", key="g0"),
        row(0, 0.0, "b", key="b0"),
        row(0, 0.0, "a", key="a0"),
        row(1, 1.0, "a", generator="glide", key="g1"),
        row(0, None, "a", key="a1", error="truncated"),
        row(1, 1.0, "b", generator="sd", key="s0"),
        row(None, 1.0, "c", key="unknown"),
        row(0, 0.0, "b", key="b1"),
        row(0, 0.0, "a", key="a2"),
        row(1, None, "x", generator="glide", key="g2", error="truncated"),
    ]


def test_crossed_cells_take_the_reals_of_every_source(two_sources: list[ScoreRow]) -> None:
    found = cells.by_cell(two_sources, cells.Pairing("crossed"))
    assert {cell: names_of(rows) for cell, rows in found.items()} == {
        ("a", "glide"): ["a0", "a1", "a2", "g0", "g1", "g2"],
        ("a", "sd"): ["a0", "a1", "a2", "s0"],
        ("b", "glide"): ["b0", "b1", "g0", "g1", "g2"],
        ("b", "sd"): ["b0", "b1", "s0"],
    }
    assert list(found) == sorted(found)
    fakes = [each for each in two_sources if each.label == 1]
    found = cells.by_cell(fakes, cells.Pairing("crossed"))
    assert {cell: names_of(rows) for cell, rows in found.items()} == {
        ("", "glide"): ["g0", "g1", "g2"],
        ("", "sd"): ["s0"],
    }


def test_reals_of_all_sources_keep_the_order_of_the_table(two_sources: list[ScoreRow]) -> None:
    found = cells.by_cell(two_sources)
    assert names_of(found["", "glide"]) == ["b0", "a0", "a1", "b1", "a2", "g0", "g2"]


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        (cells.Pairing("own", cap=1), ["a0", "g1"]),
        (cells.Pairing("own", cap=2), ["a0", "a1", "g1"]),
        (cells.Pairing("own", balanced=True), ["a0", "g1"]),
        # The unreadable a1 counts, for which reason a2 does not enter.
        (cells.Pairing("crossed", cap=2, balanced=True), ["a0", "a1", "g0", "g1"]),
        (cells.Pairing("crossed", cap=9, balanced=True), ["a0", "a1", "a2", "g0", "g1", "g2"]),
        (cells.Pairing("crossed", cap=9), ["a0", "a1", "a2", "g0", "g1", "g2"]),
    ],
)
def test_cells_are_cut_to_the_first_of_each_class(
    two_sources: list[ScoreRow], pairing: cells.Pairing, expected: list[str]
) -> None:
    found = cells.by_cell(two_sources, pairing)["a", "glide"]
    assert names_of(found) == expected
    unreadable = sum(bool(each.error) for each in found)
    assert metrics.evaluate_rows(found, 0.5, resamples=0).n_errors == unreadable


def test_a_cell_of_fakes_alone_is_capped_and_not_balanced_away() -> None:
    fakes = [row(1, 1.0, key=str(i)) for i in range(3)]
    assert names_of(cells.by_cell(fakes, cells.Pairing(balanced=True))["s", "g"]) == [*"012"]
    capped = cells.by_cell(fakes, cells.Pairing(cap=2, balanced=True))
    assert names_of(capped["s", "g"]) == ["0", "1"]


def two_runs(seed: int, gain: float = 0.0, n: int = 300) -> tuple[Arrays, NDArray[np.float64]]:
    """Labels and logits of one run, and those of another that sees much the same pictures."""
    labels, logits = random(seed, n=n)
    noise = np.random.default_rng(seed + 1000)
    first = logits - 0.6 + 0.3 * noise.normal(size=n)
    return (labels, first), logits - 0.6 + 0.3 * noise.normal(size=n) - gain * (2 * labels - 1)


def test_identical_runs_do_not_differ(arrays: Arrays) -> None:
    labels, logits = arrays
    found = metrics.paired_difference(labels, logits, logits, estimates.METRICS, 0.5, 50)
    assert found == dict.fromkeys(estimates.METRICS, ((0.0, 0.0, 0.0), 1.0))


def test_a_difference_is_that_of_the_values() -> None:
    (labels, first), second = two_runs(0, gain=0.4)
    found = metrics.paired_difference(labels, first, second, estimates.METRICS, 0.3)
    swapped = metrics.paired_difference(labels, second, first, estimates.METRICS, 0.3)
    ours, theirs = (metrics.evaluate(labels, each, 0.3, 2) for each in (first, second))
    assert tuple(found) == estimates.METRICS
    for name, (estimate, p_value) in found.items():
        assert estimate.value == ours[name].value - theirs[name].value
        assert estimate.low <= estimate.value <= estimate.high
        assert (estimate.low > 0 or estimate.high < 0) == (p_value < 0.05), name
        assert swapped[name] == ((-estimate.value, -estimate.high, -estimate.low), p_value)
        assert isinstance(estimate, estimates.PlainEstimate) == (name in estimates.PLAIN)


def test_a_clearly_better_run_has_a_small_p_value() -> None:
    (labels, first), second = two_runs(1, gain=0.8)
    names = ("AUROC", "accuracy", "EER", "log_loss")
    found = metrics.paired_difference(labels, first, second, names, 0.5)
    for name, (estimate, p_value) in found.items():
        assert (estimate.value < 0) == (name in estimates.LOWER_IS_BETTER)
        assert p_value == pytest.approx(2 / 1001), name


@pytest.mark.slow
def test_p_values_of_equal_runs_are_small_as_often_as_they_say() -> None:
    small = 0
    for seed in range(200):
        (labels, first), second = two_runs(seed, n=120)
        found = metrics.paired_difference(labels, first, second, ["AUROC"], 0.5, 200, seed)
        small += found["AUROC"].p_value < 0.05
    assert 1 <= small <= 20


@pytest.mark.slow
def test_paired_intervals_equal_a_plain_paired_bootstrap() -> None:
    (labels, first), second = two_runs(2, gain=0.2)
    rng = np.random.default_rng(0)
    reals, fakes = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    samples: dict[str, list[float]] = {"AUROC": [], "Brier": []}
    for _ in range(600):
        drawn = np.concatenate([rng.choice(reals, reals.size), rng.choice(fakes, fakes.size)])
        for name in samples:
            ours, theirs = (value((labels[drawn], run[drawn]), name) for run in (first, second))
            samples[name].append(ours - theirs)
    found = metrics.paired_difference(labels, first, second, samples, 0.5)
    for name, values in samples.items():
        low, high = np.quantile(values, [0.025, 0.975])
        tolerance = 0.15 * (high - low)
        assert found[name].estimate.low == pytest.approx(low, abs=tolerance), name
        assert found[name].estimate.high == pytest.approx(high, abs=tolerance), name


def test_pairing_gives_a_narrower_interval() -> None:
    (labels, first), second = two_runs(3)
    names = ("AUROC", "accuracy", "Brier", "log_loss")
    found = metrics.paired_difference(labels, first, second, names, 0.5)
    runs = [metrics.evaluate(labels, each, 0.5) for each in (first, second)]
    for name in names:
        paired = found[name].estimate.high - found[name].estimate.low
        unpaired = math.hypot(*(run[name].high - run[name].low for run in runs))
        assert paired < 0.6 * unpaired, name


def test_differences_are_reproducible_and_follow_the_seed() -> None:
    (labels, first), second = two_runs(4)
    found = metrics.paired_difference(labels, first, second, ["AUROC"], 0.5, seed=1)
    assert metrics.paired_difference(labels, first, second, ["AUROC"], 0.5, seed=1) == found
    other = metrics.paired_difference(labels, first, second, ["AUROC"], 0.5, seed=2)
    assert other["AUROC"].estimate.value == found["AUROC"].estimate.value
    assert other["AUROC"].estimate != found["AUROC"].estimate
    plain = metrics.paired_difference(labels, first, second, ["AUROC"], 0.5, resamples=0)["AUROC"]
    assert plain.estimate.value == found["AUROC"].estimate.value
    assert math.isnan(plain.estimate.low) and math.isnan(plain.p_value)


@pytest.mark.filterwarnings("error")
def test_infinite_log_losses_can_be_compared() -> None:
    labels = np.array([0] * 5 + [1] * 5)
    lost = np.array([-1.0] * 5 + [-np.inf] + [2.0] * 4)
    sound = np.where(np.isinf(lost), -1.0, lost)
    found = metrics.paired_difference(labels, lost, sound, estimates.METRICS, 0.5, 200)
    assert found["log_loss"].estimate.value == found["log_loss"].estimate.high == math.inf
    for estimate, p_value in found.values():
        assert not np.isnan(estimate).any() and 0 < p_value <= 1
    other = np.array([np.inf] + [-1.0] * 4 + [2.0] * 5)
    both = metrics.paired_difference(labels, lost, other, ["log_loss"], 0.5, 200)["log_loss"]
    assert both.estimate == (0.0, -math.inf, math.inf)


@pytest.mark.parametrize(("label", "name"), [(1, "detection_rate"), (0, "accuracy_real")])
def test_one_class_is_compared_by_its_rate(label: int, name: str) -> None:
    labels = np.full(200, label)
    first = np.repeat([1.0, -1.0], 100) * (2 * label - 1)
    second = np.roll(first, 40) - 0.5 * (2 * label - 1)
    found = metrics.paired_difference(labels, first, second, [name], 0.5)[name]
    assert found.estimate.value == 0.0 and found.p_value > 0.5
    # 40 pictures are won and 40 lost: the standard error is sqrt(80) / 200.
    assert found.estimate.high == pytest.approx(1.96 * math.sqrt(80) / 200, abs=0.02)
    assert found.estimate.low == pytest.approx(-1.96 * math.sqrt(80) / 200, abs=0.02)
    same = metrics.paired_difference(labels, first, first, [name], 0.5)[name]
    assert same == ((0.0, 0.0, 0.0), 1.0)
    with pytest.raises(ValueError, match=f"among {name}; found 'AP'"):
        metrics.paired_difference(labels, first, second, ["AP"], 0.5)


def test_wrong_comparisons_are_refused() -> None:
    labels, logits = [0, 1], [0.0, 1.0]
    with pytest.raises(ValueError, match="one shape"):
        metrics.paired_difference(labels, logits, [0.0], ["AP"], 0.5)
    with pytest.raises(ValueError, match="NaN"):
        metrics.paired_difference(labels, logits, [0.0, math.nan], ["AP"], 0.5)
    with pytest.raises(ValueError, match=r"among AP, AUROC.*found 'F1'"):
        metrics.paired_difference(labels, logits, logits, ["F1"], 0.5)
    with pytest.raises(ValueError, match="found none"):
        metrics.paired_difference([], [], [], [], 0.5)
    with pytest.raises(ValueError, match="resamples"):
        metrics.paired_difference(labels, logits, logits, ["AP"], 0.5, resamples=-1)
