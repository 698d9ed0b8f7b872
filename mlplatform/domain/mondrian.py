"""Aggregated Mondrian forest of bounded size."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlplatform.domain.row_window import RowWindow


class MondrianForest:
    """Online random forest (Mourtada, Gaïffas and Scornet 2021, "AMF: Aggregated Mondrian Forests").

    Each tree splits space at random, by a Mondrian process on the box that its rows span, and predicts
    with all of its prunings, each weighted by exp(-step x the sum of its squared errors / 2). The
    forest predicts the mean over its trees.

    Two things bound it. A tree splits for its first window / 2 rows only, and later refines the means
    and weights of the cells that it has. And when it knows `window` rows it is regrown from the newest
    half of them; the trees take turns, so that one row regrows one tree at most. Until a stream has
    window / 2 rows, the forest is the one of the paper.

    So a tree is a function of the seed, its number, and the rows since its start, and its start is a
    function of how many rows there were: a pickle holds the rows of the window, and the trees are
    regrown, bit for bit, when they are first needed.

    Args:
        trees: how many.
        step: learning rate of the weights, in 1 / (unit of the target) squared.
        window: rows, at least 2.
        seed: of the random splits, not negative.
    """

    def __init__(self, trees: int = 10, step: float = 1.0, window: int = 2000, seed: int = 0) -> None:
        if trees < 1 or window < 2:
            raise ValueError(f"expected trees >= 1 and window >= 2, got {trees} and {window}")
        self.trees = trees
        self.step = float(step)
        self.seed = seed
        self._window = RowWindow(window)
        self._grown: tuple[np.ndarray, ...] | None = None

    def fold(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Predicts each row, then learns from it: (n, k), (n,) -> (n,) predictions."""
        from mlplatform.domain import kernels

        rows, values = self._window.accept(features, targets)
        predictions = np.empty(len(values))
        kernels.fold_forest(*self._forest(), *self._state(), rows, values, predictions)
        self._window.learned += len(values)
        return predictions

    def predict(self, features: np.ndarray, ahead: int = 0) -> float:
        """(k,) -> the prediction; 0 before anything was learned."""
        from mlplatform.domain import kernels

        if not self._window.learned:
            return 0.0
        trees, branches, leaves, _ = self._forest()
        return kernels.predict_forest(trees, branches, leaves, self._window.accept_row(features))

    def _state(self) -> tuple[Any, ...]:
        window = self._window
        return window.features, window.targets, window.learned, np.uint64(self.seed), self.step

    def _forest(self) -> tuple[np.ndarray, ...]:
        """Trees (trees,), branches and leaves (trees, window / 2), boxes (trees, window / 2, 2, k)."""
        from mlplatform.domain import kernels

        if self._grown is None:
            shape = (self.trees, len(self._window.targets) // 2)
            planted = np.zeros(self.trees, kernels.TREE)
            planted["start"] = -1
            grown = (
                planted,
                np.empty(shape, kernels.BRANCH),
                np.empty(shape, kernels.LEAF),
                np.empty((*shape, 2, self._window.features.shape[1])),
            )
            kernels.grow_forest(*grown, *self._state())
            # Assigned whole: another thread that predicts meanwhile grows the same trees.
            self._grown = grown
        return self._grown

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_grown": None}
