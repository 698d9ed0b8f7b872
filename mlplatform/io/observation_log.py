"""The log of observations and its quarantine: the truth that everything downstream is a function of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlplatform.domain.observations import Observation, Refusal
from mlplatform.io.tables import TableSpec

if TYPE_CHECKING:
    import arro3.core as arro3

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


def log_rows(observations: Sequence[Observation], shard: int, head: int) -> arro3.Table:
    """Rows of the log for observations that come after position `head`."""
    count, now = len(observations), datetime.now(UTC)
    return LOG.table(
        {
            "shard": [shard] * count,
            "position": range(head, head + count),
            "series_id": [o.series_id for o in observations],
            "offset": [o.offset for o in observations],
            "observation_id": [o.observation_id for o in observations],
            "event_time": [o.event_time for o in observations],
            "ingested_at": [now] * count,
            "value": [o.value for o in observations],
            "source": [o.source for o in observations],
        }
    )


def _text(value: object) -> str:
    """The value as a text that Arrow takes: JSON may hold halves of characters."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def quarantine_rows(refusals: Sequence[Refusal]) -> arro3.Table:
    ordered = sorted(refusals, key=lambda refusal: refusal.submission.source_position)
    submissions = [refusal.submission for refusal in ordered]
    return QUARANTINE.table(
        {
            "source": [each.source for each in submissions],
            "source_position": [each.source_position for each in submissions],
            "series_id": [str(each.series_id) for each in submissions],
            "observation_id": [each.observation_id for each in submissions],
            "event_time": [each.event_time for each in submissions],
            "value": [_text(each.value) for each in submissions],
            "reason": [refusal.reason for refusal in ordered],
            "refused_at": [datetime.now(UTC)] * len(ordered),
        }
    )
