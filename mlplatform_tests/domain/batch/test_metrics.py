from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from mlplatform.domain.batch.metric_names import METRICS
from mlplatform.domain.batch.metrics import (
    LOWER_IS_BETTER,
    MetricError,
    Predictions,
    by_partition,
    evaluate,
    intervals,
    resampled,
    weighted,
)
from mlplatform.domain.batch.pipeline import ProblemType

Oracle = Callable[[Predictions, np.ndarray], float]


def of_labels(function: Any, **options: Any) -> Oracle:
    return lambda p, w: function(p.target, p.chosen, sample_weight=w, **options)


def of_positives(function: Any, **options: Any) -> Oracle:
    def oracle(p: Predictions, w: np.ndarray) -> float:
        return function(p.positives, p.chosen == p.positive, sample_weight=w, **options)

    return oracle


def of_numbers(function: Any) -> Oracle:
    return lambda p, w: function(p.target, p.scores, sample_weight=w)


def multiclass_area(p: Predictions, w: np.ndarray) -> float:
    areas = [
        reference.roc_auc_score(p.target == number, p.scores[:, number], sample_weight=w)
        for number in range(p.scores.shape[1])
    ]
    return float(np.mean(areas))


def log_loss(p: Predictions, w: np.ndarray) -> float:
    return reference.log_loss(p.target, p.scores, sample_weight=w, labels=range(p.scores.shape[1]))


ORACLES: dict[ProblemType, dict[str, Oracle]] = {
    "binary_classification": {
        "roc_auc": lambda p, w: reference.roc_auc_score(p.positives, p.positive_scores, sample_weight=w),
        "average_precision": lambda p, w: reference.average_precision_score(
            p.positives, p.positive_scores, sample_weight=w
        ),
        "accuracy": of_labels(reference.accuracy_score),
        "f1": of_positives(reference.f1_score, zero_division=0),
        "precision": of_positives(reference.precision_score, zero_division=0),
        "recall": of_positives(reference.recall_score, zero_division=0),
        "log_loss": log_loss,
        "brier_score": lambda p, w: reference.brier_score_loss(
            p.positives, p.positive_scores, sample_weight=w
        ),
        "balanced_accuracy": of_labels(reference.balanced_accuracy_score),
        "matthews_corrcoef": of_labels(reference.matthews_corrcoef),
    },
    "multiclass_classification": {
        "accuracy": of_labels(reference.accuracy_score),
        "f1_macro": of_labels(reference.f1_score, average="macro", zero_division=0),
        "f1": of_labels(reference.f1_score, average="weighted", zero_division=0),
        "precision": of_labels(reference.precision_score, average="weighted", zero_division=0),
        "recall": of_labels(reference.recall_score, average="weighted", zero_division=0),
        "log_loss": log_loss,
        "roc_auc": multiclass_area,
        "balanced_accuracy": of_labels(reference.balanced_accuracy_score),
    },
    "regression": {
        "rmse": of_numbers(reference.root_mean_squared_error),
        "mse": of_numbers(reference.mean_squared_error),
        "mae": of_numbers(reference.mean_absolute_error),
        "r2": of_numbers(reference.r2_score),
        "mape": of_numbers(reference.mean_absolute_percentage_error),
    },
}
EACH = [(problem_type, name) for problem_type, names in METRICS.items() for name in names]


def predictions_of(problem_type: ProblemType, rows: int, seed: int, ties: bool = False) -> Predictions:
    """Random ones, better than chance; every class is there."""
    random = np.random.default_rng(seed)
    if problem_type == "regression":
        target = random.normal(50, 10, rows)
        return Predictions(problem_type, target, target + random.normal(0, 5, rows))
    count = 2 if problem_type == "binary_classification" else 3
    target = np.concatenate([np.arange(count), random.integers(0, count, rows - count)])
    scores = random.dirichlet(np.ones(count), rows) + 0.3 * np.eye(count)[target]
    if ties:
        scores = np.round(scores, 1) + 0.05
    return Predictions(problem_type, target, scores / scores.sum(axis=1, keepdims=True), seed % 2)


def test_there_is_an_oracle_for_each_metric() -> None:
    assert {kind: set(names) for kind, names in METRICS.items()} == {
        kind: set(oracles) for kind, oracles in ORACLES.items()
    }


@pytest.mark.parametrize(("problem_type", "name"), EACH)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(6, 60), seed=st.integers(0, 10_000), ties=st.booleans())
def test_each_is_scikit_learns(
    problem_type: ProblemType, name: str, rows: int, seed: int, ties: bool
) -> None:
    predictions = predictions_of(problem_type, rows, seed, ties)
    value = evaluate([name], predictions)[name]
    assert value == pytest.approx(ORACLES[problem_type][name](predictions, np.ones(rows)), abs=1e-9)


@pytest.mark.parametrize(("problem_type", "name"), EACH)
def test_a_weighted_row_counts_as_often(problem_type: ProblemType, name: str) -> None:
    """A bootstrap resample's value is that of the rows repeated."""
    predictions = predictions_of(problem_type, 40, 3, ties=True)
    for _, weights in resampled(40, 10, seed=1):
        found = weighted(name, predictions, weights)
        for value, each in zip(found, weights, strict=True):
            repeated = predictions.only(np.repeat(np.arange(40), each.astype(int)))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                wanted = ORACLES[problem_type][name](repeated, np.ones(repeated.rows))
            assert value == pytest.approx(wanted, abs=1e-9)


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 samples of 150 rows from a model whose area under the curve is known."""
    truth = evaluate(["roc_auc"], normal_scores(200_000, 0))["roc_auc"]
    held = 0
    for seed in range(1, 201):
        interval = intervals(["roc_auc"], normal_scores(150, seed), resamples=200)["roc_auc"]
        held += interval.lower <= truth <= interval.upper
    assert 0.88 < held / 200 < 0.99


def normal_scores(rows: int, seed: int) -> Predictions:
    random = np.random.default_rng(seed)
    target = np.arange(rows) % 3 // 2
    positive = 1 / (1 + np.exp(-random.normal(target, 1.0)))
    return Predictions("binary_classification", target, np.column_stack([1 - positive, positive]))


def test_intervals_are_the_same_again_and_around_the_value() -> None:
    predictions = predictions_of("binary_classification", 300, 5)
    names = METRICS["binary_classification"]
    first, second = intervals(names, predictions), intervals(names, predictions)
    assert first == second
    assert all(each.lower < each.value < each.upper for each in first.values())
    assert intervals(names, predictions, seed=1) != first


def test_memory_of_many_rows_is_cut_into_batches() -> None:
    sizes = [weights.shape for _, weights in resampled(1_500_000, 3, 0)]
    assert sizes == [(2, 1_500_000), (1, 1_500_000)]


def test_ten_metrics_of_a_thousand_resamples_take_no_time() -> None:
    predictions = predictions_of("binary_classification", 1_127, 1)
    began = time.process_time()
    intervals(METRICS["binary_classification"], predictions)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_one_class_only_has_no_curve(name: str) -> None:
    scores = np.full((20, 2), 0.5)
    with pytest.raises(MetricError, match=f"{name} has no value: the 20 rows .* need rows of two classes"):
        evaluate([name], Predictions("binary_classification", np.zeros(20, dtype=int), scores))


def test_a_constant_target_has_no_r2() -> None:
    with pytest.raises(MetricError, match="two different values"):
        evaluate(["r2"], Predictions("regression", np.ones(5), np.arange(5.0)))


def test_no_rows_are_refused() -> None:
    with pytest.raises(MetricError, match="no rows to evaluate on"):
        evaluate(["mse"], Predictions("regression", np.empty(0), np.empty(0)))


def test_an_unknown_metric_is_told_with_the_others() -> None:
    with pytest.raises(MetricError, match="no metric rmse for binary_classification: take roc_auc"):
        evaluate(["rmse"], predictions_of("binary_classification", 10, 0))


def test_a_certain_error_costs_much_but_not_everything() -> None:
    certain = Predictions("binary_classification", np.array([0, 1]), np.array([[0.0, 1.0], [0.5, 0.5]]))
    assert 10 < evaluate(["log_loss"], certain)["log_loss"] < 20


def test_the_threshold_decides_the_class() -> None:
    scores = np.array([[0.7, 0.3], [0.4, 0.6]])
    predictions = Predictions("binary_classification", np.array([1, 1]), scores, positive=1, threshold=0.3)
    assert predictions.chosen.tolist() == [1, 1]


def test_partitions_stand_in_order_with_their_rows() -> None:
    predictions = predictions_of("binary_classification", 60, 2)
    months = np.array(["2026-02", "2026-01", "2026-03"])[np.arange(60) % 3]
    months[predictions.positives & (months == "2026-03")] = "2026-01"
    found = by_partition(["roc_auc", "accuracy"], predictions, months)
    assert [each["partition"] for each in found] == ["2026-01", "2026-02", "2026-03"]
    assert sum(int(str(each["rows"])) for each in found) == 60
    assert found[2]["roc_auc"] is None
    january = predictions.only(months == "2026-01")
    assert found[0]["accuracy"] == pytest.approx((january.chosen == january.target).mean())


def test_lower_is_better_names_errors_only() -> None:
    assert {"log_loss", "brier_score", "rmse", "mse", "mae", "mape"} == LOWER_IS_BETTER
