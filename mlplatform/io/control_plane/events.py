"""What happened: written with what made it happen, and read in the order in which it was kept."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, text, update

from mlplatform.io.control_plane import tables
from mlplatform.io.control_plane.database import notify

# Woken are those who listen, with the id of the job that it is about.
CHANNEL = "events"


def write(
    connection: Connection, kind: str, data: Mapping[str, Any], job_id: uuid.UUID | None = None
) -> None:
    """Keeps an event if the transaction is kept; call it last, and with the job's row locked.

    Args:
        kind: what and what became of it: `job.running`.
        data: ids, states and numbers; nothing that a user wrote who may have written a secret.
    """
    sequence = None
    if job_id is not None:
        job = tables.jobs
        sequence = connection.scalar(
            update(job)
            .where(job.c.id == job_id)
            .values(sequence=job.c.sequence + 1)
            .returning(job.c.sequence)
        )
    # Until this transaction ends nobody else writes one, so that their ids are in the order of their ends:
    # who reads those after the last one it has seen misses none.
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' events', 0))")
    )
    connection.execute(
        insert(tables.events).values(
            event_id=uuid.uuid4(), job_id=job_id, sequence=sequence, type=kind, data=dict(data)
        )
    )
    notify(connection, CHANNEL, str(job_id) if job_id else "")


def after(
    connection: Connection, position: int, limit: int = 500, job_id: uuid.UUID | None = None
) -> Sequence[RowMapping]:
    """The events behind `position` (0: from the first), oldest first."""
    event = tables.events
    query = select(event).where(event.c.id > position).order_by(event.c.id).limit(limit)
    if job_id is not None:
        query = query.where(event.c.job_id == job_id)
    return connection.execute(query).mappings().all()


def newest(connection: Connection) -> int:
    """The position behind which there is nothing yet."""
    event = tables.events
    return connection.scalar(select(event.c.id).order_by(event.c.id.desc()).limit(1)) or 0
