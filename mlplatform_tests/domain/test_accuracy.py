"""The goals for accuracy, on the shipped data; everything is deterministic, so that they can be tests."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict

import numpy as np
import pytest

from mlplatform.domain.champion import Contest
from mlplatform.domain.families import Family
from mlplatform.domain.model import Model
from mlplatform.domain.recipes import load_recipes
from mlplatform_tests.domain.monthly import DATA, monthly_values
from mlplatform_tests.domain.recipe_checks import fold

RECIPES = load_recipes()
BASELINES = {name for name, recipe in RECIPES.items() if recipe.baseline}
MONTHLY = Family(lags=28, season=12)
# Months, the error of a SARIMA fitted offline on the first half, and how many times that is allowed.
GOALS = {
    "us_retail_employment_monthly": (744, 30.6, 1.1),
    "elnino_sst_monthly": (732, 0.354, 1.15),
}


def said(name: str, values: np.ndarray) -> np.ndarray:
    return fold(Model(RECIPES[name], MONTHLY), values, MONTHLY)


def second_half_error(values: np.ndarray, predictions: np.ndarray) -> float:
    half = len(values) // 2
    return float(np.abs(values - predictions)[half:].mean())


@pytest.mark.parametrize("name", GOALS)
def test_the_arima_comes_close_to_one_that_was_fitted_offline(name: str) -> None:
    months, sarima, times = GOALS[name]
    values = monthly_values(name, months)
    assert second_half_error(values, said("arima", values)) <= times * sarima


@pytest.mark.parametrize("name", GOALS)
def test_what_the_champion_serves_comes_close_to_one_that_was_fitted_offline(name: str) -> None:
    months, sarima, times = GOALS[name]
    values = monthly_values(name, months)
    predictions = {recipe: said(recipe, values) for recipe in RECIPES}
    contest, served = Contest(), []
    for at, value in enumerate(values):
        now = {recipe: float(predictions[recipe][at]) for recipe in RECIPES}
        served.append(contest.predict(now, set(RECIPES) - BASELINES)[1])
        contest.learn(at, float(value), now, set(RECIPES) - BASELINES)
    assert second_half_error(values, np.array(served)) <= times * sarima
    assert contest.loses_to(BASELINES) is None


def test_over_all_employment_series_the_arima_beats_the_best_baseline_by_a_tenth() -> None:
    of_series: dict[str, list[float]] = defaultdict(list)
    with gzip.open(DATA / "us_employment_by_series.csv.gz", "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            of_series[row["series_id"]].append(float(row["value"]))
    long_enough = [np.array(values) for values in of_series.values() if len(values) >= 240]
    assert len(long_enough) == 146
    ratios = [
        second_half_error(values, said("arima", values))
        / min(second_half_error(values, said(baseline, values)) for baseline in BASELINES)
        for values in long_enough
    ]
    assert np.median(ratios) <= 0.90
