"""Ridge regression, solved exactly as it goes."""

from mlplatform.domain.least_squares import RecursiveLeastSquares
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> RecursiveLeastSquares:
    return RecursiveLeastSquares(memory=1.0, ridge=100.0)


RECIPES = (
    Recipe(
        "ridge",
        "Ridge regression on all changes that there are",
        estimator,
        difference="previous",
        libraries=("numba",),
    ),
)
