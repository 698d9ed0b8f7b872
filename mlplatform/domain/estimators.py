"""What learns: the protocol of estimators, and the adapters that make one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Estimator(Protocol):
    """Learns consecutive rows; picklable, deterministic, bounded in time and bytes per row."""

    def fold(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Predicts each row, then learns from it: (n, k), (n,) -> (n,) predictions."""
        ...

    def predict(self, features: np.ndarray, ahead: int = 0) -> float:
        """(k,) -> the prediction; changes nothing, and is a number before anything was learned.

        `ahead` tells how many rows after the last learned one were forecast before this one.
        """
        ...


class Zero:
    """Predicts zero: what turns a transform of the target into a naive baseline."""

    def fold(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.zeros(len(targets))

    def predict(self, features: np.ndarray, ahead: int = 0) -> float:
        return 0.0


class RiverRegressor:
    """A River regressor (or pipeline) over features named `in_1 … in_k`."""

    def __init__(self, regressor: Any) -> None:
        self.regressor = regressor

    def fold(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        predict_one, learn_one = self.regressor.predict_one, self.regressor.learn_one
        names = _names(features.shape[1])
        predictions = np.empty(len(targets))
        for row, (values, target) in enumerate(zip(features.tolist(), targets.tolist(), strict=True)):
            named = dict(zip(names, values, strict=True))
            # Some regressors say None before they have learned anything.
            predictions[row] = predict_one(named) or 0.0
            learn_one(named, target)
        return predictions

    def predict(self, features: np.ndarray, ahead: int = 0) -> float:
        named = dict(zip(_names(len(features)), features.tolist(), strict=True))
        return self.regressor.predict_one(named) or 0.0


def _names(count: int) -> list[str]:
    return [f"in_{lag}" for lag in range(1, count + 1)]
