"""The table of predictions: what each model said of an observation before it learned it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlplatform.io.tables import TableSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlplatform.domain.model import FeatureRows

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
        pa.array(columns[field.name].tolist() if field.type == pa.string() else columns[field.name]).cast(
            field.type
        )
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema).sort_by("position")
