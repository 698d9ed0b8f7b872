from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.lags import lag_matrix, shifted

VALUES = st.lists(st.floats(allow_nan=False), max_size=30)


def brute_force(earlier: list[float], values: list[float], lags: int) -> tuple[list[list[float]], list[int]]:
    """Lags and how many there were, one value after the other. `earlier`: newest first."""
    known = list(reversed(earlier[:lags]))
    rows, available = [], []
    for value in values:
        newest = list(reversed(known))[:lags]
        rows.append(newest + [0.0] * (lags - len(newest)))
        available.append(len(newest))
        known.append(value)
    return rows, available


@given(earlier=VALUES, values=VALUES, lags=st.integers(1, 20))
def test_lags_are_the_earlier_values_newest_first_and_zeros(
    earlier: list[float], values: list[float], lags: int
) -> None:
    matrix, available = lag_matrix(earlier, np.array(values, dtype=float), lags)
    rows, counts = brute_force(earlier, values, lags)
    assert matrix.shape == (len(values), lags)
    assert matrix.tolist() == rows
    assert available.tolist() == counts


@given(earlier=VALUES, values=VALUES, lags=st.integers(1, 20), cut=st.integers(0, 30))
def test_a_batch_goes_on_where_the_one_before_ended(
    earlier: list[float], values: list[float], lags: int, cut: int
) -> None:
    whole, available = lag_matrix(earlier, np.array(values, dtype=float), lags)
    first, rest = np.array(values[:cut], dtype=float), np.array(values[cut:], dtype=float)
    newest = [*reversed(values[:cut]), *earlier[:lags]]
    parts = [lag_matrix(earlier, first, lags), lag_matrix(newest, rest, lags)]
    assert np.vstack([matrix for matrix, _ in parts]).tolist() == whole.tolist()
    assert np.concatenate([counts for _, counts in parts]).tolist() == available.tolist()


@given(values=st.lists(st.floats(allow_nan=False), min_size=2, max_size=30), lags=st.integers(1, 20))
def test_shifting_a_row_by_its_value_gives_the_next_row(values: list[float], lags: int) -> None:
    matrix, _ = lag_matrix([], np.array(values), lags)
    for row in range(len(values) - 1):
        assert shifted(matrix[row], values[row]).tolist() == matrix[row + 1].tolist()
