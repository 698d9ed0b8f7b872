from __future__ import annotations

import numpy as np
import pytest

from mlplatform.domain.least_squares import RecursiveLeastSquares
from mlplatform_tests.domain.monthly import monthly_rows

RIDGE = 10.0
# How fast the running scale of the errors moves, see `kernels.fold_least_squares`.
FADE = 0.05


def solved_anew(features: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """What the weighted ridge regression on all rows before says of each row."""
    size = features.shape[1]
    precision, moment, scale, predictions = ridge * np.eye(size), np.zeros(size), 0.0, []
    for row, (x, target) in enumerate(zip(features, targets, strict=True)):
        predictions.append(x @ np.linalg.solve(precision, moment))
        error = abs(target - predictions[-1])
        scale += (error - scale) * max(1 / (row + 1), FADE)
        precision += np.outer(x, x) / scale**2
        moment += x * target / scale**2
    return np.array(predictions)


@pytest.mark.parametrize("name", ["us_retail_employment_monthly", "elnino_sst_monthly"])
def test_without_innovations_it_is_ridge_regression_solved_anew_at_each_row(name: str) -> None:
    features, targets = monthly_rows(name, 300, lags=5)
    ours = RecursiveLeastSquares(ridge=RIDGE).fold(features, targets)
    np.testing.assert_allclose(ours, solved_anew(features, targets, RIDGE), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("unit", [2.0**-30, 2.0**30])
def test_the_unit_does_not_matter(unit: float) -> None:
    features, targets = monthly_rows("us_retail_employment_monthly", 300, lags=5)
    plain = RecursiveLeastSquares((12, 24), memory=0.99).fold(features, targets)
    scaled = RecursiveLeastSquares((12, 24), memory=0.99).fold(unit * features, unit * targets)
    np.testing.assert_allclose(scaled, unit * plain, rtol=1e-6)


def test_with_innovations_it_finds_a_moving_average() -> None:
    shocks = np.random.default_rng(0).normal(size=3_000)
    targets = shocks.copy()
    targets[1:] -= 0.7 * shocks[:-1]
    predictions = RecursiveLeastSquares((1,)).fold(np.zeros((3_000, 1)), targets)
    assert np.var((targets - predictions)[1_000:]) == pytest.approx(np.var(shocks[1_000:]), rel=0.05)


def test_forecast_rows_have_innovations_of_zero() -> None:
    shocks = np.random.default_rng(0).normal(size=500)
    targets = shocks.copy()
    targets[1:] -= 0.7 * shocks[:-1]
    model = RecursiveLeastSquares((1,))
    model.fold(np.zeros((500, 1)), targets)
    assert model.predict(np.zeros(1)) != 0.0
    assert model.predict(np.zeros(1), ahead=1) == 0.0


def test_with_a_memory_it_follows_a_change() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1_000, 1))
    slope = np.where(np.arange(1_000) < 500, 1.0, -1.0)
    targets = slope * features[:, 0] + 0.1 * generator.normal(size=1_000)
    error = {}
    for memory in (0.95, 1.0):
        predictions = RecursiveLeastSquares(memory=memory).fold(features, targets)
        error[memory] = np.abs(targets - predictions)[700:].mean()
    assert error[0.95] < 0.15
    assert error[0.95] < error[1.0]


def test_before_anything_was_learned_it_predicts_zero() -> None:
    assert RecursiveLeastSquares().predict(np.ones(3)) == 0.0
