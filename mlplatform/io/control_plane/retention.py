"""What is not kept for ever: old jobs, with everything of them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select

from mlplatform.domain.jobs.states import TERMINAL
from mlplatform.io.control_plane import tables
from mlplatform.io.control_plane.database import Database
from mlplatform.io.object_store import ObjectStore

# Each in a transaction of its own, so that nobody waits long.
JOBS_AT_ONCE = 100

_jobs, _executions = tables.jobs, tables.executions


def clean(database: Database, objects: ObjectStore, keep: timedelta) -> int:
    """Removes jobs that ended longer ago than `keep`, with their executions, logs, artefacts and events.

    Events that belong to no job are kept as long.

    Returns:
        How many jobs were removed.

    Raises:
        StoreUnavailable: artefacts cannot be removed; their jobs stay until the next time.
    """
    with database.transaction() as connection:
        before = func.clock_timestamp() - keep
        connection.execute(
            delete(tables.events).where(tables.events.c.job_id.is_(None), tables.events.c.at < before)
        )
    removed = 0
    while True:
        with database.transaction() as connection:
            old = connection.scalars(
                select(_jobs.c.id)
                .where(_jobs.c.status.in_(TERMINAL), _jobs.c.finished_at < func.clock_timestamp() - keep)
                .order_by(_jobs.c.finished_at)
                .limit(JOBS_AT_ONCE)
                .with_for_update(skip_locked=True)
            ).all()
            if not old:
                return removed
            of_them = select(_executions.c.id).where(_executions.c.job_id.in_(old))
            artefact = tables.artefacts
            for key in connection.scalars(
                select(artefact.c.key).where(artefact.c.execution_id.in_(of_them))
            ).all():
                # First: an object that no row names would stay for ever.
                objects.delete(key)
            connection.execute(delete(_executions).where(_executions.c.job_id.in_(old)))
            connection.execute(delete(tables.events).where(tables.events.c.job_id.in_(old)))
            connection.execute(delete(_jobs).where(_jobs.c.id.in_(old)))
        removed += len(old)
