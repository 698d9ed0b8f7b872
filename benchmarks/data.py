"""The data that both sides of a measurement get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

import mlplatform.defs
from mlplatform.domain.families import Families, Family
from mlplatform.domain.model import FeatureRows
from mlplatform.io.feature_table import feature_rows, to_feature_rows
from mlplatform.io.sources.replay import ReplaySource

SERIES = Path(mlplatform.defs.__path__[0], "online_learning/data/us_employment_by_series.csv.gz")
# As the shipped graph declares it.
MONTHLY = Family("monthly", ("*",), lags=28, season=12)
FAMILIES = Families((MONTHLY,))


def monthly_values(count: int) -> np.ndarray:
    """A trending seasonal series of any length, in size and noise like people employed in retail."""
    random, months = np.random.default_rng(1), np.arange(count)
    trend = 3000.0 + 16.0 * months + np.cumsum(random.normal(0.0, 20.0, count))
    season = random.normal(0.0, 150.0, 12)[months % 12]
    return trend + season + random.normal(0.0, 15.0, count)


def one_series(count: int) -> FeatureRows:
    """Lag features of `monthly_values`."""
    return to_feature_rows(feature_rows(log_of(["series"] * count, monthly_values(count)), {}, FAMILIES))


def employment_log() -> pa.Table:
    """The log of the 148 employment series: 72,339 observations in order of time."""
    submissions = ReplaySource("employment", SERIES).read(0)
    return log_of([s.series_id for s in submissions], np.array([s.value for s in submissions], dtype=float))


def log_of(series_ids: list[str], values: np.ndarray) -> pa.Table:
    """Rows of the log, as the feature step reads them: one value a position."""
    count = len(values)
    names, codes = np.unique(series_ids, return_inverse=True)
    offsets = np.empty(count, dtype=np.int64)
    for code in range(len(names)):
        rows = np.flatnonzero(codes == code)
        offsets[rows] = np.arange(len(rows))
    times = np.datetime64("1900-01-01", "us") + offsets * np.timedelta64(30, "D").astype("timedelta64[us]")
    return pa.table(
        {
            "shard": pa.array(np.zeros(count, dtype=np.int32)),
            "position": np.arange(count),
            "series_id": pa.array(series_ids, pa.string()),
            "offset": offsets,
            "event_time": pa.array(times).cast(pa.timestamp("us", "UTC")),
            "value": values,
        }
    )
