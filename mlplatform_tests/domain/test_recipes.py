from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from mlplatform.domain import recipes as installed
from mlplatform.domain.estimators import RiverRegressor, Zero
from mlplatform.domain.families import Family
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform_tests.domain.recipe_checks import CHECKS, FAMILIES, check_recipe

RECIPES = load_recipes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe(name: str, check: str, family: str) -> None:
    CHECKS[check](RECIPES[name], FAMILIES[family])


class Peeking(Zero):
    """Predicts the target that it is about to learn."""

    def fold(self, features, targets):
        return targets


class Growing(Zero):
    """Keeps all that it has seen."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def fold(self, features, targets):
        self.seen += targets.tolist()
        return super().fold(features, targets)


class Cutting(Zero):
    """Predicts something else in longer batches."""

    def fold(self, features, targets):
        return super().fold(features, targets) + len(targets)


@pytest.mark.parametrize("estimator", [Peeking, Growing, Cutting])
def test_a_recipe_that_cannot_run_fails_the_checks(estimator) -> None:
    with pytest.raises(AssertionError):
        check_recipe(Recipe("wrong", "", lambda season: estimator()))


def test_baselines_come_first_and_all_models_are_there() -> None:
    names = list(RECIPES)
    assert names[:3] == ["airline_naive", "naive", "seasonal_naive"]
    assert {"linear", "bagging", "knn", "amf", "ridge", "arima"} <= set(names[3:])
    assert [RECIPES[name].baseline for name in names] == [True] * 3 + [False] * (len(names) - 3)


def test_a_digest_changes_with_what_a_prediction_depends_on() -> None:
    recipe = RECIPES["linear"]
    assert recipe.digest == replace(recipe, description="said otherwise").digest
    changed = [
        replace(recipe, lags=3),
        replace(recipe, difference="none"),
        replace(recipe, estimator=RECIPES["ridge"].estimator),
    ]
    assert len({recipe.digest, *(each.digest for each in changed)}) == 4


@pytest.mark.parametrize(
    ("difference", "seasonal", "not_seasonal"),
    [("none", (), ()), ("previous", (1,), (1,)), ("season", (12,), ()), ("both", (1, 12), (1,))],
)
def test_without_a_season_its_difference_is_left_out(difference, seasonal, not_seasonal) -> None:
    recipe = Recipe("any", "", lambda season: Zero(), difference)
    assert recipe.differences(Family(lags=14, season=12)).periods == seasonal
    assert recipe.differences(Family(lags=14)).periods == not_seasonal


def test_a_difference_leaves_an_estimator_something_to_read() -> None:
    recipe = Recipe("any", "", lambda season: Zero(), "previous")
    assert recipe.differences(Family(lags=1)).periods == ()
    assert replace(recipe, baseline=True).differences(Family(lags=1)).periods == (1,)


PLUGIN = Recipe("mine", "A plugin", lambda season: Zero())
NO_RECIPE = "mine"
NAMESAKE = replace(PLUGIN, name="linear")


def plug_in(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    entry_point = EntryPoint("mine", f"{__name__}:{name}", installed.ENTRY_POINTS)
    monkeypatch.setattr(installed, "entry_points", lambda group: [entry_point])


def test_a_recipe_can_come_from_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "PLUGIN")
    assert load_recipes()["mine"] == PLUGIN


def test_an_entry_point_that_is_no_recipe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "NO_RECIPE")
    with pytest.raises(ValueError, match=r"NO_RECIPE of mlplatform\.recipes is not a Recipe: 'mine'"):
        load_recipes()


def test_two_recipes_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "NAMESAKE")
    with pytest.raises(ValueError, match="two recipes have the name 'linear'; give one another name"):
        load_recipes()


def test_a_regressor_of_river_that_says_none_predicts_zero() -> None:
    class Silent:
        def predict_one(self, features):
            return None

    assert RiverRegressor(Silent()).predict(np.zeros(2)) == 0.0
