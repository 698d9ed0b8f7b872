"""Observations that anyone pushes: an inbox table, which the pipeline reads like any source."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

from mlplatform.domain.observations import SourceError, Submission
from mlplatform.io.object_store import Conflict, ObjectStore
from mlplatform.io.tables import Table, TableSpec

INBOX = TableSpec(
    "inbox",
    {
        "position": "int64",
        "series_id": "string",
        "observation_id": "string",
        "event_time": "timestamp",
        "value": "string",
        "pushed_at": "timestamp",
    },
    position="position",
)
STREAM = "inbox"
ATTEMPTS = 20


class PushSource:
    """What was pushed, in the order in which the inbox took it.

    The inbox takes anything, and forgets nothing; whether it becomes an observation is decided when
    it is read. Values are kept as JSON.
    """

    def __init__(self, name: str, store: ObjectStore) -> None:
        self.name = name
        self._inbox = Table(INBOX, store)

    def available(self, after: int) -> int:
        return self._inbox.head(STREAM)

    def read(self, after: int, limit: int | None = None) -> list[Submission]:
        rows = self._inbox.read(start=after).to_pylist()[:limit]
        return [
            Submission(
                self.name,
                row["position"] + 1,
                row["series_id"],
                row["observation_id"],
                row["event_time"],
                json.loads(row["value"]),
            )
            for row in rows
        ]

    def push(
        self,
        series_id: str,
        value: object,
        observation_id: str | None = None,
        event_time: datetime | None = None,
    ) -> str:
        """Puts one observation into the inbox, and returns its id once it is durable.

        Raises:
            SourceError: others push so much that this one found no place.
        """
        import pyarrow as pa

        now = datetime.now(UTC)
        observation_id = observation_id or uuid.uuid4().hex
        for _ in range(ATTEMPTS):
            head = self._inbox.head(STREAM)
            row = {
                "position": head,
                "series_id": series_id,
                "observation_id": observation_id,
                "event_time": event_time or now,
                "value": json.dumps(value),
                "pushed_at": now,
            }
            rows = pa.Table.from_pylist([row], schema=INBOX.schema)
            try:
                self._inbox.append(rows, STREAM, head + 1, expected={STREAM: head})
            except Conflict:
                continue
            return observation_id
        raise SourceError(f"the inbox was busy {ATTEMPTS} times in a row; push again")
