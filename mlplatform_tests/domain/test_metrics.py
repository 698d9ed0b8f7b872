from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.metrics import WINDOWS, RollingMetrics

NUMBERS = st.integers(-(10**7), 10**7).map(lambda thousandths: thousandths / 1_000)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=60)


def measured(pairs: list[tuple[float, float]], cuts: list[int] = []) -> RollingMetrics:  # noqa: B006
    metrics = RollingMetrics()
    for part in np.split(np.array(pairs, dtype=float).reshape(-1, 2), cuts):
        metrics.update(part[:, 0], part[:, 1])
    return metrics


def brute_force(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """MAE, MSE, RMSE and MAPE by their definitions; NaN of nothing."""
    if not pairs:
        return dict.fromkeys(("mae", "mse", "rmse", "mape"), math.nan)
    actuals, predictions = np.array(pairs).T
    errors, known = actuals - predictions, actuals != 0
    relative = np.abs(errors[known] / actuals[known])
    return {
        "mae": np.mean(np.abs(errors)),
        "mse": np.mean(errors**2),
        "rmse": np.sqrt(np.mean(errors**2)),
        "mape": 100 * np.mean(relative) if known.any() else math.nan,
    }


@given(pairs=PAIRS)
def test_metrics_are_what_their_definitions_say(pairs: list[tuple[float, float]]) -> None:
    found = measured(pairs).summary()
    assert found["count"] == len(pairs)
    for suffix, last in (("", len(pairs)), *((f"_{window}", window) for window in WINDOWS)):
        for name, expected in brute_force(pairs[len(pairs) - min(last, len(pairs)) :]).items():
            assert found[name + suffix] == pytest.approx(expected, rel=1e-9, nan_ok=True)


@given(pairs=PAIRS, cuts=st.lists(st.integers(0, 60), max_size=6).map(sorted))
def test_how_observations_are_cut_into_runs_changes_no_bit(
    pairs: list[tuple[float, float]], cuts: list[int]
) -> None:
    whole, parts = measured(pairs), measured(pairs, cuts)
    assert repr(parts.summary()) == repr(whole.summary())
    assert parts.last == whole.last


def test_before_the_first_prediction_metrics_are_not_numbers() -> None:
    found = RollingMetrics().summary()
    assert found.pop("count") == 0
    assert len(found) == 4 * (1 + len(WINDOWS))
    assert all(math.isnan(value) for value in found.values())


def test_the_percentage_leaves_out_what_is_zero() -> None:
    assert measured([(0.0, 5.0), (10.0, 9.0)]).summary()["mape"] == pytest.approx(10.0)
    assert math.isnan(measured([(0.0, 5.0)]).summary()["mape"])


def test_the_last_pairs_are_kept_in_order_and_no_more_than_twenty() -> None:
    pairs = [(float(at), float(-at)) for at in range(100)]
    assert measured(pairs, [3, 50]).last == pairs[-20:]


def test_a_loaded_state_goes_on_bit_for_bit() -> None:
    pairs = [(1 / (at + 1), at / 7) for at in range(50)]
    loaded = pickle.loads(pickle.dumps(measured(pairs[:30])))  # noqa: S301
    rest = np.array(pairs[30:])
    loaded.update(rest[:, 0], rest[:, 1])
    assert loaded.summary() == measured(pairs).summary()
