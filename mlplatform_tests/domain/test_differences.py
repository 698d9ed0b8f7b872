from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.differences import Differences
from mlplatform.domain.lags import lag_matrix

PERIODS = st.lists(st.integers(1, 6), max_size=3).map(tuple)
# Sums of whole numbers are exact, in any order.
VALUES = st.lists(st.integers(-(10**6), 10**6).map(float), min_size=1, max_size=40).map(np.array)


def brute_force(values: np.ndarray, periods: tuple[int, ...]) -> dict[int, float]:
    """The difference at each index that has one, by differencing the series period after period."""
    found = dict(enumerate(values.tolist()))
    for period in periods:
        found = {at: value - found[at - period] for at, value in found.items() if at - period in found}
    return found


@pytest.mark.parametrize(
    ("periods", "degree"), [((), 0), ((1,), 1), ((12,), 12), ((1, 12), 13), ((1, 1), 2), ((2, 3, 4), 9)]
)
def test_the_degree_is_how_many_earlier_values_a_difference_needs(
    periods: tuple[int, ...], degree: int
) -> None:
    differences = Differences(periods)
    assert differences.degree == degree
    assert min(brute_force(np.zeros(20), periods)) == degree


@given(values=VALUES, periods=PERIODS, width=st.integers(1, 5))
def test_differences_of_lags_are_those_of_the_series_and_zero_where_a_value_is_missing(
    values: np.ndarray, periods: tuple[int, ...], width: int
) -> None:
    differences = Differences(periods)
    lags, available = lag_matrix([], values, differences.degree + width)
    expected = brute_force(values, periods)
    found = differences.of_lags(lags, available)
    assert found.shape == (len(values), width)
    for row in range(len(values)):
        assert found[row].tolist() == [expected.get(row - lag, 0.0) for lag in range(1, width + 1)]


@given(values=VALUES, periods=PERIODS)
def test_a_difference_and_its_reference_make_the_value_again(
    values: np.ndarray, periods: tuple[int, ...]
) -> None:
    differences = Differences(periods)
    lags, _ = lag_matrix([], values, differences.degree + 1)
    reference = differences.reference(lags)
    for at, difference in brute_force(values, periods).items():
        assert reference[at] + difference == values[at]


@given(values=VALUES)
def test_without_periods_a_difference_is_the_value_itself(values: np.ndarray) -> None:
    lags, available = lag_matrix([], values, 3)
    differences = Differences()
    assert differences.of_lags(lags, available).tolist() == lags.tolist()
    assert differences.reference(lags).tolist() == [0.0] * len(values)


@given(values=VALUES, periods=PERIODS)
def test_a_row_has_the_same_differences_in_any_batch(values: np.ndarray, periods: tuple[int, ...]) -> None:
    differences = Differences(periods)
    lags, available = lag_matrix([], values / 3, differences.degree + 4)
    whole, references = differences.of_lags(lags, available), differences.reference(lags)
    for row in range(len(values)):
        one = slice(row, row + 1)
        assert differences.of_lags(lags[one], available[one]).tobytes() == whole[one].tobytes()
        assert differences.reference(lags[one]).tobytes() == references[one].tobytes()
