"""The table of predictions: what each model said of an observation before it learned it.

A model's rows in the shard of a service are also the log of what that service was told: `observation_id` and
`lags` say who asked and what the model was shown, so that it can be made again from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mlplatform.io.journal import Entry
from mlplatform.io.tables import Table, TableSpec, literal

if TYPE_CHECKING:
    import arro3.core as arro3
    import numpy as np
    import pyarrow as pa

    from mlplatform.domain.families import Families
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
        # Null in the pipeline's shards, where log and lag features have both.
        "observation_id": "string",
        "lags": "list<float64>",
    },
    position="position",
    partition_by=("model",),
)

# Of a row in the shard of a service, what its entry in the journal had.
ENTRY_COLUMNS = (
    "position",
    "series_id",
    "offset",
    "event_time",
    "value",
    "prediction",
    "observation_id",
    "lags",
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


def served_rows(entries: Sequence[Entry], model: str, version: str, shard: int) -> arro3.Table:
    """One row for each entry of a model service's journal; `lags` are the earlier values that there were."""
    count = len(entries)
    return PREDICTIONS.table(
        {
            "model": [model] * count,
            "shard": [shard] * count,
            "position": [each.position for each in entries],
            "series_id": [each.series_id for each in entries],
            "offset": [each.offset for each in entries],
            "event_time": [each.event_time for each in entries],
            "value": [each.value for each in entries],
            "prediction": [each.answer["prediction"] for each in entries],
            "model_version": [version] * count,
            "observation_id": [each.observation_id for each in entries],
            "lags": [each.lags or () for each in entries],
        }
    )


def served_entries(table: Table, model: str, shard: int, start: int) -> Iterator[Entry]:
    """The rows of a service's shard from position `start` on as the entries that they were, in order.

    But for the time when they came, which the table does not have.
    """
    where = f"model = {literal(model)} AND shard = {shard} AND position >= {start}"
    for row in table.select(ENTRY_COLUMNS, where):
        answer = {name: row[name] for name in ("prediction", "series_id", "observation_id", "offset")}
        yield Entry(
            row["position"],
            row["series_id"],
            row["offset"],
            row["observation_id"],
            row["event_time"],
            row["value"],
            answer,
            row["event_time"],
            tuple(row["lags"]),
        )


def shown_rows(entries: Sequence[Entry], families: Families) -> FeatureRows:
    """What the model was shown of each entry, as far as the series' family has lags."""
    import numpy as np

    from mlplatform.domain.model import FeatureRows

    lags = np.zeros((len(entries), families.widest))
    available = np.zeros(len(entries), dtype=np.int64)
    for row, entry in enumerate(entries):
        known = (entry.lags or ())[: families.of(entry.series_id).lags]
        available[row] = len(known)
        lags[row, : len(known)] = known
    return FeatureRows(
        position=np.array([each.position for each in entries]),
        series_id=np.array([each.series_id for each in entries], dtype=object),
        offset=np.array([each.offset for each in entries]),
        event_time=np.array([each.event_time.replace(tzinfo=None) for each in entries], "datetime64[us]"),
        value=np.array([each.value for each in entries]),
        available=available,
        lags=lags,
    )
