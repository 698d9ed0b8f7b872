"""Executions: the attempts to run a stage of a job, each with a lease of whoever runs it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, and_, func, insert, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from mlplatform.domain.jobs.states import AFTER, JOB_AFTER, TERMINAL, Reason, State
from mlplatform.errors import PlatformError
from mlplatform.io.control_plane import events, queue, tables
from mlplatform.io.control_plane.database import notify
from mlplatform.io.control_plane.job_rows import ENDED, LOGS, PLACING, Conflict, NotFound, locked, move

# How often a stage is begun again for a worker that was lost with it.
REPLACEMENTS = 1

# The rest is not the fault of the command, and does not count as one of its attempts.
OF_THE_COMMAND = (Reason.EXIT_CODE, Reason.TIMED_OUT)

_executions = tables.executions


class LeaseLost(PlatformError):
    """Another has the execution now, or it has ended: what was to be written changes nothing."""


def get(connection: Connection, execution_id: uuid.UUID) -> RowMapping:
    """
    Raises:
        NotFound: there is no such execution.
    """
    query = select(_executions).where(_executions.c.id == execution_id)
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no execution {execution_id}")
    return found


def executions_of(connection: Connection, job_id: uuid.UUID) -> Sequence[RowMapping]:
    """All attempts, in the order of the stages."""
    query = select(_executions).where(_executions.c.job_id == job_id)
    return connection.execute(query.order_by(_executions.c.position, _executions.c.attempt)).mappings().all()


def newest_attempts(connection: Connection, job_id: uuid.UUID) -> Sequence[Row[Any]]:
    """One for each stage."""
    return connection.execute(
        select(_executions)
        .ext(distinct_on(_executions.c.stage))
        .where(_executions.c.job_id == job_id)
        .order_by(_executions.c.stage, _executions.c.attempt.desc())
    ).all()


def newest_attempt(connection: Connection, job_id: uuid.UUID, stage: str) -> Row[Any]:
    """
    Raises:
        NotFound: the job has no such stage.
    """
    found = connection.execute(
        select(_executions)
        .where(_executions.c.job_id == job_id, _executions.c.stage == stage)
        .order_by(_executions.c.attempt.desc())
        .limit(1)
    ).one_or_none()
    if found is None:
        raise NotFound(f"job {job_id} has no stage {stage!r}")
    return found


def release(
    connection: Connection, job_id: uuid.UUID, stage: str, bootstrap: Mapping[str, str] | None = None
) -> Row[Any]:
    """It is the stage's turn: its newest attempt may be given to a worker, or a further one if it failed.

    May be called again, by a step that was begun again: an attempt that runs or has succeeded stays.

    Args:
        bootstrap: variables for the command, by which it can report to Dagster.

    Returns:
        The newest attempt. One that has failed: there is no other left.

    Raises:
        NotFound: there is no such job, or no such stage of it.
        Conflict: the job has ended.
    """
    job = locked(connection, job_id)
    last = newest_attempt(connection, job_id, stage)
    if last.status == State.SUCCESS:
        return last
    if State(job.status) in TERMINAL:
        raise Conflict(f"job {job_id} is {job.status}")
    if last.status == State.FAILED:
        # The job would have failed with it, were there none left.
        add(connection, job_id, stage, last.position, last.attempt + 1, job.round, last.spec)
        last = newest_attempt(connection, job_id, stage)
    if last.status == State.PENDING and last.released_at is None:
        connection.execute(
            update(_executions)
            .where(_executions.c.id == last.id)
            .values(released_at=func.clock_timestamp(), bootstrap=dict(bootstrap or {}))
        )
        notify(connection, PLACING)
    return newest_attempt(connection, job_id, stage)


def schedule(connection: Connection, execution_id: uuid.UUID, worker_id: uuid.UUID | None) -> Row[Any] | None:
    """Gives a released execution to a worker (None: to a pod), with a new lease.

    Returns:
        The execution; None if it waits no more.
    """
    job, execution = _locked_execution(connection, execution_id)
    if execution.status != State.PENDING or execution.released_at is None or State(job.status) in TERMINAL:
        return None
    lease = uuid.uuid4()
    entry = queue.give(connection, worker_id, execution_id, lease, job.priority) if worker_id else None
    _move_execution(
        connection, execution, State.SCHEDULED, worker_id=worker_id, lease=lease, queue_entry=entry
    )
    return _locked_execution(connection, execution_id)[1]


def start(connection: Connection, execution_id: uuid.UUID, lease: uuid.UUID, again: bool = False) -> Row[Any]:
    """Whoever was given the execution begins with it.

    Args:
        again: it could not be told whether it had begun.

    Raises:
        LeaseLost: it was given to another, has ended, or has begun already.
    """
    job, execution = _leased(connection, execution_id, lease)
    if again and execution.status == State.RUNNING:
        return execution
    if execution.status != State.SCHEDULED:
        raise LeaseLost(f"execution {execution_id} is {execution.status}")
    _move_execution(connection, execution, State.RUNNING)
    for state in (State.SCHEDULED, State.RUNNING):
        # The run began before we were told of it.
        if state in JOB_AFTER[State(job.status)]:
            move(connection, job, state)
            job = locked(connection, job.id)
    return _locked_execution(connection, execution_id)[1]


def finish(
    connection: Connection,
    execution_id: uuid.UUID,
    lease: uuid.UUID,
    status: State,
    exit_code: int | None = None,
    reason: Reason | None = None,
    message: str | None = None,
) -> None:
    """How it ended: Success or Failed. The job ends with it, if nothing of it is left, or no attempt.

    Raises:
        LeaseLost: it was given to another, or has ended.
    """
    job, execution = _leased(connection, execution_id, lease)
    _end(connection, job, execution, status, exit_code, reason, message)


def lose(connection: Connection, execution_id: uuid.UUID, worker_id: uuid.UUID | None, message: str) -> bool:
    """Its worker is heard no more: the lease is void, and once another worker is to run it again.

    Returns:
        False if the worker (None: a pod) does not have it any more.
    """
    job, execution = _locked_execution(connection, execution_id)
    if execution.worker_id != worker_id or State(execution.status) in TERMINAL:
        return False
    if execution.status == State.SCHEDULED:
        # Nothing of it has run.
        _replace(connection, job, execution, worker_id, Reason.NOT_STARTED, message)
    else:
        _replace(connection, job, execution, worker_id, Reason.WORKER_LOST, message)
    return True


def take_back(connection: Connection, execution_id: uuid.UUID, worker_id: uuid.UUID, message: str) -> bool:
    """For another worker, if its worker has not begun with it.

    Returns:
        False if it has, or does not have it any more.
    """
    execution = _locked_execution(connection, execution_id)[1]
    return execution.status == State.SCHEDULED and lose(connection, execution_id, worker_id, message)


def _replace(
    connection: Connection,
    job: Row[Any],
    execution: Row[Any],
    worker_id: uuid.UUID | None,
    reason: Reason,
    message: str,
) -> None:
    lost = connection.scalar(
        select(func.count()).where(
            _executions.c.job_id == job.id,
            _executions.c.stage == execution.stage,
            _executions.c.round == job.round,
            _executions.c.reason == Reason.WORKER_LOST,
        )
    )
    again = reason is Reason.NOT_STARTED or (lost or 0) < REPLACEMENTS
    if not again:
        _end(connection, job, execution, State.FAILED, None, reason, message)
        return
    _move_execution(connection, execution, State.FAILED, reason=reason, message=message)
    add(
        connection,
        job.id,
        execution.stage,
        execution.position,
        execution.attempt + 1,
        job.round,
        execution.spec,
        released_at=datetime.now(UTC),
        bootstrap=execution.bootstrap,
        lost_by=worker_id,
    )
    notify(connection, PLACING)


def _end(
    connection: Connection,
    job: Row[Any],
    execution: Row[Any],
    status: State,
    exit_code: int | None,
    reason: Reason | None,
    message: str | None,
) -> None:
    _move_execution(connection, execution, status, exit_code=exit_code, reason=reason, message=message)
    job = locked(connection, job.id)
    if status is State.SUCCESS:
        if all(last.status == State.SUCCESS for last in newest_attempts(connection, job.id)):
            move(connection, job, State.SUCCESS)
    elif (
        reason not in OF_THE_COMMAND
        or _failures(connection, job, execution.stage) > execution.spec["retries"]
    ):
        end_all(connection, job, State.CANCELLED, None)
        move(connection, locked(connection, job.id), State.FAILED, reason, f"{execution.stage}: {message}")


def _failures(connection: Connection, job: Row[Any], stage: str) -> int:
    return (
        connection.scalar(
            select(func.count()).where(
                _executions.c.job_id == job.id,
                _executions.c.stage == stage,
                _executions.c.round == job.round,
                _executions.c.reason.in_(OF_THE_COMMAND),
            )
        )
        or 0
    )


def end_all(connection: Connection, job: Row[Any], status: State, reason: str | None) -> None:
    """Ends what has not ended of a locked job."""
    for execution in connection.execute(
        select(_executions)
        .where(_executions.c.job_id == job.id, _executions.c.status.not_in(TERMINAL))
        .order_by(_executions.c.position)
    ).all():
        _move_execution(connection, execution, status, reason=reason)


def add(
    connection: Connection,
    job_id: uuid.UUID,
    stage: str,
    position: int,
    attempt: int,
    round_: int,
    spec: Mapping[str, Any],
    **more: Any,
) -> None:
    """An attempt that waits for its turn."""
    connection.execute(
        insert(_executions).values(
            id=uuid.uuid4(),
            job_id=job_id,
            stage=stage,
            position=position,
            attempt=attempt,
            round=round_,
            spec=dict(spec),
            status=State.PENDING,
            **more,
        )
    )


def _move_execution(connection: Connection, execution: Row[Any], to: State, **values: Any) -> None:
    if to not in AFTER[State(execution.status)]:
        raise Conflict(f"execution {execution.id} is {execution.status}: it cannot become {to}")
    now = datetime.now(UTC)
    moment = {State.SCHEDULED: "scheduled_at", State.RUNNING: "started_at"}.get(to, "finished_at")
    if to in TERMINAL:
        # Whoever had it has it no more.
        values["lease"] = None
        ended_by_its_worker = to is State.SUCCESS or values.get("reason") in OF_THE_COMMAND
        if execution.queue_entry is not None and not ended_by_its_worker:
            queue.withdraw(connection, execution.queue_entry)
    row = connection.execute(
        update(_executions)
        .where(_executions.c.id == execution.id)
        .values(status=to, **{moment: now}, **values)
        .returning(_executions)
    ).one()
    data = {
        "job_id": str(row.job_id),
        "execution_id": str(row.id),
        "stage": row.stage,
        "attempt": row.attempt,
        "status": to,
    }
    for name in ("worker_id", "exit_code", "reason"):
        if (value := getattr(row, name)) is not None:
            data[name] = value if isinstance(value, int) else str(value)
    events.write(connection, f"execution.{to.lower()}", data, row.job_id)
    if to in TERMINAL:
        notify(connection, ENDED, str(row.id))
        # There is no more of it.
        notify(connection, LOGS, str(row.id))


def _locked_execution(connection: Connection, execution_id: uuid.UUID) -> tuple[Row[Any], Row[Any]]:
    job_id = connection.scalar(select(_executions.c.job_id).where(_executions.c.id == execution_id))
    if job_id is None:
        raise NotFound(f"there is no execution {execution_id}")
    job = locked(connection, job_id)
    return job, connection.execute(select(_executions).where(_executions.c.id == execution_id)).one()


def _leased(connection: Connection, execution_id: uuid.UUID, lease: uuid.UUID) -> tuple[Row[Any], Row[Any]]:
    job, execution = _locked_execution(connection, execution_id)
    if execution.lease != lease:
        raise LeaseLost(f"execution {execution_id} is {execution.status}, and no longer with this worker")
    return job, execution


def hold(connection: Connection, execution_id: uuid.UUID, lease: uuid.UUID) -> None:
    """Keeps the lease as it is until the transaction ends, for what is written besides the state.

    Raises:
        LeaseLost: another has the execution now, or it has ended.
    """
    held = select(_executions.c.id).where(_executions.c.id == execution_id, _executions.c.lease == lease)
    if connection.execute(held.with_for_update(read=True)).one_or_none() is None:
        raise LeaseLost(f"execution {execution_id} is no longer with this worker")


def leases_of(connection: Connection, worker_id: uuid.UUID) -> Mapping[uuid.UUID, uuid.UUID]:
    """The lease of each execution that the worker has now."""
    return {
        row.id: row.lease
        for row in connection.execute(
            select(_executions.c.id, _executions.c.lease).where(
                and_(
                    _executions.c.worker_id == worker_id,
                    _executions.c.status.in_((State.SCHEDULED, State.RUNNING)),
                )
            )
        )
    }
