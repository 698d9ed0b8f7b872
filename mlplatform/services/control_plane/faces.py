"""The seed's three services, for clients that have three base addresses: the same functions, by its words.

Each is below its name (`/scheduler/api/v1/workers`), and may have a port of its own. Two of them mean
different things by `POST /api/v1/workers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection
from starlette.types import Receive, Scope, Send

from mlplatform.domain.jobs.specs import Argument, Name, Part, Text
from mlplatform.domain.jobs.states import ENDED, TERMINAL, State, WorkerState
from mlplatform.domain.jobs.timing import Cron, Zone
from mlplatform.io.control_plane import executions as execution_rows
from mlplatform.io.control_plane import jobs as job_rows
from mlplatform.io.control_plane.job_rows import Conflict
from mlplatform.services.app import REFUSALS
from mlplatform.services.control_plane import executions, jobs, pipelines, schedules, workers
from mlplatform.services.control_plane.auth import PREFIX, Authorized, authorize
from mlplatform.services.control_plane.children import Children
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit
from mlplatform.services.control_plane.requests import IdempotencyKey, Stored, once, traceparent_of
from mlplatform.services.control_plane.views import (
    ExecutionView,
    JobRequest,
    Priority,
    WorkerRequest,
    WorkerView,
)
from mlplatform.services.refusals import documented

STATIC = "/static-offline-docs"
# What all ports answer, as the first one does.
SHARED = (f"{PREFIX}/", STATIC, "/metrics", "/ready")
DESCRIPTIONS = {
    "orchestrator": "Pipelines and jobs.",
    "scheduler": "What is to be run later, and the workers that are there.",
    "worker-manager": "Workers of this machine, and what they run.",
}
SHELL = ["/bin/sh", "-c"]


# What is run later


class ScheduledJob(Part):
    """What a job has run is run again: now, once, or again and again."""

    job_id: UUID
    name: Name | None = None
    priority: Priority = 0
    cron: Cron | None = None
    timezone: Zone = "UTC"
    due_at: AwareDatetime | None = Field(None, description="Once; without this and `cron`, now.")

    @model_validator(mode="after")
    def _one_time(self) -> ScheduledJob:
        if self.cron is not None and self.due_at is not None:
            raise ValueError("a schedule has a line of cron, or one time, not both")
        return self


scheduling = APIRouter(prefix="/api/v1", tags=["schedules"])
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such thing")}


@scheduling.post(
    "/schedule",
    response_model=schedules.ScheduleView,
    dependencies=[authorize(schedules.WRITE)],
    responses={404: documented("There is no such job or pipeline")},
)
def schedule_job(
    request: Request,
    asked: schedules.ScheduleRequest | ScheduledJob,
    principal: Authorized,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Makes a schedule, which Dagster has from now on: of a command, a pipeline, or what a job has run."""

    def made(connection: Connection) -> schedules.ScheduleView:
        if isinstance(asked, schedules.ScheduleRequest):
            return schedules.created(connection, asked, principal)
        job = job_rows.get(connection, asked.job_id)
        what = {"pipeline_id": job["pipeline_id"]} if job["pipeline_id"] else job["spec"]
        when = asked.model_dump(exclude={"job_id", "name"})
        again = {**what, **when, "name": asked.name or job["name"]}
        return schedules.created(connection, schedules.ScheduleRequest.model_validate(again), principal)

    return once(request, asked, idempotency_key, 200, made)


scheduling.get("/scheduled", dependencies=[authorize(schedules.READ)])(schedules.list_schedules)
scheduling.get("/scheduled/{schedule_id}", dependencies=[authorize(schedules.READ)], responses=UNKNOWN)(
    schedules.get_schedule
)


# What is run now


CommandLine = Annotated[
    Text | Annotated[list[Argument], Field(min_length=1, max_length=1000)],
    Field(description="A line for a shell, or program and arguments."),
]


class ExecuteAsked(Part):
    """A command, a pipeline, or the job that is there; `POST /api/v1/jobs` can say more."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"command": "echo hello", "type": "bash"},
                {"job_id": "0a9c2b6e-4f60-4f0e-9d0b-0d3c1d0e5a11"},
            ]
        }
    )

    job_id: UUID | None = Field(None, description="Makes no other: its newest execution is the answer.")
    pipeline_id: UUID | None = None
    command: CommandLine | None = None
    type: Name | None = Field(None, description="As the seed sends it. A line is for a shell in any case.")
    name: Name | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> ExecuteAsked:
        if sum(each is not None for each in (self.job_id, self.pipeline_id, self.command)) != 1:
            raise ValueError("one of job_id, pipeline_id and command says what is to be executed")
        return self


class FaceExecutionView(ExecutionView):
    status: Literal["running", "success", "failed", "cancelled"] = Field(  # type: ignore[assignment]
        description="running, until it has ended."
    )
    state: State = Field(description="As all other routes have it.")
    started_at: datetime = Field(  # type: ignore[assignment]
        description="Until it has begun, when it was asked for."
    )


running = APIRouter(prefix="/api/v1", tags=["executions"])
executing = APIRouter(prefix="/api/v1/executions", tags=["executions"])


@running.post(
    "/execute",
    response_model=FaceExecutionView,
    dependencies=[authorize("jobs:write")],
    responses={
        404: documented("There is no such job or pipeline"),
        409: documented("It has no stage: there is nothing to execute"),
    },
)
def execute_job(
    request: Request, asked: ExecuteAsked, principal: Authorized, idempotency_key: IdempotencyKey = None
) -> Response:
    """Makes a job and answers with its first execution, which runs when a worker has room for it."""

    def made(connection: Connection) -> FaceExecutionView:
        job_id = asked.job_id
        if job_id is None:
            spec = None if asked.command is None else _job(asked.command, asked.name).spec()
            new = job_rows.NewJob(
                spec=spec,
                pipeline_id=asked.pipeline_id,
                name=asked.name or "",
                traceparent=traceparent_of(request),
                created_by=principal.name,
            )
            job_id = job_rows.create(connection, new)["id"]
        job_rows.get(connection, job_id)
        attempts = execution_rows.executions_of(connection, job_id)
        if not attempts:
            raise Conflict(
                f"job {asked.job_id or 'of this pipeline'} has no stage: there is nothing to execute"
            )
        first = attempts[0] if asked.job_id is None else max(attempts, key=lambda each: each["created_at"])
        return _execution(ExecutionView.model_validate(first))

    return once(request, asked, idempotency_key, 200, made)


def _execution(view: ExecutionView) -> FaceExecutionView:
    status = view.status.lower() if view.status in TERMINAL else "running"
    began = view.started_at or view.created_at
    return FaceExecutionView.model_validate(
        {**view.model_dump(), "status": status, "state": view.status, "started_at": began}
    )


# Workers, by the words of each face


class RegisteredView(WorkerView):
    status: Literal["online", "offline"]  # type: ignore[assignment]
    state: WorkerState = Field(description="As all other routes have it.")


class StartedView(WorkerView):
    status: Literal["running", "stopped"]  # type: ignore[assignment]
    state: WorkerState = Field(description="As all other routes have it.")
    started_at: datetime


class StartedStatus(BaseModel):
    id: UUID
    status: Literal["running", "stopped"]


registering = APIRouter(prefix="/api/v1/workers", tags=["workers"])
starting = APIRouter(prefix="/api/v1/workers", tags=["workers"])


@registering.post("", response_model=RegisteredView, dependencies=[authorize(workers.WRITE)])
def register_worker(
    request: Request, asked: WorkerRequest, principal: Authorized, idempotency_key: IdempotencyKey = None
) -> Any:
    """Tells of a worker that is there; it stays online as long as its heartbeats come."""
    return once(
        request,
        asked,
        idempotency_key,
        200,
        lambda connection: _registered(workers.registered(connection, asked, principal)),
    )


@registering.get("", dependencies=[authorize(workers.READ)])
def list_registered(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> list[RegisteredView]:
    """The newest first."""
    return [_registered(view) for view in workers.list_workers(request, response, database, limit, cursor)]


@registering.get("/{worker_id}", dependencies=[authorize(workers.READ)], responses=UNKNOWN)
def get_registered(database: Stored, worker_id: UUID) -> RegisteredView:
    """One of them."""
    return _registered(workers.get_worker(database, worker_id))


@registering.post(
    "/{worker_id}/heartbeat", dependencies=[authorize(workers.WRITE)], responses=UNKNOWN | workers.ENDED
)
def beat(database: Stored, worker_id: UUID) -> RegisteredView:
    """It is alive."""
    return _registered(workers.beat(database, worker_id))


@starting.post(
    "",
    response_model=StartedView,
    dependencies=[authorize(workers.WRITE)],
    responses={409: documented("Not in this environment, or there are too many")},
)
async def start_worker(request: Request, asked: WorkerRequest) -> StartedView:
    """Starts a process on this machine that runs the commands of jobs; it ends with the API."""
    children: Children = request.app.state.children
    row = await children.start(
        asked.name or asked.type, asked.type, asked.capabilities, asked.timeout_seconds
    )
    return _started(WorkerView.model_validate(row))


@starting.get("", dependencies=[authorize(workers.READ)])
def list_started(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> list[StartedView]:
    """The newest first, wherever they were started."""
    return [_started(view) for view in workers.list_workers(request, response, database, limit, cursor)]


@starting.get("/{worker_id}", dependencies=[authorize(workers.READ)], responses=UNKNOWN)
def get_started(database: Stored, worker_id: UUID) -> StartedView:
    """One of them."""
    return _started(workers.get_worker(database, worker_id))


@starting.get("/{worker_id}/status", dependencies=[authorize(workers.READ)], responses=UNKNOWN)
def get_started_status(database: Stored, worker_id: UUID) -> StartedStatus:
    """Whether it runs."""
    started = _started(workers.get_worker(database, worker_id))
    return StartedStatus(id=started.id, status=started.status)


@starting.delete("/{worker_id}", dependencies=[authorize(workers.WRITE)], responses=UNKNOWN)
async def stop_worker(request: Request, database: Stored, worker_id: UUID) -> StartedView:
    """It ends at once, wherever it was started; what it has is given to others."""
    stopped = await run_in_threadpool(workers.stop_worker, database, worker_id)
    request.app.state.children.end(worker_id)
    return _started(stopped)


@executing.get("", dependencies=[authorize(jobs.READ)])
def list_executions(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> list[FaceExecutionView]:
    """The newest first."""
    found = executions.list_executions(request, response, database, limit, cursor)
    return [_execution(view) for view in found]


@executing.get("/{execution_id}", dependencies=[authorize(jobs.READ)], responses=UNKNOWN)
def get_execution(database: Stored, execution_id: UUID) -> FaceExecutionView:
    """One of them."""
    return _execution(executions.get_execution(database, execution_id))


executing.get("/{execution_id}/logs", dependencies=[authorize(jobs.READ)], responses=UNKNOWN)(
    executions.get_logs
)


def _registered(view: WorkerView) -> RegisteredView:
    silent = view.status in {*ENDED, WorkerState.UNHEALTHY}
    status = "offline" if silent else "online"
    return RegisteredView.model_validate({**view.model_dump(), "status": status, "state": view.status})


def _started(view: WorkerView) -> StartedView:
    return StartedView.model_validate(
        {
            **view.model_dump(),
            "status": "stopped" if view.status in ENDED else "running",
            "state": view.status,
            "started_at": view.registered_at,
        }
    )


def _job(line: CommandLine, name: str | None) -> JobRequest:
    command = [*SHELL, line] if isinstance(line, str) else line
    return JobRequest.model_validate({"command": command, "name": name})


# The faces


def add_faces(app: FastAPI) -> None:
    """The three below their names; at the root, what the platform has no other route for."""
    app.include_router(running)
    app.get("/swagger-ui", include_in_schema=False)(_swagger_ui("Control plane"))
    for name, routers in {
        "orchestrator": (pipelines.router, jobs.router),
        "scheduler": (scheduling, registering),
        "worker-manager": (starting, running, executing),
    }.items():
        app.include_router(_face(name, routers), prefix=f"/{name}", include_in_schema=False)


def _face(name: str, routers: Sequence[APIRouter]) -> APIRouter:
    face = APIRouter(responses={status: documented(text) for status, text in REFUSALS.items()})
    title = name.replace("-", " ").capitalize()

    @face.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process lives."""
        return {"status": "healthy", "service": name, "version": version("mlplatform")}

    for router in routers:
        face.include_router(router)
    described = list(face.routes)
    document: dict[str, Any] = {}

    @face.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        if not document:
            document.update(
                get_openapi(
                    title=title,
                    version=version("mlplatform"),
                    description=DESCRIPTIONS[name],
                    routes=described,
                    servers=[{"url": f"/{name}"}],
                )
            )
        return document

    face.get("/swagger-ui", include_in_schema=False)(_swagger_ui(title))
    return face


def _swagger_ui(title: str) -> Any:
    async def swagger_ui() -> HTMLResponse:
        return get_swagger_ui_html(
            # Beside this page, wherever that is.
            openapi_url="openapi.json",
            title=title,
            swagger_js_url=f"{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{STATIC}/favicon.png",
        )

    return swagger_ui


class OnItsPort:
    """One of the faces where a client expects it: at the root of an address of its own.

    It is the same application, with everything that goes on in it.
    """

    def __init__(self, app: FastAPI, name: str) -> None:
        self._app = app
        self._root = f"/{name}"
        self.state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith((*SHARED, f"{self._root}/")):
            raw = scope.get("raw_path")
            scope = {
                **scope,
                "path": self._root + scope["path"],
                "raw_path": raw and self._root.encode() + raw,
            }
        await self._app(scope, receive, send)
