"""What is not kept for ever: old jobs, with everything of them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, tuple_

from mlplatform.domain.jobs.states import ENDED, TERMINAL
from mlplatform.io.control_plane import tables
from mlplatform.io.control_plane.database import Database
from mlplatform.io.object_store import ObjectStore

# Each in a transaction of its own, so that nobody waits long.
JOBS_AT_ONCE = 100
ARTEFACTS_AT_ONCE = 1000

_jobs, _executions, _artefacts = tables.jobs, tables.executions, tables.artefacts


def clean(database: Database, objects: ObjectStore, keep: timedelta) -> int:
    """Removes jobs that ended longer ago than `keep`, with their executions, logs, artefacts and events.

    Events that belong to no job are kept as long, and so are workers that have ended.

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
        worker = tables.workers
        has_run = select(_executions.c.id).where(_executions.c.worker_id == worker.c.id).exists()
        connection.execute(
            delete(worker).where(worker.c.status.in_(ENDED), worker.c.stopped_at < before, ~has_run)
        )
    _clean_artefacts(database, objects, keep)
    removed = 0
    while True:
        with database.transaction() as connection:
            old = connection.scalars(
                select(_jobs.c.id)
                .where(_old(keep), ~_has_artefacts())
                .order_by(_jobs.c.finished_at)
                .limit(JOBS_AT_ONCE)
                .with_for_update(skip_locked=True)
            ).all()
            if not old:
                return removed
            connection.execute(delete(_executions).where(_executions.c.job_id.in_(old)))
            connection.execute(delete(tables.events).where(tables.events.c.job_id.in_(old)))
            connection.execute(delete(_jobs).where(_jobs.c.id.in_(old)))
        removed += len(old)


def _clean_artefacts(database: Database, objects: ObjectStore, keep: timedelta) -> None:
    """In no transaction while the object store is asked, which takes as long as it likes."""
    while True:
        with database.transaction() as connection:
            found = connection.execute(
                select(_artefacts.c.execution_id, _artefacts.c.path, _artefacts.c.key)
                .join(_executions, _executions.c.id == _artefacts.c.execution_id)
                .join(_jobs, _jobs.c.id == _executions.c.job_id)
                .where(_old(keep))
                .limit(ARTEFACTS_AT_ONCE)
            ).all()
        if not found:
            return
        for row in found:
            # First: an object that no row names would stay for ever.
            objects.delete(row.key)
        gone = [(row.execution_id, row.path) for row in found]
        with database.transaction() as connection:
            connection.execute(
                delete(_artefacts).where(tuple_(_artefacts.c.execution_id, _artefacts.c.path).in_(gone))
            )


def _old(keep: timedelta) -> ColumnElement[bool]:
    return _jobs.c.status.in_(TERMINAL) & (_jobs.c.finished_at < func.clock_timestamp() - keep)


def _has_artefacts() -> ColumnElement[bool]:
    """Such as one that has ended since those of the others were removed."""
    of_it = select(_artefacts.c.path).join(_executions, _executions.c.id == _artefacts.c.execution_id)
    return of_it.where(_executions.c.job_id == _jobs.c.id).exists()
