"""Points of the curves by which a person judges a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlplatform.domain.batch.metrics import Predictions

# More points would only make a picture larger.
POINTS = 200
BINS = 10
LISTED = 20


@dataclass(frozen=True)
class Curve:
    """(p,) `x` and `y` in the order in which they are drawn."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """Per bin of equally many rows: the mean probability, the share of positives, and the rows."""

    probability: np.ndarray
    share: np.ndarray
    rows: np.ndarray


def roc(predictions: Predictions, number: int | None = None) -> Curve:
    """The share of other rows (x) and of a class's rows (y) at or above each score, from (0, 0) to (1, 1); of
    the positive class unless a class is numbered.
    """
    hits, misses = _counts(predictions, predictions.positive if number is None else number)
    x, y = np.append(0.0, misses / misses[-1]), np.append(0.0, hits / hits[-1])
    return _thinned(x, y)


def precision_recall(predictions: Predictions) -> Curve:
    """Recall (x) and precision (y) at or above each score, from the highest down."""
    hits, misses = _counts(predictions, predictions.positive)
    return _thinned(hits / hits[-1], hits / (hits + misses))


def calibration(predictions: Predictions, bins: int = BINS) -> Calibration:
    """What was said against what came: rows in order of their probability, cut into equal parts (fewer where
    rows are few).
    """
    order = np.argsort(predictions.positive_scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Calibration(
        np.array([predictions.positive_scores[part].mean() for part in parts]),
        np.array([predictions.positives[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def confusion(predictions: Predictions) -> np.ndarray:
    """(k, k) rows by class (first axis) and by chosen class."""
    count = predictions.scores.shape[1]
    cells = predictions.target * count + predictions.chosen
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def largest(importances: Mapping[str, float], count: int = LISTED) -> dict[str, float]:
    """The most important features, the largest first; ties by name."""
    return dict(sorted(importances.items(), key=lambda each: (-each[1], each[0]))[:count])


def sample(rows: int, count: int = POINTS) -> np.ndarray:
    """Numbers of at most `count` rows, evenly spread over all."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _counts(predictions: Predictions, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(t,) rows of a class and other rows at or above each distinct score, from the highest down."""
    scores = predictions.scores[:, number]
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    hit = predictions.target[order] == number
    return np.cumsum(hit)[ends].astype(float), np.cumsum(~hit)[ends].astype(float)


def _thinned(x: np.ndarray, y: np.ndarray) -> Curve:
    """The points that are nearest to evenly spaced ones along the drawn line, its ends among them."""
    if len(x) <= POINTS:
        return Curve(x, y)
    length = np.append(0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
    chosen = np.searchsorted(length, np.linspace(0, length[-1], POINTS))
    chosen = np.unique(np.concatenate([[0], np.minimum(chosen, len(x) - 1), [len(x) - 1]]))
    return Curve(x[chosen], y[chosen])
