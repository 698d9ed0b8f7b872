"""Bagging of three ridge models."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator() -> RiverRegressor:
    from river import ensemble, linear_model, preprocessing

    ridge = preprocessing.StandardScaler() | linear_model.LinearRegression(l2=1.0)
    bagging = ensemble.BaggingRegressor(ridge, n_models=3, seed=1)
    return RiverRegressor(preprocessing.TargetStandardScaler(bagging))


RECIPES = (Recipe("bagging", "Bagging of three ridge models on scaled differences", estimator),)
