from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select, update

from mlplatform.domain.jobs.specs import Capabilities, JobSpec
from mlplatform.domain.jobs.states import State, WorkerState
from mlplatform.io.control_plane import database as databases
from mlplatform.io.control_plane import events, executions, jobs, log_lines, tables, workers
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.retention import clean
from mlplatform.io.object_store import ObjectStore
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings

DAY = timedelta(days=1)


def ran(database: Database, objects: ObjectStore, days_ago: float) -> uuid.UUID:
    """A job with a line, a file and an end."""
    with database.transaction() as connection:
        job_id = jobs.create(connection, jobs.NewJob(spec=JobSpec(name="old", command=["true"])))["id"]
        worker = workers.register(connection, "w", Capabilities(), listens=True)["id"]
        execution = executions.release(connection, job_id, jobs.COMMAND)
        scheduled = executions.schedule(connection, execution.id, worker)
        assert scheduled is not None
        lease = scheduled.lease
        executions.start(connection, execution.id, lease)
        line = log_lines.Line(0, datetime.now(UTC), "stdout", "hello")
        log_lines.append(connection, execution.id, lease, [line])
        key = f"artefacts/{execution.id}/model"
        objects.put(key, b"model")
        connection.execute(
            insert(tables.artefacts).values(
                execution_id=execution.id, path="model", bytes=5, sha256="00", key=key
            )
        )
        executions.finish(connection, execution.id, lease, State.SUCCESS, 0)
        connection.execute(
            update(tables.jobs)
            .where(tables.jobs.c.id == job_id)
            .values(finished_at=datetime.now(UTC) - days_ago * DAY)
        )
    return job_id


def test_what_is_old_goes_with_everything_of_it(database: Database, stack: RunningStack) -> None:
    prefix = {"MLPLATFORM_S3_PREFIX": uuid.uuid4().hex}
    objects = ObjectStore(Settings({**stack.variables, **prefix}).s3)
    old, recent = ran(database, objects, 31), ran(database, objects, 29)
    with database.transaction() as connection:
        open_ = jobs.create(connection, jobs.NewJob(spec=JobSpec(name="open", command=["true"])))["id"]
        connection.execute(
            update(tables.jobs)
            .where(tables.jobs.c.id == open_)
            .values(created_at=datetime(2020, 1, 1, tzinfo=UTC))
        )
        workers_of = {row.job_id: row.worker_id for row in connection.execute(select(tables.executions))}
        connection.execute(
            update(tables.workers).values(
                status=WorkerState.TERMINATED, stopped_at=datetime.now(UTC) - 40 * DAY
            )
        )
    assert clean(database, objects, 30 * DAY) == 1
    with database.transaction() as connection:
        assert set(connection.scalars(select(tables.jobs.c.id))) == {recent, open_}
        assert {row.job_id for row in connection.execute(select(tables.executions))} == {recent, open_}
        assert connection.scalar(select(func.count()).select_from(tables.log_lines)) == 1
        assert connection.scalar(select(func.count()).select_from(tables.artefacts)) == 1
        assert events.after(connection, 0, job_id=old) == []
        assert events.after(connection, 0, job_id=recent)
    assert len(objects.list("artefacts/")) == 1
    assert clean(database, objects, 30 * DAY) == 0
    with database.transaction() as connection:
        # That of the old job, once the job is gone.
        assert set(connection.scalars(select(tables.workers.c.id))) == {workers_of[recent]}


class Slow(ObjectStore):
    def delete(self, key: str) -> None:
        time.sleep(1.5)
        super().delete(key)


def test_an_object_store_that_takes_its_time_keeps_nothing_from_going(
    database: Database, stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings({**stack.variables, "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex})
    objects = Slow(settings.s3)
    ran(database, objects, 31)
    monkeypatch.setattr(databases, "IDLE_SECONDS", 1)
    impatient = Database(settings.database_url, database.schema)
    try:
        assert clean(impatient, objects, 30 * DAY) == 1
    finally:
        impatient.close()
    assert objects.list("artefacts/") == []
