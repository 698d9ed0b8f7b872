from __future__ import annotations

import pickle

import numpy as np
import pytest

from mlplatform.domain.row_window import RowWindow


def filled(size: int, features: np.ndarray, targets: np.ndarray) -> RowWindow:
    window = RowWindow(size)
    rows, values = window.accept(features, targets)
    slots = np.arange(len(values)) % size
    window.features[slots], window.targets[slots] = rows, values
    window.learned = len(values)
    return window


def lags(values: np.ndarray, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, width)[:, ::-1]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 37])
@pytest.mark.parametrize("width", [1, 2, 15])
@pytest.mark.parametrize("overlapping", [True, False])
def test_a_pickle_keeps_every_bit(count: int, width: int, overlapping: bool) -> None:
    generator = np.random.default_rng(0)
    special = np.array([0.0, -0.0, np.nan, np.inf, 1.0])
    series = generator.choice(special, count + width - 1)
    features = lags(series, width) if overlapping else generator.choice(special, (count, width))
    window = filled(10, features, generator.normal(size=count))
    loaded = pickle.loads(pickle.dumps(window))  # noqa: S301
    assert (loaded.learned, len(loaded)) == (count, min(count, 10))
    used = slice(len(window))
    assert loaded.features[used].tobytes() == window.features[used].tobytes()
    assert loaded.targets[used].tobytes() == window.targets[used].tobytes()


def test_overlapping_lags_are_kept_once() -> None:
    series = np.random.default_rng(0).normal(size=1_014)
    window = filled(1_000, lags(series, 15), np.zeros(1_000))
    assert len(pickle.dumps(window)) < 17 * 1_000
    window.features[500, 7] += 1.0
    assert len(pickle.dumps(window)) > 120 * 1_000


def test_an_empty_window_can_be_pickled() -> None:
    loaded = pickle.loads(pickle.dumps(RowWindow(5)))  # noqa: S301
    assert (loaded.learned, len(loaded)) == (0, 0)
    assert loaded.accept(np.zeros((2, 3)), np.zeros(2))[0].shape == (2, 3)
