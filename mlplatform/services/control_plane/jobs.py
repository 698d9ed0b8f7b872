"""Jobs over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import TypeAdapter
from sqlalchemy import Connection, RowMapping, select
from sse_starlette import EventSourceResponse

from mlplatform.domain.jobs.states import TERMINAL, State
from mlplatform.io.control_plane import events, executions, jobs, tables
from mlplatform.services.control_plane.auth import Authorized, authorize
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit, rows_of_page
from mlplatform.services.control_plane.requests import IdempotencyKey, Stored, once, traceparent_of
from mlplatform.services.control_plane.streams import last_heard, stream
from mlplatform.services.control_plane.views import EventView, ExecutionView, JobRequest, JobView, StatusView
from mlplatform.services.refusals import documented

READ, WRITE = "jobs:read", "jobs:write"
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such job")}
CONFLICT: dict[int | str, dict[str, Any]] = {409: documented("Its state does not allow it")}

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
_events = TypeAdapter(EventView)


@router.post(
    "",
    status_code=201,
    response_model=JobView,
    dependencies=[authorize(WRITE)],
    responses={404: documented("There is no such pipeline")},
)
def create_job(
    request: Request, asked: JobRequest, principal: Authorized, idempotency_key: IdempotencyKey = None
) -> Response:
    """Runs a command, or a pipeline.

    It is Pending until Dagster has a run for it, Scheduled until its first command runs.
    """
    new = jobs.NewJob(
        spec=asked.spec(),
        pipeline_id=asked.pipeline_id,
        name=asked.name or "",
        priority=asked.priority,
        environment=asked.env,
        traceparent=traceparent_of(request),
        created_by=principal.name,
    )
    return once(request, asked, idempotency_key, 201, lambda opened: shown(request, jobs.create(opened, new)))


@router.get("", dependencies=[authorize(READ)])
def list_jobs(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    status: State | None = None,
    pipeline_id: UUID | None = None,
) -> list[JobView]:
    """The newest first."""
    query = select(tables.jobs)
    if status is not None:
        query = query.where(tables.jobs.c.status == status)
    if pipeline_id is not None:
        query = query.where(tables.jobs.c.pipeline_id == pipeline_id)
    order = (tables.jobs.c.created_at, tables.jobs.c.id)
    found = rows_of_page(request, response, database, query, order, limit, cursor)
    return [shown(request, row) for row in found]


@router.get("/{job_id}", dependencies=[authorize(READ)], responses=UNKNOWN)
def get_job(request: Request, database: Stored, job_id: UUID) -> JobView:
    with database.transaction() as connection:
        return shown(request, jobs.get(connection, job_id))


@router.get("/{job_id}/status", dependencies=[authorize(READ)], responses=UNKNOWN)
def get_job_status(database: Stored, job_id: UUID) -> StatusView:
    with database.transaction() as connection:
        return StatusView.model_validate(jobs.get(connection, job_id))


@router.get("/{job_id}/executions", dependencies=[authorize(READ)], responses=UNKNOWN)
def list_job_executions(database: Stored, job_id: UUID) -> list[ExecutionView]:
    """All attempts of its stages, in the order of the stages."""
    with database.transaction() as connection:
        jobs.get(connection, job_id)
        found = executions.executions_of(connection, job_id)
    return [ExecutionView.model_validate(row) for row in found]


@router.post("/{job_id}/cancel", dependencies=[authorize(WRITE)], responses=UNKNOWN | CONFLICT)
def cancel_job(request: Request, database: Stored, job_id: UUID) -> JobView:
    """Ends it, with whatever runs of it; its run in Dagster is terminated."""
    with database.transaction() as connection:
        return shown(request, jobs.cancel(connection, job_id))


@router.post("/{job_id}/retry", dependencies=[authorize(WRITE)], responses=UNKNOWN | CONFLICT)
def retry_job(request: Request, database: Stored, job_id: UUID) -> JobView:
    """Another round of a job that failed: what has succeeded of it is not run again."""
    with database.transaction() as connection:
        return shown(request, jobs.retry(connection, job_id))


@router.get("/{job_id}/events", dependencies=[authorize(READ)], responses=UNKNOWN)
def list_job_events(
    database: Stored,
    job_id: UUID,
    after: Annotated[int, Query(ge=0, le=2**62, description="The id of the last one seen")] = 0,
    limit: Limit = DEFAULT_LIMIT,
) -> list[EventView]:
    """What became of it, the oldest first."""
    with database.transaction() as connection:
        jobs.get(connection, job_id)
        found = events.after(connection, after, limit, job_id)
    return [EventView.model_validate(row) for row in found]


@router.get(
    "/{job_id}/events/stream",
    dependencies=[authorize(READ)],
    response_class=EventSourceResponse,
    responses=UNKNOWN | {200: {"content": {"text/event-stream": {}}}},
)
def stream_job_events(
    request: Request, database: Stored, job_id: UUID, after: Annotated[int, Query(ge=0, le=2**62)] = 0
) -> EventSourceResponse:
    """As they happen, until it has ended; begins behind the header `Last-Event-ID`."""
    with database.transaction() as connection:
        jobs.get(connection, job_id)

    def read(position: int) -> tuple[Sequence[tuple[int, str, str]], bool]:
        with database.transaction() as connection:
            # First: what is written between the two is found by the next look.
            ended = State(jobs.get(connection, job_id)["status"]) in TERMINAL
            return told(connection, position, job_id), ended

    return stream(request, events.CHANNEL, str(job_id), last_heard(request, after), read)


def told(connection: Connection, position: int, job_id: UUID | None = None) -> list[tuple[int, str, str]]:
    """Events as a stream has them."""
    return [
        (row["id"], row["type"], _events.dump_json(EventView.model_validate(row)).decode())
        for row in events.after(connection, position, job_id=job_id)
    ]


def shown(request: Request, row: RowMapping) -> JobView:
    view = JobView.model_validate(row)
    if view.run_id and (dagit := request.app.state.dagit_url):
        view.run_url = f"{dagit}/runs/{view.run_id}"
    return view
