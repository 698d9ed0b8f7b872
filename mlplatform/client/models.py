"""What the control plane answers, as far as clients read it: what a newer API says besides is passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from mlplatform.domain.jobs.states import TERMINAL, State, WorkerState


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class Resources(Answer):
    """Thousandths of a core, mebibytes, and GPUs."""

    cpu_m: int = 0
    memory_mb: int = 0
    gpu: int = 0


class Capabilities(Resources):
    features: frozenset[str] = frozenset()


class Spec(Answer):
    """A command, and what it needs."""

    name: str
    image: str | None = None
    command: list[str]
    resources: Resources = Resources()
    features: frozenset[str] = frozenset()
    timeout_ms: int
    retries: int = 0
    env: dict[str, str] = {}
    secret_refs: list[str] = []


class Job(Answer):
    """
    Attributes:
        round: from 1; each retry by hand begins another.
        run_id: Dagster's run, which Dagit shows at `run_url`.
    """

    id: UUID
    name: str
    pipeline_id: UUID | None
    status: State
    reason: str | None
    message: str | None
    priority: int
    round: int
    spec: Spec | None
    run_id: str | None
    run_url: str | None = None
    schedule_id: UUID | None
    scheduled_for: datetime | None
    created_by: str
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL


class JobStatus(Answer):
    id: UUID
    status: State


class Execution(Answer):
    """One attempt to run one stage of a job."""

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
    spec: Spec
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class LogLine(Answer):
    """
    Attributes:
        number: from 0, in its execution.
        stream: stdout or stderr.
    """

    number: int
    timestamp: datetime
    level: str
    stream: str
    message: str


class Log(Answer):
    execution_id: UUID
    logs: list[LogLine]


class Artefact(Answer):
    """A file that a command left."""

    path: str
    bytes: int
    sha256: str


class Event(Answer):
    """
    Attributes:
        id: grows; what was kept earlier has a smaller one.
        sequence: from 1, dense for each job.
    """

    id: int
    event_id: UUID
    job_id: UUID | None
    sequence: int | None
    type: str
    data: dict[str, Any]
    at: datetime


class Worker(Answer):
    """
    Attributes:
        slots: how many commands it runs at once.
        executions: how many it has now.
        listens: whether it is a process that takes work.
    """

    id: UUID
    name: str
    type: str
    status: WorkerState
    capabilities: Capabilities
    slots: int
    executions: int
    listens: bool
    timeout_seconds: int
    host: str
    version: str
    registered_at: datetime
    last_heartbeat: datetime
    stopped_at: datetime | None


class StageResources(Answer):
    """Cores, mebibytes twice, and GPUs."""

    cpu: float = 0
    memory: float = 0
    disk: float = 0
    gpu: int = 0


class Stage(Answer):
    """Command lines of a pipeline, and what they need."""

    name: str
    image: str | None = None
    commands: list[str]
    dependencies: list[str] = []
    environment: dict[str, str] = {}
    resources: StageResources = StageResources()
    features: frozenset[str] = frozenset()
    timeout_ms: int
    retries: int = 0
    secret_refs: list[str] = []


class Pipeline(Answer):
    """
    Attributes:
        slug: the name of its job in Dagster.
        version: from 1; each change makes another.
    """

    id: UUID
    name: str
    description: str
    stages: list[Stage]
    environment: dict[str, str]
    yaml: str | None
    slug: str
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime


class Problem(Answer):
    """What is wrong with a pipeline, and where; line and column count from 1, 0: of the whole."""

    path: str
    line: int
    column: int
    message: str
    suggestion: str


class Verdict(Answer):
    valid: bool
    problems: list[Problem]


class Schedule(Answer):
    """
    Attributes:
        status: scheduled, paused or done.
        next_times: when it makes its next jobs.
        declared: a trigger of its pipeline, which comes and goes with it.
        slug: its name in Dagster.
        scheduled_at: when it was made.
    """

    id: UUID
    name: str
    status: Literal["scheduled", "paused", "done"]
    pipeline_id: UUID | None
    spec: Spec | None
    priority: int
    cron: str | None
    timezone: str
    due_at: datetime | None
    next_times: list[datetime]
    declared: bool
    slug: str
    created_by: str
    scheduled_at: datetime


class Webhook(Answer):
    """
    Attributes:
        position: id of the newest event that was delivered, or not wanted.
        failures: attempts since the last success.
        both_secrets_until: until then, the secret before signs too.
    """

    id: UUID
    url: str
    types: list[str]
    paused: bool
    position: int
    failures: int
    failing_since: datetime | None
    trouble: str | None
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    both_secrets_until: datetime | None
    created_by: str
    created_at: datetime


class SecretWebhook(Webhook):
    """A webhook with the secret that verifies what it posts."""

    secret: str = Field(repr=False)


class Tried(Answer):
    """
    Attributes:
        trouble: why it was not delivered.
    """

    delivered: bool
    trouble: str | None
    milliseconds: float


class Me(Answer):
    """Who asks."""

    id: str
    name: str
    type: str
    scopes: list[str]
