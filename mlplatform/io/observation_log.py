"""The log of observations and its quarantine: the truth that everything downstream is a function of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlplatform.domain.observations import Observation, Refusal
from mlplatform.io.tables import TableSpec

if TYPE_CHECKING:
    import pyarrow as pa

LOG = TableSpec(
    "observations",
    {
        "shard": "int32",
        "position": "int64",
        "series_id": "string",
        "offset": "int64",
        "observation_id": "string",
        "event_time": "timestamp",
        "ingested_at": "timestamp",
        "value": "float64",
        "source": "string",
    },
    position="position",
    partition_by=("shard",),
)
QUARANTINE = TableSpec(
    "quarantine",
    {
        "source": "string",
        "source_position": "int64",
        "series_id": "string",
        "observation_id": "string",
        "event_time": "timestamp",
        "value": "string",
        "reason": "string",
        "refused_at": "timestamp",
    },
    position="source_position",
)


# The head that tells with how many shards the log is written.
SHARDS = "shards"


def log_stream(shard: int) -> str:
    return f"log/{shard}"


def source_stream(source: str, shard: int) -> str:
    return f"source/{source}/{shard}"


def owner_stream(shard: int) -> str:
    return f"owner/{shard}"


def log_rows(observations: Sequence[Observation], shard: int, head: int) -> pa.Table:
    """Rows of the log for observations that come after position `head`."""
    import pyarrow as pa

    count, now = len(observations), datetime.now(UTC)
    columns = [
        [shard] * count,
        range(head, head + count),
        [o.series_id for o in observations],
        [o.offset for o in observations],
        [o.observation_id for o in observations],
        [o.event_time for o in observations],
        [now] * count,
        [o.value for o in observations],
        [o.source for o in observations],
    ]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, LOG.schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=LOG.schema)


def _text(value: object) -> str:
    """The value as a text that Arrow takes: JSON may hold halves of characters."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def quarantine_rows(refusals: Sequence[Refusal]) -> pa.Table:
    import pyarrow as pa

    now = datetime.now(UTC)
    rows = [
        {
            "source": refusal.submission.source,
            "source_position": refusal.submission.source_position,
            "series_id": str(refusal.submission.series_id),
            "observation_id": refusal.submission.observation_id,
            "event_time": refusal.submission.event_time,
            "value": _text(refusal.submission.value),
            "reason": refusal.reason,
            "refused_at": now,
        }
        for refusal in sorted(refusals, key=lambda refusal: refusal.submission.source_position)
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE.schema)
