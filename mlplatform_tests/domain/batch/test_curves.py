from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from mlplatform.domain.batch import curves
from mlplatform.domain.batch.metrics import Predictions


def predictions_of(rows: int, seed: int = 0, classes: int = 2) -> Predictions:
    random = np.random.default_rng(seed)
    target = np.concatenate([np.arange(classes), random.integers(0, classes, rows - classes)])
    scores = np.round(random.dirichlet(np.ones(classes), rows) + 0.2 * np.eye(classes)[target], 2)
    scores /= scores.sum(axis=1, keepdims=True)
    kind = "binary_classification" if classes == 2 else "multiclass_classification"
    return Predictions(kind, target, scores)


@given(rows=st.integers(3, 150), seed=st.integers(0, 1_000))
def test_curves_are_scikit_learns(rows: int, seed: int) -> None:
    predictions = predictions_of(rows, seed)
    truth, scores = predictions.positives, predictions.positive_scores
    x, y, _ = reference.roc_curve(truth, scores, drop_intermediate=False)
    curve = curves.roc(predictions)
    assert np.allclose(curve.x, x)
    assert np.allclose(curve.y, y)
    precision, recall, _ = reference.precision_recall_curve(truth, scores)
    curve = curves.precision_recall(predictions)
    # Scikit-learn adds the point (0, 1), and begins with the lowest score.
    assert np.allclose(curve.x, recall[:-1][::-1])
    assert np.allclose(curve.y, precision[:-1][::-1])


def test_many_points_are_thinned_without_a_visible_difference() -> None:
    random = np.random.default_rng(0)
    target = np.arange(50_000) % 2
    positive = 1 / (1 + np.exp(-random.normal(target, 1)))
    predictions = Predictions("binary_classification", target, np.column_stack([1 - positive, positive]))
    curve = curves.roc(predictions)
    assert len(curve.x) <= curves.POINTS + 2
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    area = reference.roc_auc_score(target, positive)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(area, abs=2e-3)


def test_calibration_counts_each_row_once() -> None:
    predictions = predictions_of(1_003)
    points = curves.calibration(predictions)
    assert points.rows.sum() == 1_003
    assert points.rows.max() - points.rows.min() <= 1
    assert (np.diff(points.probability) >= 0).all()
    assert (points.share * points.rows).sum() == pytest.approx(predictions.positives.sum())
    assert len(curves.calibration(predictions_of(4)).rows) == 4


@pytest.mark.parametrize("classes", [2, 3])
def test_confusion_is_scikit_learns(classes: int) -> None:
    predictions = predictions_of(90, classes=classes)
    wanted = reference.confusion_matrix(predictions.target, predictions.chosen)
    assert curves.confusion(predictions).tolist() == wanted.tolist()


def test_the_largest_importances_come_first() -> None:
    importances = {"b": 0.2, "c": 0.6, "a": 0.2}
    assert list(curves.largest(importances)) == ["c", "a", "b"]
    assert list(curves.largest(importances, 1)) == ["c"]


def test_a_sample_is_spread_over_all_rows() -> None:
    assert curves.sample(3).tolist() == [0, 1, 2]
    rows = curves.sample(10_000, 100)
    assert len(rows) == 100
    assert (rows[0], rows[-1]) == (0, 9_999)
