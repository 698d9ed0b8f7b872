"""Pipelines over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping

from mlplatform.domain.jobs.specs import (
    MOST_VARIABLES,
    Argument,
    Name,
    Part,
    PipelineSpec,
    Stage,
    Trigger,
    VariableName,
)
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import jobs, pipelines, tables
from mlplatform.services.control_plane.auth import Authorized, authorize
from mlplatform.services.control_plane.declarations import (
    DOCUMENTED,
    FoundProblem,
    YamlRoute,
    is_yaml,
    problems_of,
    text_of,
    understood,
)
from mlplatform.services.control_plane.jobs import list_jobs, shown
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit, rows_of_page
from mlplatform.services.control_plane.requests import IdempotencyKey, Stored, once, traceparent_of
from mlplatform.services.control_plane.views import JobView, Priority, View
from mlplatform.services.refusals import documented

READ, WRITE = "pipelines:read", "pipelines:write"
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such pipeline")}
TAKEN: dict[int | str, dict[str, Any]] = {409: documented("There is YAML of this name already")}
BUSY: dict[int | str, dict[str, Any]] = {409: documented("Jobs of it have not ended")}

router = APIRouter(prefix="/api/v1/pipelines", tags=["pipelines"], route_class=YamlRoute)
Declared = Annotated[
    PipelineSpec,
    Body(
        examples=[
            {"name": "test-pipeline", "description": "E2E test pipeline"},
            {
                "name": "nightly",
                "stages": [
                    {"name": "fetch", "commands": ["echo fetching"]},
                    {
                        "name": "train",
                        "commands": ["echo training"],
                        "dependencies": ["fetch"],
                        "resources": {"cpu": "500m", "memory": "512Mi"},
                        "retries": 1,
                    },
                ],
                "environment": {"STAGE": "test"},
                "triggers": [{"schedule": {"cron": "30 2 * * *"}}],
            },
        ]
    ),
]


class PipelineView(View):
    id: UUID
    name: str
    status: Literal["active"] = "active"
    description: str
    stages: list[Stage]
    environment: dict[str, str]
    triggers: list[Trigger | str]
    yaml: str | None
    slug: str = Field(description="The name of its job, and the first part of its assets' names, in Dagster.")
    version: int = Field(description="From 1; each change makes another.")
    created_by: str
    created_at: datetime
    updated_at: datetime


class Verdict(BaseModel):
    valid: bool
    problems: list[FoundProblem]


class RunRequest(Part):
    """How a pipeline is run this once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"env": {"DAY": "2026-01-01"}, "priority": 10}]}
    )

    name: Name | None = Field(None, description="Of the job; else the pipeline's.")
    env: dict[VariableName, Argument] = Field(
        {}, max_length=MOST_VARIABLES, description="For all stages, over those of the pipeline."
    )
    priority: Priority = 0


async def _text(request: Request) -> str:
    return text_of(await request.body())


@router.post(
    "",
    status_code=201,
    response_model=PipelineView,
    dependencies=[authorize(WRITE)],
    responses=TAKEN,
    openapi_extra=DOCUMENTED,
)
def create_pipeline(
    request: Request, asked: Declared, principal: Authorized, idempotency_key: IdempotencyKey = None
) -> Response:
    """Keeps stages with dependencies, or the YAML of a batch pipeline; Dagit shows it in a moment.

    YAML is the body as it is, under the content type `application/yaml`, or the field `yaml`. Its name is
    that of its project, and of templates it may have those of secrets.
    """
    spec, crons = understood(request.app.state.settings, asked)
    return once(
        request,
        asked,
        idempotency_key,
        201,
        lambda connection: _shown(pipelines.create(connection, spec, crons, principal.name)),
    )


@router.post(
    "/validate",
    dependencies=[authorize(READ)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}},
                **DOCUMENTED["requestBody"]["content"],
            },
        }
    },
)
def validate_pipeline(request: Request, text: Annotated[str, Depends(_text)]) -> Verdict:
    """Tells all that is wrong with a pipeline, with place and remedy; keeps nothing."""
    problems = problems_of(request.app.state.settings, text, is_yaml(request))
    return Verdict(valid=not problems, problems=problems)


@router.get("", dependencies=[authorize(READ)])
def list_pipelines(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> list[PipelineView]:
    """The newest first."""
    order = (tables.pipelines.c.created_at, tables.pipelines.c.id)
    found = rows_of_page(request, response, database, pipelines.view(), order, limit, cursor)
    return [_shown(row) for row in found]


@router.get("/{pipeline_id}", dependencies=[authorize(READ)], responses=UNKNOWN)
def get_pipeline(database: Stored, pipeline_id: UUID) -> PipelineView:
    with database.transaction() as connection:
        return _shown(pipelines.get(connection, pipeline_id))


@router.put(
    "/{pipeline_id}",
    dependencies=[authorize(WRITE)],
    responses=UNKNOWN | TAKEN,
    openapi_extra=DOCUMENTED,
)
def replace_pipeline(request: Request, database: Stored, pipeline_id: UUID, asked: Declared) -> PipelineView:
    """Its next version; jobs that were made before go on with what they were made of."""
    spec, crons = understood(request.app.state.settings, asked)
    with database.transaction() as connection:
        return _shown(pipelines.replace(connection, pipeline_id, spec, crons))


@router.delete("/{pipeline_id}", status_code=204, dependencies=[authorize(WRITE)], responses=UNKNOWN | BUSY)
def delete_pipeline(database: Stored, pipeline_id: UUID) -> None:
    """Takes it away with its schedules; the jobs that it had stay."""
    with database.transaction() as connection:
        pipelines.delete(connection, pipeline_id)


@router.post(
    "/{pipeline_id}/run",
    status_code=201,
    response_model=JobView,
    dependencies=[authorize(WRITE)],
    responses=UNKNOWN,
)
def run_pipeline(
    request: Request,
    pipeline_id: UUID,
    principal: Authorized,
    asked: RunRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Makes a job of it."""
    asked = asked or RunRequest.model_validate({})
    new = jobs.NewJob(
        pipeline_id=pipeline_id,
        name=asked.name or "",
        priority=asked.priority,
        environment=asked.env,
        traceparent=traceparent_of(request),
        created_by=principal.name,
    )
    return once(
        request, asked, idempotency_key, 201, lambda connection: shown(request, jobs.create(connection, new))
    )


@router.get("/{pipeline_id}/jobs", dependencies=[authorize(READ), authorize("jobs:read")], responses=UNKNOWN)
def list_pipeline_jobs(
    request: Request,
    response: Response,
    database: Stored,
    pipeline_id: UUID,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    status: State | None = None,
) -> list[JobView]:
    """The newest first."""
    with database.transaction() as connection:
        pipelines.get(connection, pipeline_id)
    return list_jobs(request, response, database, limit, cursor, status, pipeline_id)


def _shown(row: RowMapping) -> PipelineView:
    return PipelineView.model_validate({**row["spec"], **row})
