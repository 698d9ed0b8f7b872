from __future__ import annotations

import pickle

import numpy as np
import pytest
from river import neighbors

from mlplatform.domain.neighbors import NearestNeighbors
from mlplatform_tests.domain.monthly import monthly_rows, river_fold


def river_neighbors(count: int, window: int) -> neighbors.KNNRegressor:
    engine = neighbors.LazySearch(window_size=window, min_distance_keep=0.0)
    return neighbors.KNNRegressor(n_neighbors=count, engine=engine, aggregation_method="mean")


@pytest.mark.parametrize("window", [100, 1000])
@pytest.mark.parametrize(
    ("name", "months"), [("us_retail_employment_monthly", 744), ("elnino_sst_monthly", 732)]
)
def test_predicts_as_river_does(name: str, months: int, window: int) -> None:
    features, targets = monthly_rows(name, months)
    ours = NearestNeighbors(window=window).fold(features, targets)
    np.testing.assert_allclose(ours, river_fold(river_neighbors(5, window), features, targets), rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_ties_are_broken_as_river_does(count: int) -> None:
    generator = np.random.default_rng(0)
    features = generator.integers(0, 3, size=(300, 3)).astype(float)
    targets = generator.normal(size=300)
    ours = NearestNeighbors(neighbors=count, window=50).fold(features, targets)
    theirs = river_fold(river_neighbors(count, 50), features, targets)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_a_loaded_model_goes_on_bit_for_bit_in_any_batches() -> None:
    generator = np.random.default_rng(0)
    features, targets = generator.normal(size=(200, 4)), generator.normal(size=200)
    whole = NearestNeighbors(window=30).fold(features, targets)
    model, predictions = NearestNeighbors(window=30), []
    for row in range(200):
        model = pickle.loads(pickle.dumps(model))  # noqa: S301
        assert model.predict(features[row]) == whole[row]
        predictions += model.fold(features[row : row + 1], targets[row : row + 1]).tolist()
    assert predictions == whole.tolist()


def test_before_anything_was_learned_it_predicts_zero() -> None:
    assert NearestNeighbors().predict(np.ones(3)) == 0.0
