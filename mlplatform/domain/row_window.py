"""The last rows that an estimator learned: all the state of one that forgets what is older."""

from __future__ import annotations

from typing import Any

import numpy as np


class RowWindow:
    """A ring of rows: row r of the stream is at r % size. Its pickle holds the rows and nothing else.

    Attributes:
        learned: how many rows the stream has had.
        features: (size, k), k being 0 until the first rows fix it.
        targets: (size,).
    """

    def __init__(self, size: int) -> None:
        self.learned = 0
        self.features: np.ndarray = np.empty((size, 0))
        self.targets: np.ndarray = np.empty(size)

    def __len__(self) -> int:
        """How many rows there are."""
        return min(self.learned, len(self.targets))

    def accept(self, features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows as compiled code takes them; the first ones fix the number of features k.

        Raises:
            ValueError: the shapes do not fit each other, or the rows before.
        """
        if not self.features.shape[1] and features.ndim == 2:
            self.features = np.empty((len(self.targets), features.shape[1]))
        width = self.features.shape[1]
        if not width or features.shape != (len(targets), width) or targets.ndim != 1:
            expected = f"(n, {width or 'k'}) and (n,)"
            raise ValueError(f"expected rows of shape {expected}, got {features.shape} and {targets.shape}")
        return _plain(features), _plain(targets)

    def accept_row(self, features: np.ndarray) -> np.ndarray:
        """The same for the features of one row: (k,)."""
        return self.accept(features[None, :], np.zeros(1))[0][0]

    def __getstate__(self) -> dict[str, Any]:
        slots = np.arange(self.learned - len(self), self.learned) % len(self.targets)
        return {
            "size": len(self.targets),
            "learned": self.learned,
            "targets": self.targets[slots],
            **_packed(self.features[slots]),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["size"])
        self.learned = state["learned"]
        features = _unpacked(state)
        self.features = np.empty((len(self.targets), features.shape[1]))
        slots = np.arange(self.learned - len(self), self.learned) % len(self.targets)
        self.features[slots], self.targets[slots] = features, state["targets"]


def _plain(values: np.ndarray) -> np.ndarray:
    """Contiguous writeable float64: one type, so that kernels are compiled once."""
    return np.require(values, np.float64, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


def _packed(features: np.ndarray) -> dict[str, Any]:
    """Lags of consecutive rows overlap, each row being the one before moved by a place: kept once."""
    bits = features.view(np.uint64)
    if features.size and np.array_equal(bits[1:, 1:], bits[:-1, :-1]):
        return {"lags": np.concatenate([features[:0:-1, 0], features[0]]), "width": features.shape[1]}
    return {"features": features}


def _unpacked(state: dict[str, Any]) -> np.ndarray:
    if "lags" in state:
        return np.lib.stride_tricks.sliding_window_view(state["lags"], state["width"])[::-1]
    return state["features"]
