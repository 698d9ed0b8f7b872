"""The table of lag features, and the state that the next rows are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlplatform.domain.families import Families
from mlplatform.domain.lags import lag_matrix
from mlplatform.domain.model import FeatureRows
from mlplatform.domain.observations import Tail
from mlplatform.io.tables import TableSpec

if TYPE_CHECKING:
    import pyarrow as pa

# The columns in_1 … in_N follow, as many as the widest family has lags.
FEATURES = TableSpec(
    "lag_features",
    {
        "shard": "int32",
        "position": "int64",
        "series_id": "string",
        "offset": "int64",
        "event_time": "timestamp",
        "value": "float64",
        "feature_version": "string",
        "available_lags": "int32",
    },
    position="position",
    partition_by=("shard",),
)


def lag_names(lags: int) -> list[str]:
    return [f"in_{lag}" for lag in range(1, lags + 1)]


def feature_rows(log: pa.Table, tails: dict[str, Tail], families: Families) -> pa.Table:
    """Lag features of rows of the log that follow the tails; moves the tails on in place.

    A row of a family with fewer lags than the widest has nulls in the columns it does not use.
    """
    import pyarrow as pa

    values = log["value"].to_numpy()
    names, codes = np.unique(log["series_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
    event_times = log["event_time"]
    matrix = np.full((len(log), families.widest), np.nan)
    available = np.empty(len(log), dtype=np.int32)
    versions = np.empty(len(log), dtype=object)
    for code, series_id in enumerate(names.tolist()):
        rows = order[bounds[code] : bounds[code + 1]]
        family, tail = families.of(series_id), tails.get(series_id, Tail())
        matrix[rows, : family.lags], available[rows] = lag_matrix(tail.values, values[rows], family.lags)
        versions[rows] = family.version
        newest = (*values[rows][::-1][: family.lags].tolist(), *tail.values)[: family.lags]
        tails[series_id] = Tail(
            tail.next_offset + len(rows), event_times[int(rows[-1])].as_py(), tuple(newest)
        )
    table = log.select(["shard", "position", "series_id", "offset", "event_time", "value"])
    table = table.append_column("feature_version", pa.array(versions, pa.string()))
    table = table.append_column("available_lags", pa.array(available))
    for lag, name in enumerate(lag_names(families.widest)):
        table = table.append_column(name, pa.array(matrix[:, lag], from_pandas=True))
    return table


def to_feature_rows(table: pa.Table) -> FeatureRows:
    """Rows of the table as the arrays that models learn from."""
    lags = [name for name in table.schema.names if name.startswith("in_")]
    matrix = np.empty((len(table), len(lags)))
    for lag, name in enumerate(lag_names(len(lags))):
        matrix[:, lag] = table[name].to_numpy()
    return FeatureRows(
        position=table["position"].to_numpy(),
        series_id=table["series_id"].to_numpy(),
        offset=table["offset"].to_numpy(),
        event_time=table["event_time"].to_numpy(),
        value=table["value"].to_numpy(),
        available=table["available_lags"].to_numpy(),
        lags=matrix,
    )
