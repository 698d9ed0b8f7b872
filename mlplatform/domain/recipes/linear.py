"""Linear regression by stochastic gradient descent."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator() -> RiverRegressor:
    from river import linear_model, preprocessing

    regressor = preprocessing.StandardScaler() | linear_model.LinearRegression()
    return RiverRegressor(preprocessing.TargetStandardScaler(regressor))


RECIPES = (Recipe("linear", "Linear regression on scaled differences, by gradient descent", estimator),)
