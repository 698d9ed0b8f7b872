"""Schedules: what runs a pipeline or a command by itself, again and again or once."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, Select, func, insert, select, update

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.timing import next_times
from mlplatform.io.control_plane import events, slugs, tables
from mlplatform.io.control_plane.database import notify
from mlplatform.io.control_plane.job_rows import Conflict, NotFound

# Woken is who shows Dagster what there is now.
CHANNEL = "pipelines"
_schedules, _pipelines = tables.schedules, tables.pipelines


@dataclass(frozen=True)
class NewSchedule:
    """A pipeline or a command, and either a line of cron or one time."""

    # Empty: the pipeline's.
    name: str = ""
    spec: JobSpec | None = None
    pipeline_id: uuid.UUID | None = None
    cron: str | None = None
    timezone: str = "UTC"
    due_at: datetime | None = None
    priority: int = 0
    paused: bool = False
    # Its pipeline says it, and goes on saying it.
    declared: bool = False
    created_by: str = ""


def view() -> Select[Any]:
    """Those that are not deleted, nor is their pipeline."""
    return (
        select(_schedules)
        .outerjoin(_pipelines, _pipelines.c.id == _schedules.c.pipeline_id)
        .where(_schedules.c.deleted_at.is_(None), _pipelines.c.deleted_at.is_(None))
    )


def create(connection: Connection, new: NewSchedule) -> RowMapping:
    """
    Raises:
        NotFound: there is no such pipeline.
    """
    new = _named(connection, new)
    id_ = uuid.uuid4()
    base = f"{slugs.slug_of(new.name, 'a')}_schedule"
    connection.execute(
        insert(_schedules).values(
            id=id_,
            slug=slugs.take(connection, _schedules, base),
            created_by=new.created_by,
            **_values(new),
        )
    )
    return _told(connection, id_, "created")


def get(connection: Connection, schedule_id: uuid.UUID) -> RowMapping:
    """
    Raises:
        NotFound: there is no such schedule, or no more.
    """
    found = connection.execute(view().where(_schedules.c.id == schedule_id)).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no schedule {schedule_id}")
    return found


def replace(connection: Connection, schedule_id: uuid.UUID, new: NewSchedule) -> RowMapping:
    """Another time, or another thing to run. One that was done and has another time now comes again.

    Raises:
        NotFound: there is no such schedule, or no such pipeline.
        Conflict: its pipeline says when it is run.
    """
    before = _locked(connection, schedule_id)
    if before["declared"]:
        raise Conflict(f"schedule {schedule_id} is a trigger of its pipeline: change it there, or pause it")
    new = _named(connection, new)
    done_at = before["done_at"] if new.due_at == before["due_at"] else None
    return _change(connection, schedule_id, done_at=done_at, **_values(new))


def pause(connection: Connection, schedule_id: uuid.UUID) -> RowMapping:
    """It makes no jobs until it is resumed; what was due meanwhile and comes again and again is left out.

    Raises:
        NotFound: there is no such schedule, or no more.
    """
    before = _locked(connection, schedule_id)
    return before if before["paused"] else _change(connection, schedule_id, paused=True)


def resume(connection: Connection, schedule_id: uuid.UUID) -> RowMapping:
    """It makes jobs again; one whose only time has passed meanwhile makes its job now.

    Raises:
        NotFound: there is no such schedule, or no more.
        Conflict: it was done.
    """
    before = _locked(connection, schedule_id)
    if before["done_at"] is not None:
        raise Conflict(f"schedule {schedule_id} was done")
    return _change(connection, schedule_id, paused=False) if before["paused"] else before


def delete(connection: Connection, schedule_id: uuid.UUID) -> None:
    """Takes it away; the jobs that it made stay.

    Raises:
        NotFound: there is no such schedule, or no more.
    """
    _locked(connection, schedule_id)
    now = func.clock_timestamp()
    one = _schedules.c.id == schedule_id
    connection.execute(update(_schedules).where(one).values(deleted_at=now, updated_at=now))
    _tell(connection, schedule_id, "deleted")


def declared_of(connection: Connection, pipeline_id: uuid.UUID) -> Sequence[Row[Any]]:
    """Those that the pipeline itself asks for, which nobody else changes until the transaction ends."""
    query = select(_schedules).where(
        _schedules.c.pipeline_id == pipeline_id, _schedules.c.declared, _schedules.c.deleted_at.is_(None)
    )
    return connection.execute(query.order_by(_schedules.c.id).with_for_update()).all()


def coming(row: RowMapping, count: int, now: datetime | None = None) -> list[datetime]:
    """When it makes its next jobs: no time if it is paused, or was done."""
    if row["paused"] or row["done_at"] is not None:
        return []
    if row["cron"] is None:
        return [row["due_at"]]
    return next_times(row["cron"], row["timezone"], now or datetime.now(UTC), count)


def _values(new: NewSchedule) -> dict[str, Any]:
    return {
        "name": new.name,
        "pipeline_id": new.pipeline_id,
        "spec": new.spec and new.spec.model_dump(mode="json"),
        "priority": new.priority,
        "cron": new.cron,
        "timezone": new.timezone,
        "due_at": new.due_at,
        "paused": new.paused,
        "declared": new.declared,
    }


def _locked(connection: Connection, schedule_id: uuid.UUID) -> RowMapping:
    query = view().where(_schedules.c.id == schedule_id).with_for_update(of=_schedules)
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no schedule {schedule_id}")
    return found


def _named(connection: Connection, new: NewSchedule) -> NewSchedule:
    """With a name; its pipeline stays until the transaction ends."""
    if new.pipeline_id is None:
        return new
    query = select(_pipelines.c.name).where(
        _pipelines.c.id == new.pipeline_id, _pipelines.c.deleted_at.is_(None)
    )
    name = connection.scalar(query.with_for_update(read=True))
    if name is None:
        raise NotFound(f"there is no pipeline {new.pipeline_id}")
    return dataclasses.replace(new, name=new.name or name)


def _change(connection: Connection, schedule_id: uuid.UUID, **values: Any) -> RowMapping:
    one = _schedules.c.id == schedule_id
    connection.execute(update(_schedules).where(one).values(updated_at=func.clock_timestamp(), **values))
    return _told(connection, schedule_id, "updated")


def _told(connection: Connection, schedule_id: uuid.UUID, what: str) -> RowMapping:
    _tell(connection, schedule_id, what)
    return get(connection, schedule_id)


def _tell(connection: Connection, schedule_id: uuid.UUID, what: str) -> None:
    events.write(connection, f"schedule.{what}", {"schedule_id": str(schedule_id)})
    notify(connection, CHANNEL)
