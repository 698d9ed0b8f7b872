from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from mlplatform.domain.jobs.specs import Capabilities, JobSpec
from mlplatform.domain.jobs.states import Reason, State, WorkerState
from mlplatform.io.control_plane import events, executions, jobs, tables, workers
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.job_rows import Conflict, NotFound
from mlplatform_tests.io.control_plane.histories import check


def worker(database: Database, slots: int = 1, **has: Any) -> uuid.UUID:
    with database.transaction() as connection:
        able = Capabilities.model_validate(has)
        return workers.register(connection, "w", able, slots=slots, listens=True)["id"]


def waiting(database: Database, priority: int = 0, **wants: Any) -> uuid.UUID:
    """A job whose command waits for a worker."""
    spec = JobSpec.model_validate({"name": "a", "command": ["true"], **wants})
    with database.transaction() as connection:
        job_id = jobs.create(connection, jobs.NewJob(spec=spec, priority=priority))["id"]
        executions.release(connection, job_id, jobs.COMMAND)
    return job_id


def attempt(database: Database, job_id: uuid.UUID) -> Any:
    with database.transaction() as connection:
        return executions.newest_attempt(connection, job_id, jobs.COMMAND)


def begin(database: Database, job_id: uuid.UUID) -> Any:
    given = attempt(database, job_id)
    with database.transaction() as connection:
        return executions.start(connection, given.id, given.lease)


def status(database: Database, worker_id: uuid.UUID) -> str:
    with database.transaction() as connection:
        return workers.get(connection, worker_id)["status"]


def ago(database: Database, worker_id: uuid.UUID, seconds: float) -> None:
    """Nothing has been heard of the worker for so long."""
    with database.transaction() as connection:
        then = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        one = tables.workers.c.id == worker_id
        connection.execute(update(tables.workers).where(one).values(last_heartbeat=then))


def test_the_most_urgent_that_fit_are_given_to_workers_and_brought_to_their_queues(
    database: Database,
) -> None:
    only = worker(database, slots=2, cpu_m=1000, features=["ssd"])
    late, urgent, big = (
        waiting(database, resources={"cpu_m": 500}),
        waiting(database, priority=5, features=["ssd"]),
        waiting(database, priority=9, resources={"cpu_m": 2000}),
    )
    third = waiting(database, priority=-1)
    assert workers.place_waiting(database) == 2
    assert [attempt(database, job).worker_id for job in (urgent, late, big, third)] == [
        only,
        only,
        None,
        None,
    ]
    assert status(database, only) == WorkerState.RUNNING
    with database.transaction() as connection:
        query = "SELECT queue_name, args FROM procrastinate_jobs WHERE status = 'todo' ORDER BY id"
        brought = connection.execute(text(query)).all()
    given = [attempt(database, job) for job in (urgent, late)]
    assert [(row.queue_name, row.args) for row in brought] == [
        (only.hex, {"execution_id": str(one.id), "lease": str(one.lease)}) for one in given
    ]
    assert workers.place_waiting(database) == 0
    begin(database, urgent)
    with database.transaction() as connection:
        executions.finish(connection, given[0].id, given[0].lease, State.SUCCESS, 0)
    assert workers.place_waiting(database) == 1
    assert attempt(database, third).worker_id == only


def test_nothing_is_given_to_workers_that_do_not_take_it(database: Database) -> None:
    with database.transaction() as connection:
        told_of = workers.register(connection, "told of", Capabilities())["id"]
    draining, silent = worker(database), worker(database)
    with database.transaction() as connection:
        workers.drain(connection, draining)
    ago(database, silent, 31)
    workers.expire(database)
    waiting(database)
    assert workers.place_waiting(database) == 0
    assert [status(database, one) for one in (told_of, draining, silent)] == [
        WorkerState.AVAILABLE,
        WorkerState.DRAINING,
        WorkerState.UNHEALTHY,
    ]
    with database.transaction() as connection:
        workers.heartbeat(connection, silent)
    assert workers.place_waiting(database) == 1


def test_hundreds_that_fit_nowhere_do_not_keep_others_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "READ_AT_ONCE", 3)
    worker(database)
    for _ in range(7):
        waiting(database, priority=1, features=["nobody-has-it"])
    fits = waiting(database)
    assert workers.place_waiting(database) == 1
    assert attempt(database, fits).status == State.SCHEDULED


def test_work_of_a_silent_worker_is_done_elsewhere_once_and_its_late_words_change_nothing(
    database: Database,
) -> None:
    lost, job = worker(database), waiting(database)
    workers.place_waiting(database)
    zombie = begin(database, job)
    other = worker(database)
    ago(database, lost, 29)
    assert workers.expire(database) == 0
    ago(database, lost, 31)
    assert workers.expire(database) == 1
    assert status(database, lost) == WorkerState.UNHEALTHY
    with database.transaction() as connection:
        workers.heartbeat(connection, lost)
    workers.place_waiting(database)
    second = begin(database, job)
    assert (second.worker_id, second.attempt, second.lost_by) == (other, 2, lost)
    with database.transaction() as connection:
        # Whoever works at the queue's entry is told to stop.
        asked = "SELECT abort_requested OR status = 'cancelled' FROM procrastinate_jobs WHERE id = :id"
        assert connection.scalar(text(asked), {"id": zombie.queue_entry}) in (True, None)
        assert executions.leases_of(connection, lost) == {}
    with pytest.raises(executions.LeaseLost), database.transaction() as connection:
        executions.finish(connection, zombie.id, zombie.lease, State.SUCCESS, 0)
    check(database, job)
    # The one that replaced it is lost too, and that was the last.
    ago(database, other, 31)
    workers.expire(database)
    with database.transaction() as connection:
        ended = jobs.get(connection, job)
    assert (ended["status"], ended["reason"]) == (State.FAILED, Reason.WORKER_LOST)
    check(database, job)


def test_what_a_worker_does_not_begin_is_another_s(database: Database) -> None:
    busy, job = worker(database), waiting(database)
    workers.place_waiting(database)
    later = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, workers.SECONDS_TO_START + 1)
    with database.transaction() as connection:
        connection.execute(update(tables.executions).values(scheduled_at=later))
    other = worker(database)
    assert workers.expire(database) == 1
    workers.place_waiting(database)
    now = attempt(database, job)
    assert (now.worker_id, now.attempt) == (other, 2)
    first = select(tables.executions).where(tables.executions.c.attempt == 1)
    with database.transaction() as connection:
        row = connection.execute(first).one()
        # It began in the moment in which it was to be taken from it.
        assert (row.worker_id, row.reason) == (busy, Reason.NOT_STARTED)
    begin(database, job)
    with database.transaction() as connection:
        assert not executions.take_back(connection, now.id, other, "did not begin")
    assert attempt(database, job).status == State.RUNNING


def test_a_draining_worker_that_falls_silent_does_not_come_back_for_more(database: Database) -> None:
    leaving, job = worker(database), waiting(database)
    workers.place_waiting(database)
    begin(database, job)
    with database.transaction() as connection:
        workers.drain(connection, leaving)
    ago(database, leaving, 31)
    assert workers.expire(database) == 1
    assert status(database, leaving) == WorkerState.FAILED
    with pytest.raises(Conflict, match="register again"), database.transaction() as connection:
        workers.heartbeat(connection, leaving)
    assert attempt(database, job).attempt == 2


def test_a_worker_that_is_stopped_stays_so_and_leaves_its_work_to_others(database: Database) -> None:
    first, job = worker(database), waiting(database)
    workers.place_waiting(database)
    begin(database, job)
    workers.stop(database, first)
    workers.stop(database, first)
    assert status(database, first) == WorkerState.TERMINATED
    assert (attempt(database, job).attempt, attempt(database, job).status) == (2, State.PENDING)
    for move in (workers.heartbeat, workers.drain):
        with pytest.raises(Conflict), database.transaction() as connection:
            move(connection, first)
    with pytest.raises(NotFound):
        workers.stop(database, uuid.uuid4())
    with database.transaction() as connection:
        told = [row["type"] for row in events.after(connection, 0) if row["type"].startswith("worker.")]
        assert connection.scalar(text("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'")) == 0
    assert told == ["worker.available", "worker.terminated"]


def test_two_placers_at_once_neither_give_twice_nor_stumble_over_it(database: Database) -> None:
    only = worker(database, cpu_m=1000)
    given = [waiting(database, resources={"cpu_m": 900}) for _ in range(2)]
    with database.transaction() as connection:
        for job in given:
            # As if another had read what is free before this one gave.
            waits = executions.newest_attempt(connection, job, jobs.COMMAND)
            assert executions.schedule(connection, waits.id, only) is not None
            assert executions.schedule(connection, waits.id, only) is None
    waiting(database)
    assert workers.place_waiting(database) == 0
