from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.estimators import Zero
from mlplatform.domain.families import Families, Family
from mlplatform.domain.lags import lag_matrix
from mlplatform.domain.model import FeatureRows, Model, ModelError, ModelSet
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform_tests.domain.recipe_checks import fold, series

RECIPES = load_recipes()
SEASONAL = Family("seasonal", ("s*",), lags=14, season=12)
FAMILIES = Families((SEASONAL, Family("short", ("x",), lags=5)))


class Remembering(Zero):
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.features: list[list[float]] = []
        self.targets: list[float] = []

    def fold(self, features, targets):
        self.features += features.tolist()
        self.targets += targets.tolist()
        return super().fold(features, targets)


class Broken(Zero):
    """Stops being a number at the fifth row."""

    def fold(self, features, targets):
        return np.where(np.arange(len(targets)) == 4, np.nan, 0.0)


def feature_rows(values: dict[str, np.ndarray], families: Families = FAMILIES) -> FeatureRows:
    """One row of each series in turn, as the log would have them."""
    made = []
    for name, of_series in values.items():
        width = families.of(name).lags
        lags, available = lag_matrix([], of_series, width)
        lags = np.hstack([lags, np.full((len(lags), families.widest - width), np.nan)])
        made += [(at, name, of_series[at], available[at], lags[at]) for at in range(len(of_series))]
    made.sort(key=lambda row: row[:2])
    offsets, names, observed, available, lags = zip(*made, strict=True)
    return FeatureRows(
        position=np.arange(len(made)),
        series_id=np.array(names, dtype=object),
        offset=np.array(offsets),
        event_time=np.array(offsets),
        value=np.array(observed),
        available=np.array(available),
        lags=np.array(lags),
    )


def part(rows: FeatureRows, start: int, end: int | None = None) -> FeatureRows:
    return FeatureRows(**{name: column[start:end] for name, column in vars(rows).items()})


def test_an_estimator_sees_differences_of_lags_and_the_difference_as_target() -> None:
    model = Model(Recipe("any", "", lambda season: Remembering(), "previous", lags=2), Family(lags=4))
    fold(model, np.array([1.0, 3.0, 6.0, 10.0, 15.0]), Family(lags=4))
    assert model.estimator.features == [[0, 0], [2, 0], [3, 2], [4, 3]]
    assert model.estimator.targets == [2, 3, 4, 5]


def test_an_estimator_is_made_for_the_season_of_the_family() -> None:
    seasons = []
    for family in (SEASONAL, Family()):
        Model(Recipe("any", "", lambda season: seasons.append(season) or Zero()), family)
    assert seasons == [12, None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("naive", lambda y, t: y[t - 1]),
        ("seasonal_naive", lambda y, t: y[t - 12]),
        ("airline_naive", lambda y, t: y[t - 1] + y[t - 12] - y[t - 13]),
    ],
)
def test_baselines_are_their_formulas_once_enough_is_known(name: str, expected) -> None:
    values = series(40)
    said = fold(Model(RECIPES[name], SEASONAL), values, SEASONAL)
    for at in range(13, 40):
        assert said[at] == pytest.approx(expected(values, at), rel=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_until_a_difference_can_be_taken_the_last_value_is_predicted(name: str) -> None:
    values, model = series(40), Model(RECIPES[name], SEASONAL)
    waits = max(RECIPES[name].differences(SEASONAL).degree, 1)
    said = fold(model, values, SEASONAL)
    assert said[:waits].tolist() == [0.0, *values[: waits - 1].tolist()]


def test_a_prediction_made_of_nothing_does_not_count() -> None:
    model = Model(RECIPES["naive"], SEASONAL)
    fold(model, series(10), SEASONAL)
    assert model.next_offset == 10
    assert model.metrics.count == 9


def test_metrics_are_in_the_unit_of_the_data() -> None:
    values, model = series(60), Model(RECIPES["linear"], SEASONAL)
    said = fold(model, values, SEASONAL)
    assert model.metrics.summary()["mae"] == pytest.approx(np.abs(values - said)[1:].mean())


def test_a_naive_forecast_stays_and_a_seasonal_one_repeats_the_last_year() -> None:
    values = series(50)
    naive, seasonal = (Model(RECIPES[name], SEASONAL) for name in ("naive", "seasonal_naive"))
    fold(naive, values, SEASONAL)
    fold(seasonal, values, SEASONAL)
    assert naive.forecast(5) == [values[-1]] * 5
    assert seasonal.forecast(24) == pytest.approx([*values[-12:], *values[-12:]])


@pytest.mark.parametrize("difference", ["none", "previous", "both"])
def test_a_prediction_that_is_no_number_is_refused_with_its_offset(difference) -> None:
    recipe = Recipe("broken", "", lambda season: Broken(), difference)
    model = Model(recipe, SEASONAL)
    offset = 4 + max(recipe.differences(SEASONAL).degree, 1)
    with pytest.raises(ModelError, match=f"the prediction of offset {offset} is not finite"):
        fold(model, series(40), SEASONAL)


def test_each_series_of_a_shard_is_learned_as_if_it_were_alone() -> None:
    values = {"s1": series(40), "x": series(30, seed=1), "s2": series(35, seed=2)}
    recipes = (RECIPES["linear"], RECIPES["naive"])
    rows, models = feature_rows(values), ModelSet(recipes, FAMILIES)
    said = models.fold(rows)
    for recipe in recipes:
        for name, of_series in values.items():
            alone = fold(Model(recipe, FAMILIES.of(name)), of_series, FAMILIES.of(name))
            assert said[recipe.name][rows.series_id == name].tobytes() == alone.tobytes()


@pytest.mark.parametrize("cut", [1, 2, 50, 104])
def test_a_shard_goes_on_after_a_restart_bit_for_bit(cut: int) -> None:
    rows = feature_rows({"s1": series(40), "x": series(30, seed=1), "s2": series(35, seed=2)})
    recipes = (RECIPES["linear"], RECIPES["arima"])
    expected = ModelSet(recipes, FAMILIES).fold(rows)
    models = ModelSet(recipes, FAMILIES)
    first = models.fold(part(rows, 0, cut))
    loaded = pickle.loads(pickle.dumps(models))  # noqa: S301
    rest = loaded.fold(part(rows, cut))
    for name in expected:
        assert np.concatenate([first[name], rest[name]]).tobytes() == expected[name].tobytes()


def test_a_shard_without_new_rows_changes_nothing() -> None:
    models = ModelSet((RECIPES["naive"],), FAMILIES)
    rows = feature_rows({"x": series(5)})
    assert models.fold(part(rows, 0, 0))["naive"].tolist() == []
    assert models.models == {}


def test_a_model_that_cannot_learn_is_named_with_its_series_and_offset() -> None:
    models = ModelSet((RECIPES["naive"],), FAMILIES)
    rows = feature_rows({"x": series(5)})
    with pytest.raises(ModelError, match="model 'naive' of series 'x': expected offset 0, got \\[1, 2, 3\\]"):
        models.fold(part(rows, 1))


def test_a_forgotten_series_starts_anew_and_the_others_go_on() -> None:
    models = ModelSet((RECIPES["linear"],), FAMILIES)
    rows = feature_rows({"s1": series(40), "x": series(30, seed=1)})
    expected = models.fold(rows)["linear"]
    models.forget(["x"])
    assert {name for _, name in models.models} == {"s1"}
    mine = FeatureRows(**{name: column[rows.series_id == "x"] for name, column in vars(rows).items()})
    assert models.fold(mine)["linear"].tobytes() == expected[rows.series_id == "x"].tobytes()


def test_versions_name_each_recipe_by_its_digest() -> None:
    models = ModelSet((RECIPES["linear"], RECIPES["naive"]), FAMILIES)
    assert models.versions == {name: RECIPES[name].digest for name in ("linear", "naive")}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "family", [Family("long", lags=28, season=12), Family("short", lags=5), Family("usual", lags=15)]
)
@pytest.mark.parametrize("start", [0, 7])
def test_a_caller_with_some_of_the_lags_is_told_what_the_log_says(
    name: str, family: Family, start: int
) -> None:
    """15 lags in each call, and more or fewer in the family: the same predictions, bit for bit."""
    values = np.concatenate([np.zeros(start), series(80)])
    expected = fold(Model(RECIPES[name], family), values, family)
    given, _ = lag_matrix([], values, 15)
    model, said = Model(RECIPES[name], family), []
    for offset, value in enumerate(values):
        (ahead,) = model.forecast(1, given[offset])
        lags, available = model.shown(given[offset])
        said += model.fold(
            np.array([offset]), lags[None, :], np.array([available]), np.array([value])
        ).tolist()
        assert ahead == pytest.approx(said[-1], rel=1e-12, abs=1e-12)
    assert np.array(said).tobytes() == expected.tobytes()


numbers = st.lists(st.integers(-3, 3).map(float), max_size=12)


@given(past=numbers, given_lags=numbers)
def test_other_lags_than_the_series_has_are_taken_as_they_are(
    past: list[float], given_lags: list[float]
) -> None:
    family = Family(lags=7)
    model = Model(RECIPES["naive"], family)
    if past:
        fold(model, np.array(past), family)
    own = [*past[::-1], *[0.0] * 7][:7]
    lags, available = model.shown(np.array(given_lags))
    newest = given_lags[:7]
    if newest == own[: len(newest)]:
        assert (lags.tolist(), available) == (own, min(len(past), 7))
    else:
        assert lags.tolist() == [*newest, *[0.0] * (7 - len(newest))]
        assert not any(newest[available:])
        assert available == 0 or newest[available - 1] != 0


def test_what_a_caller_gives_changes_nothing() -> None:
    model, untouched = Model(RECIPES["linear"], SEASONAL), Model(RECIPES["linear"], SEASONAL)
    for each in (model, untouched):
        fold(each, series(40), SEASONAL)
    model.forecast(10, np.arange(14.0))
    model.shown(np.arange(14.0))
    assert model.forecast(10) == untouched.forecast(10)
