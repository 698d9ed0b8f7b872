"""Recursive least squares on lags and on the model's own earlier errors."""

from __future__ import annotations

import numpy as np


class RecursiveLeastSquares:
    """Regression whose exact solution moves on with each row, in O(k²).

    Weighted recursive least squares with forgetting (Ljung and Söderström 1983), on the square root
    of the covariance (Potter 1963), which cannot lose its sign. The regressors are the features and,
    at the lags `innovations`, the model's own residuals (extended least squares): on
    (1, s)-differences with innovations (s, 2s) it is a SARIMA (p,1,0)(0,1,2)s that is estimated as it
    goes. Without innovations it is ridge regression with a memory.

    Nothing depends on the unit of the series: a row weighs 1/scale², with scale a running mean of
    the absolute errors, which also bounds what an outlier moves; of each coefficient the prior says
    that it is 0 ± 1/√ridge. Rows must be consecutive.

    Args:
        innovations: lags of its own residuals that it reads.
        memory: how much of a row's weight is left one row later, in (0, 1].
        ridge: precision of the prior of each coefficient.
    """

    def __init__(self, innovations: tuple[int, ...] = (), memory: float = 1.0, ridge: float = 100.0) -> None:
        self._memory = memory
        self._ridge = ridge
        self._innovations = np.array(innovations, dtype=np.int64)
        self._residuals = np.zeros(max(innovations, default=0))  # newest first
        self._scale = np.zeros(2)  # rows learned, running mean of the absolute error
        self._weights = np.zeros(0)
        self._root = np.zeros((0, 0))

    def fold(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Predicts each row, then learns from it: (n, k), (n,) -> (n,) predictions."""
        from mlplatform.domain import kernels

        if not len(self._weights):
            size = features.shape[1] + len(self._innovations)
            self._weights, self._root = np.zeros(size), np.eye(size) / np.sqrt(self._ridge)
        return kernels.fold_least_squares(
            np.ascontiguousarray(features, dtype=np.float64),
            np.ascontiguousarray(targets, dtype=np.float64),
            self._innovations,
            self._residuals,
            self._scale,
            self._weights,
            self._root,
            self._memory,
            self._ridge,
        )

    def predict(self, features: np.ndarray, ahead: int = 0) -> float:
        """The next row, or the one after `ahead` forecast rows, whose innovations count as zero."""
        from mlplatform.domain import kernels

        if not len(self._weights):
            return 0.0
        residuals = np.concatenate([np.zeros(ahead), self._residuals])
        return float(kernels.dot(self._weights, np.concatenate([features, residuals[self._innovations - 1]])))
