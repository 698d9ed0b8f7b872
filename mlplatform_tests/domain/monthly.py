"""Real monthly series as an estimator sees them, and River's regressors on the same rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

import mlplatform.defs
from mlplatform.domain.differences import Differences
from mlplatform.domain.lags import lag_matrix

DATA = Path(mlplatform.defs.__file__).parent / "online_learning" / "data"


def monthly_values(name: str, months: int) -> np.ndarray:
    """The last months of a shipped series."""
    with (DATA / f"{name}.csv").open() as lines:
        return np.array([float(line["value"]) for line in csv.DictReader(lines)][-months:])


def monthly_rows(name: str, months: int, lags: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """The same, differenced at 1 and 12: lags (n, k) and targets (n,)."""
    values = monthly_values(name, months)
    differences = Differences((1, 12))
    raw, available = lag_matrix([], values, lags + differences.degree)
    known = available >= differences.degree
    features = differences.of_lags(raw[known], available[known])
    return features, values[known] - differences.reference(raw[known])


def river_fold(regressor: Any, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What a River regressor says of each row before it learns it."""
    names = [f"{feature:02d}" for feature in range(features.shape[1])]  # River sorts them
    predictions = []
    for row, target in zip(features.tolist(), targets.tolist(), strict=True):
        named = dict(zip(names, row, strict=True))
        predictions.append(regressor.predict_one(named) or 0.0)
        regressor.learn_one(named, target)
    return np.array(predictions)
