"""Ridge regression, solved exactly as a Bayesian linear regression."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator() -> RiverRegressor:
    from river import linear_model

    return RiverRegressor(linear_model.BayesianLinearRegression())


RECIPES = (Recipe("ridge", "Bayesian linear regression on differences", estimator),)
