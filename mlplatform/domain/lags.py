"""Lag features: the earlier values of a series, newest first, zero-filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def lag_matrix(earlier: Sequence[float], values: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """The lag features of consecutive values of one series.

    Args:
        earlier: values before the first of `values`, newest first; at most `lags` of them are read.
        values: (n,) consecutive values.

    Returns:
        (n, lags) with `in_1` (the newest earlier value) in the first column and zeros where there is
        no earlier value, and (n,) how many earlier values each row has, at most `lags`.
    """
    known = np.asarray(earlier[:lags], dtype=float)[::-1]
    padded = np.concatenate([np.zeros(lags - len(known)), known, values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, lags)[: len(values)]
    available = np.minimum(len(known) + np.arange(len(values)), lags)
    return np.ascontiguousarray(windows[:, ::-1]), available


def shifted(lags: np.ndarray, value: float) -> np.ndarray:
    """The lags (newest first) one observation later, when `value` was observed."""
    return np.concatenate([[value], lags[:-1]])
