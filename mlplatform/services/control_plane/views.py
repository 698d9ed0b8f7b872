"""What requests may say, and what replies say, of jobs, executions, workers and events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlplatform.domain.jobs.specs import (
    DEFAULT_TIMEOUT_MS,
    LONGEST_TIMEOUT_MS,
    MOST_VARIABLES,
    Argument,
    Capabilities,
    Feature,
    JobSpec,
    Name,
    Part,
    Resources,
    SecretName,
    Text,
    VariableName,
)
from mlplatform.domain.jobs.states import State, WorkerState

Priority = Annotated[int, Field(ge=-1000, le=1000, description="Higher ones come first.")]


# A pipeline's stages say these themselves.
OF_COMMANDS = {"image", "resources", "features", "timeout_ms", "retries", "secret_refs"}


class View(BaseModel):
    """Of a row."""

    model_config = ConfigDict(from_attributes=True)


class JobRequest(Part):
    """A pipeline to run, or a command with what it needs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "hello", "command": ["echo", "hello"], "timeout_ms": 60000, "retries": 1},
                {"pipeline_id": "6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55"},
            ]
        }
    )

    pipeline_id: UUID | None = None
    name: Name | None = None
    command: list[Argument] | None = Field(
        None, min_length=1, max_length=1000, description="Program and arguments; no shell."
    )
    image: Text | None = None
    resources: Resources = Field(default_factory=Resources)
    features: frozenset[Feature] = frozenset()
    timeout_ms: int = Field(DEFAULT_TIMEOUT_MS, gt=0, le=LONGEST_TIMEOUT_MS)
    retries: int = Field(0, ge=0, le=255)
    env: dict[VariableName, Argument] = Field({}, max_length=MOST_VARIABLES)
    secret_refs: list[SecretName] = Field([], max_length=100)
    priority: Priority = 0

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.pipeline_id is None) == (self.command is None):
            raise ValueError("a job names its pipeline_id, or a command")
        if self.pipeline_id is not None and (of_commands := self.model_fields_set & OF_COMMANDS):
            raise ValueError(
                f"the stages of a pipeline say these themselves: {', '.join(sorted(of_commands))}"
            )
        return self

    def spec(self) -> JobSpec | None:
        """What is run, where it is not a pipeline."""
        if self.command is None:
            return None
        return JobSpec(
            name=self.name or _name_of(self.command[0]),
            image=self.image,
            command=self.command,
            resources=self.resources,
            features=self.features,
            timeout_ms=self.timeout_ms,
            retries=self.retries,
            env=self.env,
            secret_refs=self.secret_refs,
        )


def _name_of(program: str) -> str:
    return "".join(filter(str.isprintable, program))[:200] or "command"


class JobView(View):
    id: UUID
    name: str
    pipeline_id: UUID | None
    status: State
    reason: str | None
    message: str | None
    priority: int
    round: int = Field(description="From 1; each retry by hand begins another.")
    spec: JobSpec | None = Field(description="Of a job without a pipeline.")
    run_id: str | None = Field(description="Dagster's run.")
    run_url: str | None = Field(None, description="Where Dagit shows it.")
    schedule_id: UUID | None
    scheduled_for: datetime | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class StatusView(View):
    id: UUID
    status: State


class ExecutionView(View):
    id: UUID
    job_id: UUID
    stage: str
    attempt: int
    round: int
    status: State
    reason: str | None
    message: str | None
    exit_code: int | None
    worker_id: UUID | None
    spec: JobSpec
    created_at: datetime
    released_at: datetime | None
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class LogLine(BaseModel):
    number: int
    timestamp: datetime
    level: str = Field(description="`INFO`, or `ERROR` for what the command wrote to stderr.")
    stream: str
    message: str

    @classmethod
    def of(cls, line: Mapping[Any, Any]) -> LogLine:
        return cls(
            number=line["number"],
            timestamp=line["at"],
            level="ERROR" if line["stream"] == "stderr" else "INFO",
            stream=line["stream"],
            message=line["text"],
        )


class LogView(BaseModel):
    execution_id: UUID
    logs: list[LogLine]


class ArtefactView(View):
    path: str
    bytes: int
    sha256: str


class WorkerRequest(Part):
    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "rust"}]})

    name: Name | None = None
    type: Name = "subprocess"
    capabilities: Capabilities = Field(default_factory=Capabilities)
    timeout_seconds: int = Field(30, ge=1, le=3600, description="Silent for so long, it is lost.")


class WorkerView(View):
    id: UUID
    name: str
    type: str
    status: WorkerState
    capabilities: Capabilities
    slots: int
    executions: int = Field(description="How many it has now.")
    listens: Annotated[bool, Field(description="Whether it is a process that takes work.")]
    timeout_seconds: int
    host: str
    version: str
    registered_at: datetime
    last_heartbeat: datetime
    stopped_at: datetime | None


class EventView(View):
    id: int = Field(description="In the order in which they were kept; `Last-Event-ID` of the stream.")
    event_id: UUID
    job_id: UUID | None
    sequence: int | None = Field(description="Dense for each job, from 1.")
    type: str
    data: dict[str, Any]
    at: datetime
