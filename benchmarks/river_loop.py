"""The loop that a user of River would write: predict, measure, learn, one row after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from river import forest, metrics, neighbors, stream

from benchmarks.data import MONTHLY
from mlplatform.domain.model import FeatureRows
from mlplatform.domain.recipe import Recipe

Rows = Iterable[tuple[dict[str, float], float]]
# As our forest bounds itself: when it knows a window of rows, it starts anew from the newest half.
FOREST_WINDOW = 2000


class Regressor(Protocol):
    def predict_one(self, x: dict[str, float]) -> float | None: ...
    def learn_one(self, x: dict[str, float], y: float) -> object: ...


class BoundedForest:
    """River's AMF, held to the window of ours: 10.5 KB a row would else stay for ever."""

    def __init__(self, window: int = FOREST_WINDOW) -> None:
        self._window = window
        self._rows: list[tuple[dict[str, float], float]] = []
        self._forest = _forest()
        self.predict_one = self._forest.predict_one

    def learn_one(self, x: dict[str, float], y: float) -> None:
        self._rows.append((x, y))
        if len(self._rows) <= self._window:
            self._forest.learn_one(x, y)
            return
        self._rows = self._rows[-self._window // 2 :]
        self._forest = _forest()
        self.predict_one = self._forest.predict_one
        for earlier in self._rows:
            self._forest.learn_one(*earlier)


def regressors(recipes: dict[str, Recipe]) -> dict[str, Callable[[], Any]]:
    """River's counterpart of each seed model, with the parameters of our recipe."""
    return {
        "linear": lambda: recipes["linear"].estimator(12).regressor,
        "bagging": lambda: recipes["bagging"].estimator(12).regressor,
        "knn": lambda: neighbors.KNNRegressor(n_neighbors=5, engine=neighbors.LazySearch(window_size=1000)),
        "amf": BoundedForest,
    }


def swinn() -> neighbors.KNNRegressor:
    """River's default: an approximate search graph."""
    return neighbors.KNNRegressor(n_neighbors=5, engine=neighbors.SWINN(seed=1))


def differenced(
    rows: FeatureRows, recipe: Recipe, indices: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What the estimator of a recipe learns from the rows of one series: (n, k) and (n,)."""
    at = np.arange(len(rows)) if indices is None else indices
    differences = recipe.differences(MONTHLY)
    at = at[rows.available[at] >= max(differences.degree, 1)]
    lags = rows.lags[at]
    features = differences.of_lags(lags, rows.available[at])[:, : recipe.lags]
    return features, rows.value[at] - differences.reference(lags)


def named(features: np.ndarray, targets: np.ndarray) -> Iterator[tuple[dict[str, float], float]]:
    """The rows of arrays as River takes them, one after the other."""
    names = [f"in_{lag}" for lag in range(1, features.shape[1] + 1)]
    return stream.iter_array(features, targets, feature_names=names)


def run(regressor: Regressor, rows: Rows) -> float:
    """Returns the mean absolute error."""
    error = metrics.MAE()
    for x, y in rows:
        error.update(y, regressor.predict_one(x) or 0.0)
        regressor.learn_one(x, y)
    return error.get()


def _forest() -> forest.AMFRegressor:
    return forest.AMFRegressor(n_estimators=10, seed=1)
