"""A job's row: locked by whoever changes anything of the job, moved to its next state, and told of.

Whoever changes anything of a job, or of its executions, locks the job's row first. So what is read is true
until the transaction ends, and the events of a job are in the order of what they tell.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from mlplatform.domain.jobs.states import JOB_AFTER, TERMINAL, State
from mlplatform.errors import PlatformError
from mlplatform.io.control_plane import events, tables
from mlplatform.io.control_plane.database import notify

# Woken are: who launches runs; who places executions; who runs or follows one; who reads the log of one.
LAUNCHING, PLACING, ENDED, LOGS = "launching", "placing", "ended", "logs"

_jobs = tables.jobs


class NotFound(PlatformError):
    """There is no such thing."""


class Conflict(PlatformError):
    """What it is now does not allow it."""


def locked(connection: Connection, job_id: uuid.UUID) -> Row[Any]:
    """The job's row, which nobody else changes until the transaction ends.

    Raises:
        NotFound: there is no such job.
    """
    found = connection.execute(select(_jobs).where(_jobs.c.id == job_id).with_for_update()).one_or_none()
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    return found


def move(
    connection: Connection, job: Row[Any], to: State, reason: str | None = None, message: str | None = None
) -> None:
    """The next state of a locked job, and the event that tells of it.

    Raises:
        Conflict: that state does not follow.
    """
    if to not in JOB_AFTER[State(job.status)]:
        raise Conflict(f"job {job.id} is {job.status}: it cannot become {to}")
    now = datetime.now(UTC)
    values: dict[str, Any] = {"status": to, "reason": reason, "message": message, "updated_at": now}
    if to is State.PENDING:
        values |= dict.fromkeys(
            ("scheduled_at", "started_at", "finished_at", "run_id", "asked_at", "run_ended_at")
        )
    elif to is State.SCHEDULED:
        values["scheduled_at"] = now
    elif to is State.RUNNING:
        values["started_at"] = now
    else:
        values["finished_at"] = now
    changed = update(_jobs).where(_jobs.c.id == job.id).values(**values).returning(_jobs)
    tell(connection, connection.execute(changed).one())
    if to in TERMINAL:
        notify(connection, ENDED, str(job.id))


def tell(connection: Connection, job: Row[Any]) -> None:
    """Writes the event of the state that the job has."""
    data = {"job_id": str(job.id), "status": job.status, "round": job.round}
    if job.pipeline_id:
        data["pipeline_id"] = str(job.pipeline_id)
    for name in ("run_id", "reason"):
        if (value := getattr(job, name)) is not None:
            data[name] = value
    events.write(connection, f"job.{job.status.lower()}", data, job.id)
