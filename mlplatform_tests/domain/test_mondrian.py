from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import forest

from mlplatform.domain.mondrian import MondrianForest
from mlplatform_tests.domain.monthly import monthly_rows, river_fold

SERIES = {"us_retail_employment_monthly": 744, "elnino_sst_monthly": 732}
WINDOW = 40
MASK = (1 << 64) - 1


def random_rows(count: int, width: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, width))
    return features, features[:, 0] + generator.normal(size=count)


def mixed(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


class SplitMix64:
    """The random numbers of one of our trees, in the form in which a tree of River asks for them."""

    def __init__(self, seed: int, number: int) -> None:
        self.state = mixed(mixed((mixed(seed) + number) & MASK))

    def _next(self) -> float:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        return ((mixed(self.state) >> 12) + 0.5) * 2.0**-52

    def random(self) -> float:
        return 1.0 - self._next()

    def uniform(self, lower: float, upper: float) -> float:
        return lower + (upper - lower) * self._next()

    def choices(self, population: list[str], weights: list[float], k: int = 1) -> list[str]:
        remaining = self._next() * sum(weights)
        chosen = population[0]
        for item, weight in zip(population, weights, strict=True):
            if remaining >= 0.0:
                chosen = item
            remaining -= weight
        return [chosen]


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("scaled", [False, True])
def test_with_the_same_random_numbers_it_is_rivers_forest(name: str, scaled: bool) -> None:
    features, targets = monthly_rows(name, SERIES[name])
    scale = targets.std() if scaled else 1.0
    river = forest.AMFRegressor(n_estimators=3, seed=1)
    river._initialize_trees()
    for number, tree in enumerate(river):
        tree._rng = SplitMix64(7, number)
    ours = MondrianForest(trees=3, seed=7).fold(features / scale, targets / scale)
    np.testing.assert_allclose(
        ours, river_fold(river, features / scale, targets / scale), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", SERIES)
def test_error_is_rivers(name: str) -> None:
    features, targets = monthly_rows(name, SERIES[name])
    ours = [np.abs(MondrianForest(seed=seed).fold(features, targets) - targets).mean() for seed in range(8)]
    river = [
        np.abs(river_fold(forest.AMFRegressor(seed=seed), features, targets) - targets).mean()
        for seed in range(2)
    ]
    assert np.mean(ours) == pytest.approx(np.mean(river), rel=0.04)


def test_prediction_is_the_weighted_mean_of_all_prunings() -> None:
    features, targets = random_rows(9)
    model = MondrianForest(trees=1, step=0.7)
    model.fold(features, targets)
    trees, branches, leaves, _ = model._forest()

    def prunings(node: int, row: np.ndarray) -> Iterator[tuple[float, float]]:
        """Weight and prediction for the row of each pruning of a subtree; NaN if the row is elsewhere."""
        if node < 0:
            yield math.exp(leaves[0, ~node]["weight"]), leaves[0, ~node]["mean"]
            return
        branch = branches[0, node]
        yield math.exp(branch["weight"]) / 2.0, branch["mean"]
        goes_left = row[branch["feature"]] <= branch["threshold"]
        for left_weight, left in prunings(branch["left"], row):
            for right_weight, right in prunings(branch["right"], row):
                yield left_weight * right_weight / 2.0, left if goes_left else right

    assert trees[0]["branches"] == len(targets) - 1
    for row in random_rows(20, seed=1)[0]:
        weights, means = np.array(list(prunings(trees[0]["root"], row))).T
        assert model.predict(row) == pytest.approx(np.average(means, weights=weights), rel=1e-12)


@pytest.mark.parametrize("count", [WINDOW // 2, WINDOW, 5 * WINDOW])
def test_a_branch_holds_what_its_cell_holds(count: int) -> None:
    features, targets = random_rows(count)
    model = MondrianForest(trees=4, window=WINDOW)
    model.fold(features, targets)
    trees, branches, leaves, boxes = model._forest()

    def check(number: int, node: int, rows: np.ndarray) -> None:
        record = leaves[number, ~node] if node < 0 else branches[number, node]
        assert record["count"] == len(rows)
        assert record["mean"] == pytest.approx(targets[rows].mean())
        if node >= 0:
            growing = rows[rows < trees[number]["start"] + WINDOW // 2]
            np.testing.assert_array_equal(boxes[number, node, 0], features[growing].min(axis=0))
            np.testing.assert_array_equal(boxes[number, node, 1], features[growing].max(axis=0))
            left = features[rows, record["feature"]] <= record["threshold"]
            check(number, record["left"], rows[left])
            check(number, record["right"], rows[~left])

    for number, tree in enumerate(trees):
        check(number, tree["root"], np.arange(tree["start"], count))


def test_copies_of_one_row_share_a_leaf() -> None:
    model = MondrianForest(window=WINDOW)
    model.fold(np.ones((10, 3)), np.arange(10.0))
    assert model.predict(np.ones(3)) == pytest.approx(4.5)


@given(cuts=st.lists(st.integers(0, 3 * WINDOW), max_size=8).map(sorted))
@settings(max_examples=30, deadline=None)
def test_batches_do_not_matter(cuts: list[int]) -> None:
    features, targets = random_rows(3 * WINDOW)
    whole = MondrianForest(window=WINDOW).fold(features, targets)
    parts = MondrianForest(window=WINDOW)
    pieces = zip(np.split(features, cuts), np.split(targets, cuts), strict=True)
    assert np.concatenate([parts.fold(*piece) for piece in pieces]).tolist() == whole.tolist()


@pytest.mark.parametrize("cut", [0, 1, WINDOW // 2, WINDOW - 1, WINDOW, 3 * WINDOW + 7])
def test_a_loaded_forest_goes_on_bit_for_bit(cut: int) -> None:
    features, targets = random_rows(5 * WINDOW)
    model = MondrianForest(window=WINDOW)
    model.fold(features[:cut], targets[:cut])
    loaded = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert loaded.predict(features[0]) == model.predict(features[0])
    assert pickle.dumps(loaded) == pickle.dumps(model)
    assert (
        loaded.fold(features[cut:], targets[cut:]).tolist()
        == model.fold(features[cut:], targets[cut:]).tolist()
    )


@pytest.mark.parametrize("trees", [1, 3, 10])
@pytest.mark.parametrize("window", [2, 3, 7, WINDOW])
def test_a_tree_knows_half_of_the_window_to_all_of_it(trees: int, window: int) -> None:
    features, targets = random_rows(5 * window + 1)
    model = MondrianForest(trees=trees, window=window)
    starts = [np.zeros(trees)]
    for learned in range(1, len(targets) + 1):
        model.fold(features[learned - 1 : learned], targets[learned - 1 : learned])
        grown = model._forest()[0]
        starts.append(grown["start"].copy())
        assert (grown["learned"] == learned).all()
        assert (learned - grown["start"] <= window).all()
        assert (learned - grown["start"] >= min(window // 2, learned)).all()
        assert (grown["branches"] < max(window // 2, 1)).all()
    if window >= 2 * trees:
        assert (np.count_nonzero(np.diff(starts, axis=0), axis=1) <= 1).all()


def test_snapshot_stops_growing_and_keeps_overlapping_lags_once() -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    lags = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(values[:-1], 15)[:, ::-1])
    model, sizes = MondrianForest(), []
    for first in range(0, 4_500, 500):
        model.fold(lags[first : first + 500], values[first + 15 : first + 515])
        sizes.append(len(pickle.dumps(model)))
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]
    # The count of rows itself may need another byte or two.
    assert max(sizes[3:]) - min(sizes[3:]) <= 4
    assert sizes[-1] < 2_000 * 17 + 1_000


def test_predict_changes_nothing() -> None:
    features, targets = random_rows(100)
    asked, unasked = MondrianForest(window=WINDOW), MondrianForest(window=WINDOW)
    assert asked.predict(features[0]) == 0.0
    for first in range(0, 100, 10):
        asked.fold(features[first : first + 10], targets[first : first + 10])
        unasked.fold(features[first : first + 10], targets[first : first + 10])
        before = pickle.dumps(asked)
        assert len({asked.predict(features[0]) for _ in range(3)}) == 1
        assert pickle.dumps(asked) == before
    assert asked.fold(features, targets).tolist() == unasked.fold(features, targets).tolist()


def test_a_poisoned_row_is_forgotten() -> None:
    features, targets = random_rows(4 * WINDOW)
    features[3, 1], targets[5] = math.inf, math.nan
    predictions = MondrianForest(window=WINDOW).fold(features, targets)
    assert np.isnan(predictions[6:WINDOW]).any()
    assert np.isfinite(predictions[2 * WINDOW :]).all()


def test_seeds_differ() -> None:
    features, targets = random_rows(50)
    assert (
        MondrianForest(seed=1).fold(features, targets)[-1]
        != MondrianForest(seed=2).fold(features, targets)[-1]
    )


def test_layout_and_type_of_the_rows_do_not_matter() -> None:
    features, targets = np.arange(30).reshape(10, 3) % 7, np.arange(10)
    expected = MondrianForest().fold(features.astype(float), targets.astype(float))
    frozen = np.asfortranarray(features, dtype=float)
    frozen.flags.writeable = False
    assert MondrianForest().fold(frozen, targets).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("features", "targets"),
    [
        (np.zeros((2, 3)), np.zeros(3)),
        (np.zeros((2, 4)), np.zeros(2)),
        (np.zeros(3), np.zeros(1)),
        (np.zeros((1, 3)), np.zeros((1, 1))),
    ],
)
def test_rows_that_do_not_fit_are_refused(features: np.ndarray, targets: np.ndarray) -> None:
    model = MondrianForest()
    model.fold(np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(ValueError, match="shape"):
        model.fold(features, targets)
    with pytest.raises(ValueError, match="shape"):
        model.predict(np.zeros(4))


def test_rows_without_features_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        MondrianForest().fold(np.zeros((1, 0)), np.zeros(1))


def test_processes_agree() -> None:
    code = """
import pickle
import numpy as np
from mlplatform.domain.mondrian import MondrianForest

values = np.random.default_rng(0).normal(size=(100, 4))
model = MondrianForest(window=40)
print(model.fold(values[:, :3], values[:, 3]).tobytes().hex(), pickle.dumps(model).hex())
"""
    outputs = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hash_seed})
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
