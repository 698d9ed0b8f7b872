from __future__ import annotations

import pickle

import numpy as np
import pytest

from mlplatform.domain.drift import DriftMonitor
from mlplatform.domain.families import Family
from mlplatform.domain.model import Model
from mlplatform.domain.recipes import load_recipes
from mlplatform_tests.domain.monthly import monthly_values
from mlplatform_tests.domain.recipe_checks import fold

MONTHLY = Family(lags=28, season=12)


def errors(count: int, size: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(scale=size, size=count))


def detections(*parts: np.ndarray) -> int:
    monitor = DriftMonitor()
    for part in parts:
        monitor.update(part)
    return monitor.detections


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_errors_of_one_size_raise_no_alarm_in_any_unit(unit: float, seed: int) -> None:
    assert detections(errors(2_000, unit, seed)) == 0


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_errors_that_triple_raise_an_alarm_in_any_unit(unit: float) -> None:
    assert detections(errors(400, unit), errors(200, 3 * unit, seed=1)) >= 1


def test_errors_that_become_smaller_raise_no_alarm() -> None:
    assert detections(errors(400, 3.0), errors(400, 1.0, seed=1)) == 0


def test_one_outlier_raises_no_alarm() -> None:
    assert detections(errors(400), np.array([1e12]), errors(400, seed=1)) == 0


def test_a_model_without_errors_raises_no_alarm() -> None:
    assert detections(np.zeros(500)) == 0


def test_it_is_quiet_on_the_errors_of_a_good_model_on_real_data() -> None:
    model = Model(load_recipes()["arima"], MONTHLY)
    fold(model, monthly_values("us_retail_employment_monthly", 744), MONTHLY)
    assert model.drift.detections == 0


def test_it_sees_the_noise_of_real_data_triple() -> None:
    values = monthly_values("us_retail_employment_monthly", 744)
    noise = np.random.default_rng(0).normal(scale=3 * 30.6, size=244)
    model = Model(load_recipes()["arima"], MONTHLY)
    fold(model, np.concatenate([values[:500], values[500:] + noise]), MONTHLY)
    assert model.drift.detections >= 1


@pytest.mark.parametrize("cut", [0, 10, 24, 25, 401, 599])
def test_batches_and_restarts_do_not_matter(cut: int) -> None:
    stream = np.concatenate([errors(400), errors(200, 3.0, seed=1)])
    monitor = DriftMonitor()
    monitor.update(stream[:cut])
    monitor = pickle.loads(pickle.dumps(monitor))  # noqa: S301
    monitor.update(stream[cut:])
    assert monitor.detections == detections(stream)
