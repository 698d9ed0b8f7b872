"""Linear regression by gradient descent."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> RiverRegressor:
    from river import linear_model, optim

    # AdaGrad divides by what the gradients have summed up to, so that no scaler is needed; behind
    # running scalers, plain gradient descent diverges on some series.
    return RiverRegressor(linear_model.LinearRegression(optim.AdaGrad(0.05), intercept_lr=0.0))


RECIPES = (Recipe("linear", "Linear regression by gradient descent, on differences", estimator),)
