"""Regression on the five nearest neighbours, found exactly."""

from mlplatform.domain.neighbors import NearestNeighbors
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> NearestNeighbors:
    return NearestNeighbors(neighbors=5, window=1000)


RECIPES = (
    Recipe(
        "knn",
        "Five nearest of the last 1,000 observations, on changes",
        estimator,
        difference="previous",
        lags=12,
        libraries=("numba",),
    ),
)
