"""Aggregated Mondrian forest."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator() -> RiverRegressor:
    from river import forest

    return RiverRegressor(forest.AMFRegressor(seed=1))


RECIPES = (Recipe("amf", "Aggregated Mondrian forest on differences", estimator),)
