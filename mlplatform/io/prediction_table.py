"""The table of predictions: what each model said of an observation before it learned it.

A model's rows in the shard of a service are also the log of what that service was told: `observation_id` and
`lags` say who asked and what the model was shown, so that it can be made again from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mlplatform.io.tables import TableSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlplatform.domain.families import Families
    from mlplatform.domain.model import FeatureRows
    from mlplatform.io.journal import Entry

PREDICTIONS = TableSpec(
    "predictions",
    {
        "model": "string",
        "shard": "int32",
        "position": "int64",
        "series_id": "string",
        "offset": "int64",
        "event_time": "timestamp",
        "value": "float64",
        "prediction": "float64",
        "model_version": "string",
        # Null in the pipeline's shards, where log and lag features have both.
        "observation_id": "string",
        "lags": "list<float64>",
    },
    position="position",
    partition_by=("model",),
)


def prediction_stream(name: str, shard: int) -> str:
    return f"predictions/{name}/{shard}"


def prediction_rows(
    rows: FeatureRows, predictions: Mapping[str, np.ndarray], versions: Mapping[str, str], shard: int
) -> pa.Table:
    """One row for each model and observation, sorted by position.

    Args:
        predictions: {model: (n,)} what each said of the n rows.
        versions: {model: version of its recipe}.
    """
    import numpy as np
    import pyarrow as pa

    count, models = len(rows), list(predictions)
    columns = {
        "model": np.repeat(models, count),
        "shard": np.full(count * len(models), shard),
        "position": np.tile(rows.position, len(models)),
        "series_id": np.tile(rows.series_id, len(models)),
        "offset": np.tile(rows.offset, len(models)),
        "event_time": np.tile(rows.event_time, len(models)),
        "value": np.tile(rows.value, len(models)),
        "prediction": np.concatenate([predictions[model] for model in models]),
        "model_version": np.repeat([versions[model] for model in models], count),
    }
    schema = PREDICTIONS.schema
    arrays = [
        pa.nulls(count * len(models), field.type)
        if field.name not in columns
        else pa.array(
            columns[field.name].tolist() if field.type == pa.string() else columns[field.name]
        ).cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema).sort_by("position")


def served_rows(entries: Sequence[Entry], model: str, version: str, shard: int) -> pa.Table:
    """One row for each entry of a model service's journal; `lags` are the earlier values that there were."""
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "model": model,
                "shard": shard,
                "position": entry.position,
                "series_id": entry.series_id,
                "offset": entry.offset,
                "event_time": entry.event_time,
                "value": entry.value,
                "prediction": entry.answer["prediction"],
                "model_version": version,
                "observation_id": entry.observation_id,
                "lags": entry.lags,
            }
            for entry in entries
        ],
        schema=PREDICTIONS.schema,
    )


def shown_rows(served: pa.Table, families: Families) -> FeatureRows:
    """What the model was shown in each row of a service's shard, as far as the series' family has lags."""
    import numpy as np

    from mlplatform.domain.model import FeatureRows

    series_ids = served["series_id"].to_pylist()
    width = {series_id: families.of(series_id).lags for series_id in set(series_ids)}
    lags = np.zeros((len(served), families.widest))
    available = np.zeros(len(served), dtype=np.int64)
    for row, (series_id, shown) in enumerate(zip(series_ids, served["lags"].to_pylist(), strict=True)):
        known = shown[: width[series_id]]
        available[row] = len(known)
        lags[row, : len(known)] = known
    return FeatureRows(
        position=served["position"].to_numpy(),
        series_id=np.array(series_ids, dtype=object),
        offset=served["offset"].to_numpy(),
        event_time=served["event_time"].to_numpy(),
        value=served["value"].to_numpy(),
        available=available,
        lags=lags,
    )
