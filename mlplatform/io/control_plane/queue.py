"""The queue that brings executions to their workers: procrastinate's, in the control plane's own tables.

Here it is spoken to in SQL, by the functions that it makes for this: who gives work needs none of its code,
which is the workers' (`mlplatform.worker.listener`).
"""

from __future__ import annotations

import json
import uuid

from sqlalchemy import Connection, text

TASK = "execute"

_GIVE = text(
    """
    SELECT (procrastinate_defer_jobs_v1(ARRAY[ROW(
        :queue, :task, :priority, NULL, NULL, CAST(:arguments AS jsonb), NULL
    )::procrastinate_job_to_defer_v1]))[1]
    """
)


def name_of(worker_id: uuid.UUID) -> str:
    """The queue to which one worker listens."""
    # No longer: it is part of the name of a channel, for which PostgreSQL has 63 bytes.
    return worker_id.hex


def give(
    connection: Connection, worker_id: uuid.UUID, execution_id: uuid.UUID, lease: uuid.UUID, priority: int
) -> int:
    """Brings an execution to a worker, when the transaction is kept; returns the number of the entry."""
    arguments = {"execution_id": str(execution_id), "lease": str(lease)}
    return connection.execute(
        _GIVE,
        {
            "queue": name_of(worker_id),
            "task": TASK,
            "priority": priority,
            "arguments": json.dumps(arguments),
        },
    ).scalar_one()


def withdraw(connection: Connection, entry: int) -> None:
    """Whoever works at it is told to stop; one that does not hear it learns it with its next heartbeat."""
    connection.execute(text("SELECT procrastinate_cancel_job_v1(:entry, true, true)"), {"entry": entry})


def forget(connection: Connection, worker_id: uuid.UUID) -> None:
    """The entries of a worker that will not come back."""
    connection.execute(
        text("DELETE FROM procrastinate_jobs WHERE queue_name = :queue"), {"queue": name_of(worker_id)}
    )
