"""Pipelines of the control plane for a test, and a worker that is a thread of the test's."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import executions, jobs, log_lines, tables
from mlplatform.io.control_plane.database import Database

STAGES = [
    {"name": "fetch", "commands": ["echo fetching"]},
    {"name": "train-model", "commands": ["echo training"], "dependencies": ["fetch"], "retries": 1},
]


def add_pipeline(
    database: Database, stages: list[dict[str, Any]] = STAGES, slug: str = "nightly"
) -> uuid.UUID:
    id_ = uuid.uuid4()
    spec = {"name": "Nightly", "stages": stages}
    with database.transaction() as connection:
        connection.execute(insert(tables.pipelines).values(id=id_, name="Nightly", slug=slug, spec=spec))
    return id_


def new_job(database: Database, **values: Any) -> uuid.UUID:
    with database.transaction() as connection:
        return jobs.create(connection, jobs.NewJob(**values))["id"]


def attempts(database: Database, job_id: uuid.UUID) -> list[tuple[str, str]]:
    with database.transaction() as connection:
        return [(each["stage"], each["status"]) for each in executions.executions_of(connection, job_id)]


def status(database: Database, job_id: uuid.UUID) -> str:
    with database.transaction() as connection:
        return jobs.get(connection, job_id)["status"]


class Worker:
    """Runs what is released, by asking `ends` for the lines of an execution and its exit code."""

    def __init__(self, database: Database, ends: Callable[[Any], tuple[list[str], int]]) -> None:
        self._database = database
        self._ends = ends
        self.stopped = threading.Event()
        self.ran: list[str] = []

    def work(self) -> None:
        while not self.stopped.is_set():
            with self._database.transaction() as connection:
                waiting = connection.execute(
                    select(tables.executions.c.id).where(
                        tables.executions.c.status == State.PENDING,
                        tables.executions.c.released_at.is_not(None),
                    )
                ).scalars()
                for id_ in waiting.all():
                    self._run(connection, id_)
            self.stopped.wait(0.02)

    def _run(self, connection: Any, id_: uuid.UUID) -> None:
        execution = executions.schedule(connection, id_, None)
        assert execution
        executions.start(connection, id_, execution.lease)
        lines, code = self._ends(execution)
        self.ran.append(execution.stage)
        now = datetime.now(UTC)
        if lines:
            made = [log_lines.Line(number, now, "stdout", text) for number, text in enumerate(lines)]
            log_lines.append(connection, id_, execution.lease, made)
        if code is None:
            return
        state, reason = (State.FAILED, Reason.EXIT_CODE) if code else (State.SUCCESS, None)
        message = f"exit code {code}" if code else None
        executions.finish(connection, id_, execution.lease, state, code, reason, message)


@contextmanager
def working(database: Database, ends: Callable[[Any], tuple[list[str], Any]]) -> Iterator[Worker]:
    worker = Worker(database, ends)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        yield worker
    finally:
        worker.stopped.set()
        thread.join()
