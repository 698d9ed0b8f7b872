"""Observations that anyone pushes: an inbox table, which the pipeline reads like any source."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

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
LONGEST_WAIT_SECONDS = 2.0
# Pushes of one process take turns: who loses a race for the inbox has worked in vain.
_turn = threading.Lock()


@dataclass(frozen=True)
class Pushed:
    """One observation as its producer hands it in; the same `observation_id` is learned once."""

    series_id: str
    value: object
    observation_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    event_time: datetime | None = None


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
        import pyarrow.dataset as ds

        where = None if limit is None else ds.field(INBOX.position) < after + limit
        rows = self._inbox.read(start=after, where=where).to_pylist()
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

    def push(self, observations: Sequence[Pushed]) -> None:
        """Puts observations into the inbox; returns when they are durable, all of them at once.

        Raises:
            SourceError: others push so much that these found no place.
        """
        with _turn:
            for attempt in range(ATTEMPTS):
                try:
                    self._append(observations)
                except Conflict:
                    longest = min(LONGEST_WAIT_SECONDS, 0.05 * 2**attempt)
                    time.sleep(random.uniform(0, longest))  # noqa: S311 - it keeps no secret
                    continue
                return
        raise SourceError(f"the inbox was busy {ATTEMPTS} times in a row; push again")

    def _append(self, observations: Sequence[Pushed]) -> None:
        import pyarrow as pa

        head = self._inbox.head(STREAM)
        # After the head: a later position has a later time, and is not refused as late.
        now = datetime.now(UTC)
        rows = [
            {
                "position": head + at,
                "series_id": each.series_id,
                "observation_id": each.observation_id,
                # Not two at the same time: one of them would be taken for a repetition.
                "event_time": _in_utc(each.event_time) or now + timedelta(microseconds=at),
                "value": json.dumps(each.value),
                "pushed_at": now,
            }
            for at, each in enumerate(observations)
        ]
        table = pa.Table.from_pylist(rows, schema=INBOX.schema)
        self._inbox.append(table, STREAM, head + len(rows), expected={STREAM: head})


def _in_utc(time: datetime | None) -> datetime | None:
    try:
        return time and time.astimezone(UTC)
    except OverflowError:
        raise SourceError(
            f"{time} is no time that can be kept: give one between the years 1 and 9999"
        ) from None
