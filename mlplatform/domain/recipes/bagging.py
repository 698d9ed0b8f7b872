"""Bagging of three ridge models."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> RiverRegressor:
    from river import ensemble, linear_model, optim

    ridge = linear_model.LinearRegression(optim.AdaGrad(0.05), l2=1.0, intercept_lr=0.0)
    return RiverRegressor(ensemble.BaggingRegressor(ridge, n_models=3, seed=1))


RECIPES = (Recipe("bagging", "Bagging of three ridge models, on differences", estimator),)
