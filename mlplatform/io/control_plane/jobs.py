"""Jobs: made, cancelled, tried again, and told how Dagster's run of them stands."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, text, update

from mlplatform.domain.jobs.specs import JobSpec, PipelineSpec, in_order
from mlplatform.domain.jobs.states import JOB_AFTER, TERMINAL, Reason, State
from mlplatform.io.control_plane import executions, tables
from mlplatform.io.control_plane.database import notify
from mlplatform.io.control_plane.job_rows import LAUNCHING, Conflict, NotFound, locked, move, tell

# A job without a pipeline has one stage, of this name.
COMMAND = "command"
_jobs, _pipelines = tables.jobs, tables.pipelines


@dataclass(frozen=True)
class NewJob:
    """A pipeline to run, or a command."""

    spec: JobSpec | None = None
    pipeline_id: uuid.UUID | None = None
    name: str = ""
    priority: int = 0
    # Of the pipeline, those that are run; None: all of them.
    stages: Collection[str] | None = None
    # For all stages, over those of the pipeline.
    environment: Mapping[str, str] = field(default_factory=dict)
    schedule_id: uuid.UUID | None = None
    scheduled_for: datetime | None = None
    # The run that has it already: one that was started from Dagit.
    run_id: str | None = None
    traceparent: str | None = None
    created_by: str = ""


def create(connection: Connection, new: NewJob) -> RowMapping:
    """A job with the first attempt of each of its stages; one without any has succeeded at once.

    Raises:
        NotFound: there is no such pipeline.
    """
    stages: list[JobSpec] = [] if new.spec is None else [new.spec.model_copy(update={"name": COMMAND})]
    by_dagster = False
    name = new.name or (new.spec.name if new.spec else "")
    if new.pipeline_id is not None:
        pipeline = connection.execute(
            select(_pipelines)
            .where(_pipelines.c.id == new.pipeline_id, _pipelines.c.deleted_at.is_(None))
            # It stays until the job is there.
            .with_for_update(read=True)
        ).one_or_none()
        if pipeline is None:
            raise NotFound(f"there is no pipeline {new.pipeline_id}")
        declared = PipelineSpec.model_validate(pipeline.spec)
        by_dagster = declared.yaml is not None
        name = name or pipeline.name
        environment = {**declared.environment, **new.environment}
        stages = [
            stage.spec(environment)
            for stage in in_order(declared.stages)
            if new.stages is None or stage.name in new.stages
        ]
    made = connection.execute(
        insert(_jobs)
        .values(
            id=uuid.uuid4(),
            name=name,
            pipeline_id=new.pipeline_id,
            spec=new.spec and new.spec.model_dump(mode="json"),
            by_dagster=by_dagster,
            status=State.PENDING,
            priority=new.priority,
            run_id=new.run_id,
            schedule_id=new.schedule_id,
            scheduled_for=new.scheduled_for,
            traceparent=new.traceparent,
            created_by=new.created_by,
        )
        .returning(_jobs)
    ).one()
    for position, spec in enumerate(stages):
        executions.add(connection, made.id, spec.name, position, 1, 1, spec.model_dump(mode="json"))
    tell(connection, made)
    if stages or by_dagster:
        notify(connection, LAUNCHING, str(made.id))
    else:
        move(connection, made, State.SUCCESS)
    return get(connection, made.id)


def get(connection: Connection, job_id: uuid.UUID) -> RowMapping:
    """
    Raises:
        NotFound: there is no such job.
    """
    found = connection.execute(select(_jobs).where(_jobs.c.id == job_id)).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    return found


def cancel(connection: Connection, job_id: uuid.UUID) -> RowMapping:
    """Ends the job and whatever runs of it. One that is cancelled already stays so.

    Raises:
        NotFound: there is no such job.
        Conflict: it has succeeded.
    """
    job = locked(connection, job_id)
    if job.status != State.CANCELLED:
        executions.end_all(connection, job, State.CANCELLED, None)
        move(connection, job, State.CANCELLED)
        # For whoever launches: there may be a run to terminate.
        notify(connection, LAUNCHING, str(job_id))
    return get(connection, job_id)


def retry(connection: Connection, job_id: uuid.UUID) -> RowMapping:
    """Another round of a job that failed: stages that have succeeded are not run again.

    Raises:
        NotFound: there is no such job.
        Conflict: it has not failed.
    """
    job = locked(connection, job_id)
    if job.status != State.FAILED:
        raise Conflict(f"job {job_id} is {job.status}: only one that has failed can be tried again")
    round_ = job.round + 1
    connection.execute(update(_jobs).where(_jobs.c.id == job_id).values(round=round_))
    for last in executions.newest_attempts(connection, job_id):
        if last.status != State.SUCCESS:
            executions.add(connection, job_id, last.stage, last.position, last.attempt + 1, round_, last.spec)
    move(connection, locked(connection, job_id), State.PENDING)
    notify(connection, LAUNCHING, str(job_id))
    return get(connection, job_id)


def fail(connection: Connection, job_id: uuid.UUID, round_: int, reason: str, message: str) -> bool:
    """What Dagster alone can tell: the run of this round ended, and nobody will run what is left of it.

    Returns:
        False if the job has ended already, or is in a later round.
    """
    job = locked(connection, job_id)
    if job.round != round_ or State(job.status) in TERMINAL:
        return False
    executions.end_all(connection, job, State.FAILED, reason)
    move(connection, job, State.FAILED, reason, message)
    return True


def interrupt(connection: Connection, job_id: uuid.UUID, round_: int) -> bool:
    """Somebody terminated the run of this round in Dagster: the job is cancelled with it.

    Returns:
        False if the job has ended already, which may be why its run was terminated, or is in a later round.
    """
    job = locked(connection, job_id)
    if job.round != round_ or State(job.status) in TERMINAL:
        return False
    cancel(connection, job_id)
    return True


def adopt(
    connection: Connection, run_id: str, pipeline_id: uuid.UUID, stages: Collection[str] | None = None
) -> RowMapping:
    """The job of a run that was started from Dagit; it is made by whichever step asks first.

    Args:
        stages: those that the run materializes; None: all of them.

    Raises:
        NotFound: there is no such pipeline.
        Conflict: the run has stages of another pipeline too.
    """
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || :run, 2))"), {"run": run_id}
    )
    found = connection.execute(select(_jobs).where(_jobs.c.run_id == run_id)).mappings().one_or_none()
    if found is None:
        job = create(
            connection, NewJob(pipeline_id=pipeline_id, stages=stages, run_id=run_id, created_by="dagit")
        )
        move(connection, locked(connection, job["id"]), State.SCHEDULED)
        found = get(connection, job["id"])
    elif found["pipeline_id"] != pipeline_id:
        raise Conflict(f"run {run_id} has stages of several pipelines: start one run for each of them")
    return found


def launched(connection: Connection, job_id: uuid.UUID, round_: int, run_id: str) -> None:
    """Dagster has a run for this round of the job."""
    job = locked(connection, job_id)
    if job.round != round_:
        return
    connection.execute(update(_jobs).where(_jobs.c.id == job_id).values(run_id=run_id, run_ended_at=None))
    if job.status == State.PENDING:
        move(connection, locked(connection, job_id), State.SCHEDULED)


def by_dagster(connection: Connection, job_id: uuid.UUID, round_: int, status: State, message: str) -> bool:
    """How a job stands whose steps Dagster runs itself. States that it went through meanwhile are told too.

    Returns:
        Whether anything changed.
    """
    job = locked(connection, job_id)
    if not job.by_dagster or job.round != round_ or job.status == status or State(job.status) in TERMINAL:
        return False
    way = [State.SCHEDULED, State.RUNNING]
    for state in way[: way.index(status) if status in way else len(way)]:
        if status is not State.CANCELLED and state in JOB_AFTER[State(job.status)]:
            move(connection, job, state)
            job = locked(connection, job_id)
    if status not in JOB_AFTER[State(job.status)]:
        return False
    failed = status is State.FAILED
    move(connection, job, status, Reason.RUN_FAILED if failed else None, message if failed else None)
    return True
