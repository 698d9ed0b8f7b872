"""Rolling error metrics of predictions that were made before learning."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

WINDOWS = (5, 10, 20)


class RollingMetrics:
    """MAE, MSE, RMSE and MAPE over all predictions and over the last 5, 10 and 20.

    In the unit of the data; MAPE in percent, without observations that are zero. The totals are
    summed one observation at a time, so that they do not depend on how a replay is cut into runs.
    """

    def __init__(self) -> None:
        self.count = 0
        # Sums of |error|, error² and |error / actual|, the last over the observations that are not zero.
        self._absolute = self._squared = self._relative = 0.0
        self._nonzero = 0
        self._last: deque[tuple[float, float]] = deque(maxlen=max(WINDOWS))

    def update(self, actuals: np.ndarray, predictions: np.ndarray) -> None:
        """(n,), (n,)."""
        pairs = list(zip(actuals.tolist(), predictions.tolist(), strict=True))
        for actual, prediction in pairs:
            error = abs(actual - prediction)
            self._absolute += error
            self._squared += error * error
            if actual:
                self._relative += error / abs(actual)
                self._nonzero += 1
        self.count += len(pairs)
        self._last.extend(pairs)

    def summary(self) -> dict[str, float]:
        """`mae`, `mse`, `rmse`, `mape` over all, and with `_5`, `_10`, `_20`; NaN before the first."""
        sums = self._absolute, self._squared, self.count, self._relative, self._nonzero
        result = {"count": float(self.count), **_metrics("", *sums)}
        last = list(self._last)
        for window in WINDOWS:
            pairs = last[-window:]
            errors = [abs(actual - prediction) for actual, prediction in pairs]
            ratios = [e / abs(actual) for e, (actual, _) in zip(errors, pairs, strict=True) if actual]
            squares = sum(e * e for e in errors)
            result |= _metrics(f"_{window}", sum(errors), squares, len(pairs), sum(ratios), len(ratios))
        return result

    @property
    def last(self) -> list[tuple[float, float]]:
        """The last (actual, prediction) pairs, oldest first, at most 20."""
        return list(self._last)


def _metrics(suffix: str, absolute: float, squared: float, count: float, ratio: float, nonzero: float):
    mean_squared = squared / count if count else math.nan
    return {
        f"mae{suffix}": absolute / count if count else math.nan,
        f"mse{suffix}": mean_squared,
        f"rmse{suffix}": math.sqrt(mean_squared),
        f"mape{suffix}": 100 * ratio / nonzero if nonzero else math.nan,
    }
