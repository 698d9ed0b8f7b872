"""A seasonal ARIMA that is estimated as it goes."""

from mlplatform.domain.least_squares import RecursiveLeastSquares
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> RecursiveLeastSquares:
    innovations = (season, 2 * season) if season else (1,)
    return RecursiveLeastSquares(innovations, memory=0.995, ridge=10.0)


RECIPES = (
    Recipe(
        "arima",
        "ARIMA (3,1,0)(0,1,2) with the season of the family, by recursive least squares",
        estimator,
        lags=3,
        libraries=("numba",),
    ),
)
