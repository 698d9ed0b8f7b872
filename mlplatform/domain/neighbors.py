"""Regression on the nearest neighbours, found exactly."""

from __future__ import annotations

import numpy as np

from mlplatform.domain.row_window import RowWindow


class NearestNeighbors:
    """Predicts the mean target of the rows at the least Euclidean distance among the last `window`.

    Of equally near rows the older come first; a row that is an exact copy of an earlier one gets the
    target of the oldest copy.
    """

    def __init__(self, neighbors: int = 5, window: int = 1000) -> None:
        if neighbors < 1 or window < 1:
            raise ValueError(f"expected neighbors >= 1 and window >= 1, got {neighbors} and {window}")
        self.neighbors = neighbors
        self._window = RowWindow(window)

    def fold(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Predicts each row, then learns from it: (n, k), (n,) -> (n,) predictions."""
        from mlplatform.domain import kernels

        window = self._window
        rows, values = window.accept(features, targets)
        predictions = np.empty(len(values))
        kernels.fold_neighbors(
            window.features, window.targets, window.learned, self.neighbors, rows, values, predictions
        )
        window.learned += len(values)
        return predictions

    def predict(self, features: np.ndarray, ahead: int = 0) -> float:
        """(k,) -> the prediction; 0 before anything was learned."""
        from mlplatform.domain import kernels

        window = self._window
        if not window.learned:
            return 0.0
        row = window.accept_row(features)
        return kernels.predict_neighbors(window.features, window.targets, window.learned, self.neighbors, row)
