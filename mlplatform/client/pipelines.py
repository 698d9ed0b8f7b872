"""Pipelines and schedules, as a client has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from mlplatform.client.connection import Connection, new_key, segment
from mlplatform.client.models import Job, Pipeline, Schedule, Verdict
from mlplatform.domain.jobs.specs import JobSpec, PipelineSpec

PIPELINES, SCHEDULES = "/api/v1/pipelines", "/api/v1/schedules"

# What the API takes for one: of plain values it says itself what is wrong with them.
Declared = PipelineSpec | Mapping[str, Any]


class Pipelines:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, pipeline: Declared, *, key: str | None = None) -> Pipeline:
        """Keeps stages with dependencies, or in `yaml` a batch pipeline; Dagit shows it in a moment.

        Args:
            key: the same key again gets the first pipeline; None: each call makes another.
        """
        return self._connection.post(Pipeline, PIPELINES, _plain(pipeline), key=key or new_key())

    def validate(self, pipeline: Declared) -> Verdict:
        """All that is wrong with it; keeps nothing."""
        return self._connection.post(Verdict, f"{PIPELINES}/validate", _plain(pipeline))

    def list(self, *, page_size: int = 100) -> Iterator[Pipeline]:
        """The newest first."""
        return self._connection.pages(Pipeline, PIPELINES, limit=page_size)

    def get(self, pipeline_id: UUID) -> Pipeline:
        return self._connection.get(Pipeline, f"{PIPELINES}/{segment(pipeline_id)}")

    def replace(self, pipeline_id: UUID, pipeline: Declared) -> Pipeline:
        """Its next version; jobs that were made before go on with what they were made of."""
        answer = self._connection.ask("PUT", f"{PIPELINES}/{segment(pipeline_id)}", body=_plain(pipeline))
        return Pipeline.model_validate_json(answer.content)

    def delete(self, pipeline_id: UUID) -> None:
        """Takes it away with its schedules; the jobs that it had stay."""
        self._connection.ask("DELETE", f"{PIPELINES}/{segment(pipeline_id)}")

    def run(
        self,
        pipeline_id: UUID,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        priority: int = 0,
        key: str | None = None,
    ) -> Job:
        """Makes a job of it.

        Args:
            env: for all stages, over the variables of the pipeline.
            key: the same key again gets the first job; None: each call makes another.
        """
        body = {"name": name, "env": dict(env or {}), "priority": priority}
        return self._connection.post(
            Job, f"{PIPELINES}/{segment(pipeline_id)}/run", body, key=key or new_key()
        )


class Schedules:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        what: JobSpec | UUID,
        *,
        name: str | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        due_at: datetime | None = None,
        paused: bool = False,
        priority: int = 0,
        key: str | None = None,
    ) -> Schedule:
        """Runs a command, or the pipeline of this id, by itself.

        Args:
            cron: again and again, by the clocks of `timezone`.
            due_at: once, with its time zone; None without `cron`: as soon as possible.
            key: the same key again gets the first schedule; None: each call makes another.
        """
        timed = _timed(what, name, cron, timezone, due_at, paused, priority)
        return self._connection.post(Schedule, SCHEDULES, timed, key=key or new_key())

    def list(self, *, pipeline_id: UUID | None = None, page_size: int = 100) -> Iterator[Schedule]:
        """The newest first."""
        return self._connection.pages(Schedule, SCHEDULES, pipeline_id=pipeline_id, limit=page_size)

    def get(self, schedule_id: UUID) -> Schedule:
        return self._connection.get(Schedule, f"{SCHEDULES}/{segment(schedule_id)}")

    def replace(
        self,
        schedule_id: UUID,
        what: JobSpec | UUID,
        *,
        name: str | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        due_at: datetime | None = None,
        paused: bool = False,
        priority: int = 0,
    ) -> Schedule:
        """Another time, or another thing to run; one that was done comes again at another time."""
        timed = _timed(what, name, cron, timezone, due_at, paused, priority)
        answer = self._connection.ask("PUT", f"{SCHEDULES}/{segment(schedule_id)}", body=timed)
        return Schedule.model_validate_json(answer.content)

    def pause(self, schedule_id: UUID) -> Schedule:
        """It makes no jobs until it is resumed."""
        return self._connection.post(Schedule, f"{SCHEDULES}/{segment(schedule_id)}/pause")

    def resume(self, schedule_id: UUID) -> Schedule:
        """It makes jobs again; one whose only time has passed meanwhile makes its job now."""
        return self._connection.post(Schedule, f"{SCHEDULES}/{segment(schedule_id)}/resume")

    def delete(self, schedule_id: UUID) -> None:
        """The jobs that it made stay."""
        self._connection.ask("DELETE", f"{SCHEDULES}/{segment(schedule_id)}")


def _plain(pipeline: Declared) -> Mapping[str, Any]:
    # What was not said is not said: the API has its own defaults.
    if isinstance(pipeline, PipelineSpec):
        return pipeline.model_dump(mode="json", exclude_unset=True)
    return pipeline


def _timed(
    what: JobSpec | UUID,
    name: str | None,
    cron: str | None,
    timezone: str,
    due_at: datetime | None,
    paused: bool,
    priority: int,
) -> dict[str, Any]:
    ran = {"pipeline_id": str(what)} if isinstance(what, UUID) else what.model_dump(mode="json")
    timed = {
        "name": name,
        "cron": cron,
        "timezone": timezone,
        "due_at": due_at and due_at.isoformat(),
        "paused": paused,
        "priority": priority,
    }
    return {**ran, **{name: value for name, value in timed.items() if value is not None}}
