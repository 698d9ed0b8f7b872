"""Workers: known by their heartbeat; one that is silent loses what it has."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from mlplatform.domain.jobs.placement import Free, Waiting, place
from mlplatform.domain.jobs.specs import Capabilities, Resources
from mlplatform.domain.jobs.states import ENDED, State, WorkerState
from mlplatform.io.control_plane import events, executions, queue, tables
from mlplatform.io.control_plane.database import Database, notify
from mlplatform.io.control_plane.job_rows import PLACING, Conflict, NotFound

log = logging.getLogger(__name__)

# A worker that was given something and is alive begins with it at once.
SECONDS_TO_START = 30
# Nobody waits longer for one that is silent.
SECONDS_TO_RETURN = 24 * 3600
READ_AT_ONCE = 500

_workers, _executions, _jobs = tables.workers, tables.executions, tables.jobs
_HAS = _executions.c.status.in_((State.SCHEDULED, State.RUNNING))


def _active() -> ColumnElement[int]:
    return (
        select(func.count())
        .where(_executions.c.worker_id == _workers.c.id, _HAS)
        .correlate(_workers)
        .scalar_subquery()
    )


def view() -> Select[Any]:
    """Workers with `executions`, the number they have; Available is Running where it is not 0."""
    active = _active()
    running = and_(_workers.c.status == WorkerState.AVAILABLE, active > 0)
    columns = [column for column in _workers.c if column.name != "status"]
    status = case((running, WorkerState.RUNNING.value), else_=_workers.c.status).label("status")
    return select(*columns, status, active.label("executions"))


def register(
    connection: Connection,
    name: str,
    capabilities: Capabilities,
    *,
    kind: str = "subprocess",
    slots: int = 1,
    listens: bool = False,
    timeout_seconds: int = 30,
    host: str = "",
    version: str = "",
    created_by: str = "",
) -> RowMapping:
    """A worker that is there from now on, until it is silent for its time-out.

    Args:
        listens: it takes work from its queue; nothing is given to others.
    """
    id_ = uuid.uuid4()
    connection.execute(
        insert(_workers).values(
            id=id_,
            name=name,
            type=kind,
            status=WorkerState.AVAILABLE,
            capabilities=capabilities.model_dump(mode="json"),
            slots=slots,
            listens=listens,
            timeout_seconds=timeout_seconds,
            host=host,
            version=version,
            created_by=created_by,
        )
    )
    _tell(connection, id_, WorkerState.AVAILABLE)
    notify(connection, PLACING)
    return get(connection, id_)


def get(connection: Connection, worker_id: uuid.UUID) -> RowMapping:
    """
    Raises:
        NotFound: there is no such worker.
    """
    found = connection.execute(view().where(_workers.c.id == worker_id)).mappings().one_or_none()
    if found is None:
        raise NotFound(f"there is no worker {worker_id}")
    return found


def named(connection: Connection, name: str) -> RowMapping | None:
    """The newest of that name."""
    query = view().where(_workers.c.name == name).order_by(_workers.c.registered_at.desc()).limit(1)
    return connection.execute(query).mappings().one_or_none()


def be_of_kind(connection: Connection, worker_id: uuid.UUID, kind: str) -> RowMapping:
    """What whoever started it calls it.

    Raises:
        NotFound: there is no such worker.
    """
    connection.execute(update(_workers).where(_workers.c.id == worker_id).values(type=kind))
    return get(connection, worker_id)


def heartbeat(connection: Connection, worker_id: uuid.UUID) -> RowMapping:
    """It is alive. One that was thought lost is Available again, without what it had.

    Raises:
        NotFound: there is no such worker.
        Conflict: it has ended: it has to register again.
    """
    worker = _locked(connection, worker_id)
    if WorkerState(worker["status"]) in ENDED:
        raise Conflict(f"worker {worker_id} is {worker['status']}: register again")
    connection.execute(
        update(_workers).where(_workers.c.id == worker_id).values(last_heartbeat=func.clock_timestamp())
    )
    if worker["status"] == WorkerState.UNHEALTHY:
        _move(connection, worker_id, WorkerState.AVAILABLE)
        notify(connection, PLACING)
    return get(connection, worker_id)


def drain(connection: Connection, worker_id: uuid.UUID) -> RowMapping:
    """It ends what it has, and is given nothing more.

    Raises:
        NotFound: there is no such worker.
        Conflict: it has ended.
    """
    worker = _locked(connection, worker_id)
    if WorkerState(worker["status"]) in ENDED:
        raise Conflict(f"worker {worker_id} is {worker['status']}")
    if worker["status"] != WorkerState.DRAINING:
        _move(connection, worker_id, WorkerState.DRAINING)
    return get(connection, worker_id)


def stop(database: Database, worker_id: uuid.UUID) -> None:
    """It has ended, or shall end: what it has is given to others. One that has ended stays so.

    Raises:
        NotFound: there is no such worker.
    """
    with database.transaction() as connection:
        worker = _locked(connection, worker_id)
        if WorkerState(worker["status"]) not in ENDED:
            _move(connection, worker_id, WorkerState.TERMINATED, stopped_at=func.clock_timestamp())
    take_all(database, worker_id, "its worker was stopped")
    with database.transaction() as connection:
        queue.forget(connection, worker_id)


def take_all(database: Database, worker_id: uuid.UUID, message: str) -> None:
    """Takes from a worker what it has, for others."""
    with database.transaction() as connection:
        held = executions.leases_of(connection, worker_id)
    for execution_id in held:
        with database.transaction() as connection:
            executions.lose(connection, execution_id, worker_id, message)


def expire(database: Database) -> int:
    """Finds workers that are silent, and executions that their worker does not begin; returns how many."""
    silent = _workers.c.last_heartbeat < func.clock_timestamp() - func.make_interval(
        0, 0, 0, 0, 0, 0, _workers.c.timeout_seconds
    )
    gone = _workers.c.last_heartbeat < func.clock_timestamp() - func.make_interval(
        0, 0, 0, 0, 0, 0, SECONDS_TO_RETURN
    )
    alive = _workers.c.status.not_in(ENDED)
    # One that was to end anyway is not waited for: it would come back as if nobody had said so.
    draining = _workers.c.status == WorkerState.DRAINING
    with database.transaction() as connection:
        # All locks before the first event; one that beats right now is not silent.
        rows = connection.execute(
            select(_workers.c.id, or_(draining, gone).label("over"))
            .where(alive, silent, or_(_workers.c.status != WorkerState.UNHEALTHY, gone))
            .order_by(_workers.c.id)
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            if row.over:
                queue.forget(connection, row.id)
        for row in rows:
            if row.over:
                _move(connection, row.id, WorkerState.FAILED, stopped_at=func.clock_timestamp())
            else:
                _move(connection, row.id, WorkerState.UNHEALTHY)
        # Also those of a process that died here after the first lines, and before the last.
        held = connection.execute(
            select(_executions.c.id, _executions.c.worker_id)
            .join(_workers, _workers.c.id == _executions.c.worker_id)
            .where(_HAS, _workers.c.status.in_((WorkerState.UNHEALTHY, *ENDED)))
        ).all()
        idle = connection.execute(
            select(_executions.c.id, _executions.c.worker_id).where(
                _executions.c.status == State.SCHEDULED,
                _executions.c.worker_id.is_not(None),
                _executions.c.scheduled_at
                < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, SECONDS_TO_START),
            )
        ).all()
    for row in held:
        with database.transaction() as connection:
            executions.lose(connection, row.id, row.worker_id, "its worker is heard no more")
    for row in idle:
        with database.transaction() as connection:
            executions.take_back(connection, row.id, row.worker_id, "its worker did not begin with it")
    return len(held) + len(idle)


def place_waiting(database: Database) -> int:
    """Gives what waits to workers that fit, most urgent first; for one process at a time.

    Returns:
        How many executions were given.
    """
    placed: dict[str, str] = {}
    with database.transaction() as connection:
        free = _free(connection)
        waiting = (
            select(
                _executions.c.id,
                _executions.c.spec["resources"].label("resources"),
                _executions.c.spec["features"].label("features"),
                _executions.c.lost_by,
            )
            .join(_jobs, _jobs.c.id == _executions.c.job_id)
            .where(_executions.c.status == State.PENDING, _executions.c.released_at.is_not(None))
            .order_by(_jobs.c.priority.desc(), _executions.c.released_at, _executions.c.id)
        )
        with connection.execute(waiting, execution_options={"yield_per": READ_AT_ONCE}) as found:
            # However many fit nowhere, one behind them may.
            for rows in found.partitions():
                if not any(worker.slots > 0 for worker in free.values()):
                    break
                wanted = {
                    str(row.id): Waiting(
                        str(row.id),
                        Resources(**row.resources),
                        frozenset(row.features),
                        str(row.lost_by) if row.lost_by else None,
                    )
                    for row in rows
                }
                for execution_id, worker_id in place(list(wanted.values()), list(free.values())).items():
                    free[worker_id] = free[worker_id].without(wanted[execution_id].resources)
                    placed[execution_id] = worker_id
    given = 0
    for execution_id, worker_id in placed.items():
        with database.transaction() as connection:
            given += (
                executions.schedule(connection, uuid.UUID(execution_id), uuid.UUID(worker_id)) is not None
            )
    return given


def _free(connection: Connection) -> dict[str, Free]:
    """What each worker that takes work has left."""
    rows = connection.execute(
        select(_workers).where(_workers.c.listens, _workers.c.status == WorkerState.AVAILABLE)
    ).all()
    free = {str(row.id): Free(str(row.id), Capabilities(**row.capabilities), row.slots) for row in rows}
    for held in connection.execute(
        select(_executions.c.worker_id, _executions.c.spec).where(_HAS, _executions.c.worker_id.is_not(None))
    ):
        if worker := free.get(str(held.worker_id)):
            free[worker.id] = worker.without(Resources(**held.spec["resources"]))
    return free


def _locked(connection: Connection, worker_id: uuid.UUID) -> RowMapping:
    found = (
        connection.execute(select(_workers).where(_workers.c.id == worker_id).with_for_update())
        .mappings()
        .one_or_none()
    )
    if found is None:
        raise NotFound(f"there is no worker {worker_id}")
    return found


def _move(connection: Connection, worker_id: uuid.UUID, to: WorkerState, **values: Any) -> None:
    connection.execute(update(_workers).where(_workers.c.id == worker_id).values(status=to, **values))
    _tell(connection, worker_id, to)


def _tell(connection: Connection, worker_id: uuid.UUID, status: WorkerState) -> None:
    events.write(
        connection, f"worker.{status.lower()}", {"worker_id": str(worker_id), "status": status.value}
    )
