"""The table of lag features, and the state that the next rows are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlplatform.domain.families import Families
from mlplatform.domain.observations import Tail
from mlplatform.io.tables import TableSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.model import FeatureRows

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
    import numpy as np
    import pyarrow as pa

    encoded = log["series_id"].combine_chunks().dictionary_encode()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    values, event_times, widest = log["value"].to_numpy(), log["event_time"], families.widest
    family_of = [families.of(name) for name in names]
    # All series one after the other, each behind its earlier values, and zeros where there are none.
    order = np.argsort(codes, kind="stable")
    place = np.empty(len(log), dtype=np.int64)
    place[order] = np.arange(len(log)) + widest * (codes[order] + 1)
    padded = np.zeros(len(log) + widest * len(names))
    padded[place] = values
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    available = np.empty(len(log), dtype=np.int32)
    for code, (series_id, family) in enumerate(zip(names, family_of, strict=True)):
        rows, tail = order[starts[code] : starts[code + 1]], tails.get(series_id, Tail())
        first, end = int(place[rows[0]]), int(place[rows[-1]]) + 1
        known = tail.values[: family.lags]
        padded[first - len(known) : first] = known[::-1]
        available[rows] = np.minimum(len(known) + np.arange(len(rows)), family.lags)
        newest = padded[max(end - family.lags, first - len(known)) : end][::-1]
        tails[series_id] = Tail(
            tail.next_offset + len(rows), event_times[int(rows[-1])].as_py(), tuple(newest.tolist())
        )
    versions = pa.array([family.version for family in family_of], pa.string())
    lags = np.array([family.lags for family in family_of])
    columns = {
        **{name: log[name] for name in ("shard", "position", "series_id", "offset", "event_time", "value")},
        "feature_version": versions.take(encoded.indices),
        "available_lags": pa.array(available),
    }
    for lag, name in enumerate(lag_names(widest), start=1):
        unused = lags[codes] < lag if (lags < lag).any() else None
        columns[name] = pa.array(padded.take(place - lag), mask=unused)
    return pa.table(columns)


def to_feature_rows(table: pa.Table) -> FeatureRows:
    """Rows of the table as the arrays that models learn from."""
    import numpy as np

    from mlplatform.domain.model import FeatureRows

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
