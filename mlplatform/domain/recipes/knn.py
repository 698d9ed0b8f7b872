"""Regression on the five nearest neighbours, found exactly."""

from mlplatform.domain.estimators import RiverRegressor
from mlplatform.domain.recipe import Recipe


def estimator() -> RiverRegressor:
    from river import neighbors

    engine = neighbors.LazySearch(window_size=1000)
    return RiverRegressor(neighbors.KNNRegressor(n_neighbors=5, engine=engine))


RECIPES = (Recipe("knn", "Five nearest of the last 1,000 observations, on differences", estimator),)
