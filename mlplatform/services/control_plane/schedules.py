"""Schedules over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import AwareDatetime, ConfigDict, Field, model_validator
from sqlalchemy import Connection, RowMapping

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.timing import Cron, Zone
from mlplatform.io.control_plane import schedules, tables
from mlplatform.io.control_plane.schedules import NewSchedule
from mlplatform.services.control_plane.auth import Authorized, authorize
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit, rows_of_page
from mlplatform.services.control_plane.requests import IdempotencyKey, Stored, once
from mlplatform.services.control_plane.views import JobRequest, View
from mlplatform.services.refusals import documented
from mlplatform.services.security import Principal

READ, WRITE = "schedules:read", "schedules:write"
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such schedule")}
NO_PIPELINE: dict[int | str, dict[str, Any]] = {
    404: documented("There is no such schedule, or no such pipeline")
}
TRIGGER: dict[int | str, dict[str, Any]] = {
    409: documented("It is a trigger of its pipeline: change it there")
}
DONE: dict[int | str, dict[str, Any]] = {409: documented("Its only time has come")}
TIMES = 5

router = APIRouter(prefix="/api/v1", tags=["schedules"])


class ScheduleRequest(JobRequest):
    """What is to be run, and when: by a line of cron, once at `due_at`, or as soon as possible."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "nightly", "command": ["echo", "hello"], "cron": "30 2 * * *", "timezone": "UTC"},
                {
                    "pipeline_id": "6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55",
                    "due_at": "2030-01-01T09:30:00+01:00",
                },
            ]
        }
    )

    cron: Cron | None = None
    timezone: Zone = "UTC"
    due_at: AwareDatetime | None = None
    paused: bool = False

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.cron is not None and self.due_at is not None:
            raise ValueError("a schedule has a line of cron, or one time, not both")
        if self.pipeline_id is not None and self.env:
            raise ValueError("the pipeline says its variables itself")
        return self


class ScheduleView(View):
    id: UUID
    name: str
    status: Literal["scheduled", "paused", "done"]
    pipeline_id: UUID | None
    spec: JobSpec | None = Field(description="Of a schedule without a pipeline.")
    priority: int
    cron: str | None
    timezone: str
    due_at: datetime | None
    next_times: list[datetime] = Field(description="When it makes its next jobs.")
    declared: bool = Field(description="A trigger of its pipeline, which comes and goes with it.")
    slug: str = Field(description="Its name in Dagster.")
    created_by: str
    scheduled_at: datetime = Field(description="When it was made.")
    updated_at: datetime


@router.post(
    "/schedules",
    status_code=201,
    response_model=ScheduleView,
    dependencies=[authorize(WRITE)],
    responses={404: documented("There is no such pipeline")},
)
@router.post(
    "/schedule",
    status_code=201,
    response_model=ScheduleView,
    dependencies=[authorize(WRITE)],
    responses={404: documented("There is no such pipeline")},
)
def create_schedule(
    request: Request, asked: ScheduleRequest, principal: Authorized, idempotency_key: IdempotencyKey = None
) -> Response:
    """Runs a command or a pipeline by itself: again and again, once, or as soon as possible."""
    return once(
        request,
        asked,
        idempotency_key,
        201,
        lambda connection: created(connection, asked, principal),
    )


def created(connection: Connection, asked: ScheduleRequest, principal: Principal) -> ScheduleView:
    return _shown(schedules.create(connection, _new(asked, principal.name)))


@router.get("/schedules", dependencies=[authorize(READ)])
@router.get("/scheduled", dependencies=[authorize(READ)])
def list_schedules(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    pipeline_id: UUID | None = None,
) -> list[ScheduleView]:
    """The newest first."""
    table = tables.schedules
    query = schedules.view()
    if pipeline_id is not None:
        query = query.where(table.c.pipeline_id == pipeline_id)
    order = (table.c.created_at, table.c.id)
    found = rows_of_page(request, response, database, query, order, limit, cursor)
    return [_shown(row) for row in found]


@router.get("/schedules/{schedule_id}", dependencies=[authorize(READ)], responses=UNKNOWN)
@router.get("/scheduled/{schedule_id}", dependencies=[authorize(READ)], responses=UNKNOWN)
def get_schedule(database: Stored, schedule_id: UUID) -> ScheduleView:
    with database.transaction() as connection:
        return _shown(schedules.get(connection, schedule_id))


@router.put("/schedules/{schedule_id}", dependencies=[authorize(WRITE)], responses=NO_PIPELINE | TRIGGER)
def replace_schedule(
    database: Stored, schedule_id: UUID, asked: ScheduleRequest, principal: Authorized
) -> ScheduleView:
    """Another time, or another thing to run; one that was done comes again at another time."""
    with database.transaction() as connection:
        return _shown(schedules.replace(connection, schedule_id, _new(asked, principal.name)))


@router.delete(
    "/schedules/{schedule_id}", status_code=204, dependencies=[authorize(WRITE)], responses=UNKNOWN
)
def delete_schedule(database: Stored, schedule_id: UUID) -> None:
    """The jobs that it made stay."""
    with database.transaction() as connection:
        schedules.delete(connection, schedule_id)


@router.post("/schedules/{schedule_id}/pause", dependencies=[authorize(WRITE)], responses=UNKNOWN)
def pause_schedule(database: Stored, schedule_id: UUID) -> ScheduleView:
    """It makes no jobs until it is resumed."""
    with database.transaction() as connection:
        return _shown(schedules.pause(connection, schedule_id))


@router.post("/schedules/{schedule_id}/resume", dependencies=[authorize(WRITE)], responses=UNKNOWN | DONE)
def resume_schedule(database: Stored, schedule_id: UUID) -> ScheduleView:
    """It makes jobs again; one whose only time has passed meanwhile makes its job now."""
    with database.transaction() as connection:
        return _shown(schedules.resume(connection, schedule_id))


def _new(asked: ScheduleRequest, created_by: str) -> NewSchedule:
    spec = asked.spec()
    return NewSchedule(
        name=asked.name or (spec.name if spec else ""),
        spec=spec,
        pipeline_id=asked.pipeline_id,
        cron=asked.cron,
        timezone=asked.timezone,
        # Neither: as soon as possible.
        due_at=None if asked.cron else asked.due_at or datetime.now(UTC),
        priority=asked.priority,
        paused=asked.paused,
        created_by=created_by,
    )


def _shown(row: RowMapping) -> ScheduleView:
    status = "done" if row["done_at"] else "paused" if row["paused"] else "scheduled"
    return ScheduleView.model_validate(
        {
            **row,
            "status": status,
            "next_times": schedules.coming(row, TIMES),
            "scheduled_at": row["created_at"],
        }
    )
