"""What Dagster is to show and to do by itself: the pipelines, and the jobs that are due by a schedule."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, func, select, text, update

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.io.control_plane import jobs, tables
from mlplatform.io.control_plane.job_rows import NotFound

_jobs, _pipelines, _schedules = tables.jobs, tables.pipelines, tables.schedules


def has_tables(connection: Connection) -> bool:
    """Whether a control plane has ever been started on this database."""
    return connection.scalar(text("SELECT to_regclass('pipelines')")) is not None


def pipelines(connection: Connection) -> Sequence[RowMapping]:
    """Those that are not deleted, in the order in which they were made."""
    query = select(_pipelines).where(_pipelines.c.deleted_at.is_(None))
    return connection.execute(query.order_by(_pipelines.c.created_at, _pipelines.c.id)).mappings().all()


def cron_schedules(connection: Connection) -> Sequence[RowMapping]:
    """Those that are not deleted, each with the `job_name` of its pipeline (None: a command)."""
    query = (
        select(_schedules, _pipelines.c.slug.label("job_name"))
        .outerjoin(_pipelines, _pipelines.c.id == _schedules.c.pipeline_id)
        .where(_schedules.c.deleted_at.is_(None), _schedules.c.cron.is_not(None))
        .where(_pipelines.c.deleted_at.is_(None))
    )
    return connection.execute(query.order_by(_schedules.c.created_at, _schedules.c.id)).mappings().all()


def job_for(connection: Connection, schedule_id: uuid.UUID, scheduled_for: datetime) -> RowMapping | None:
    """The job of a schedule for one of its times: the same one, however often it is asked for.

    It counts as asked for: whoever launches leaves it to Dagster for a while.

    Returns:
        None if nothing is to be run: the schedule is paused or deleted, or its pipeline is.
    """
    query = select(_schedules).where(_schedules.c.id == schedule_id, _schedules.c.deleted_at.is_(None))
    schedule = connection.execute(query.with_for_update()).one_or_none()
    if schedule is None or schedule.paused:
        return None
    return _job(connection, schedule, scheduled_for)


def due_jobs(connection: Connection) -> list[RowMapping]:
    """The jobs of the one-off schedules whose time has come, each with the `job_name` of its pipeline."""
    due = connection.execute(
        select(_schedules)
        .where(
            _schedules.c.due_at <= func.clock_timestamp(),
            _schedules.c.done_at.is_(None),
            _schedules.c.deleted_at.is_(None),
            _schedules.c.paused.is_(False),
        )
        .order_by(_schedules.c.due_at)
        .with_for_update(skip_locked=True)
    ).all()
    # All locks before the first event, which keeps everybody from writing another.
    wanted = {schedule.pipeline_id for schedule in due}
    connection.execute(
        select(_pipelines.c.id)
        .where(_pipelines.c.id.in_(wanted))
        .order_by(_pipelines.c.id)
        .with_for_update(read=True)
    )
    made = [_job(connection, schedule, schedule.due_at) for schedule in due]
    connection.execute(
        update(_schedules)
        .where(_schedules.c.id.in_([schedule.id for schedule in due]))
        .values(done_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
    )
    return [job for job in made if job is not None]


def _job(connection: Connection, schedule: Row[Any], scheduled_for: datetime) -> RowMapping | None:
    job_id = connection.scalar(
        select(_jobs.c.id).where(_jobs.c.schedule_id == schedule.id, _jobs.c.scheduled_for == scheduled_for)
    )
    if job_id is None:
        new = jobs.NewJob(
            spec=schedule.spec and JobSpec.model_validate(schedule.spec),
            pipeline_id=schedule.pipeline_id,
            name=schedule.name,
            priority=schedule.priority,
            schedule_id=schedule.id,
            scheduled_for=scheduled_for,
            created_by=schedule.created_by,
        )
        try:
            job_id = jobs.create(connection, new)["id"]
        except NotFound:
            # Its pipeline was deleted.
            return None
        connection.execute(update(_jobs).where(_jobs.c.id == job_id).values(asked_at=func.clock_timestamp()))
    query = select(_jobs, _pipelines.c.slug.label("job_name")).outerjoin(_pipelines)
    return connection.execute(query.where(_jobs.c.id == job_id)).mappings().one()
