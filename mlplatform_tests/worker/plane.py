"""A control plane without its API: what is made is released at once, and placed on real workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import TERMINAL, Reason, State
from mlplatform.errors import TransientError
from mlplatform.io.control_plane import executions, jobs, log_lines, tables, workers
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.job_rows import PLACING, Conflict
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.local.processes import COMMAND, environment, eventually, lives

SECONDS = 30
TIMEOUT_SECONDS = 2
PYTHON = sys.executable, "-I", "-S", "-c"
# Prints the processes that it consists of: one that heeds no SIGTERM, and one that has left its group and
# its parent.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writing, b"%d" % os.getpid())
        time.sleep(1000)
    os._exit(0)
os.wait()
print(os.getpid(), int(os.read(reading, 100)), flush=True)
time.sleep(1000)
"""


class WorkerProcess:
    """`mlplatform worker start`, that can be killed and stopped."""

    def __init__(self, plane: Plane, name: str, *arguments: str, **variables: str) -> None:
        given = {**plane.settings.variables, "MLPLATFORM_CONTROL_PLANE_SCHEMA": plane.database.schema}
        directory = Path(given.pop("MLPLATFORM_DATA_DIRECTORY"))
        self._plane = plane
        self.name = name
        self.said = directory / f"said {plane.database.schema} {name}"
        command = [*COMMAND, "worker", "start", "--name", name, *arguments]
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                command, env=environment(directory, **given, **variables), stdout=said, stderr=said
            )

    @property
    def row(self) -> Mapping[str, Any] | None:
        with self._plane.database.transaction() as connection:
            query = workers.view().where(tables.workers.c.name == self.name)
            return connection.execute(query).mappings().one_or_none()

    @property
    def status(self) -> str:
        return self.row["status"] if self.row else "Creating"

    def wait_until_there(self) -> None:
        assert eventually(lambda: self.row is not None, SECONDS), self.said.read_text()[-5000:]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.said.read_text().splitlines()]


class Plane:
    """A database, and a thread that places what waits."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self._ending = threading.Event()
        self._placer = threading.Thread(target=self._place)
        self._placer.start()

    def _place(self) -> None:
        while not self._ending.wait(0.02):
            with suppress(TransientError), self.database.listening(PLACING) as connection:
                while not self._ending.is_set():
                    workers.expire(self.database)
                    workers.place_waiting(self.database)
                    for _ in connection.notifies(timeout=0.2, stop_after=1):
                        pass

    def close(self) -> None:
        self._ending.set()
        self._placer.join()

    @contextmanager
    def worker(self, name: str = "w", *arguments: str, **variables: str) -> Iterator[WorkerProcess]:
        """One that takes work; killed in the end."""
        made = WorkerProcess(self, name, "--timeout-seconds", str(TIMEOUT_SECONDS), *arguments, **variables)
        try:
            made.wait_until_there()
            yield made
        finally:
            made.kill()

    def job(
        self,
        *command: str,
        traceparent: str | None = None,
        bootstrap: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> uuid.UUID:
        """One whose only stage is released."""
        declared = JobSpec.model_validate({"name": "job", "command": list(command), **spec})
        with self.database.transaction() as connection:
            job = jobs.create(connection, jobs.NewJob(spec=declared, traceparent=traceparent))
            executions.release(connection, job["id"], jobs.COMMAND, bootstrap)
        return job["id"]

    def retry(self, job_id: uuid.UUID) -> None:
        """What a step does whose execution has failed, if the job has not."""
        with self.database.transaction() as connection, suppress(Conflict):
            executions.release(connection, job_id, jobs.COMMAND)

    def cancel(self, job_id: uuid.UUID) -> None:
        with self.database.transaction() as connection:
            jobs.cancel(connection, job_id)

    def answers(self) -> bool:
        """Whether the database is there."""
        try:
            with self.database.transaction():
                return True
        except TransientError:
            return False

    def status(self, job_id: uuid.UUID) -> str:
        with self.database.transaction() as connection:
            return jobs.get(connection, job_id)["status"]

    def attempts(self, job_id: uuid.UUID) -> Sequence[Mapping[str, Any]]:
        with self.database.transaction() as connection:
            return executions.executions_of(connection, job_id)

    def ended(self, job_id: uuid.UUID, seconds: float = SECONDS) -> Mapping[str, Any]:
        """The last attempt of the job, which has ended by then."""
        assert eventually(lambda: State(self.status(job_id)) in TERMINAL, seconds), self.attempts(job_id)
        return self.attempts(job_id)[-1]

    def lines(self, attempt: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Stream and text of each line."""
        with self.database.transaction() as connection:
            kept = log_lines.after(connection, attempt["id"], limit=100_000)
        assert [line["number"] for line in kept] == list(range(len(kept)))
        return [(line["stream"], line["text"]) for line in kept]

    def begun(self, job_id: uuid.UUID) -> list[Mapping[str, Any]]:
        """Attempts without those that came to nothing: a worker that is slow is asked again."""
        return [attempt for attempt in self.attempts(job_id) if attempt["reason"] != Reason.NOT_STARTED]

    def said(self, job_id: uuid.UUID, attempt: int = -1, seconds: float = SECONDS) -> str:
        """The first line of an attempt (its newest unless told), which is waited for."""

        def lines() -> list[tuple[str, str]]:
            attempts = self.begun(job_id)
            return self.lines(attempts[attempt]) if len(attempts) > attempt else []

        assert eventually(lambda: bool(lines()), seconds), self.attempts(job_id)
        return lines()[0][1]

    def artefacts(self, attempt: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        artefact = tables.artefacts
        with self.database.transaction() as connection:
            query = select(artefact).where(artefact.c.execution_id == attempt["id"])
            return {row["path"]: row for row in connection.execute(query).mappings()}


@contextmanager
def plane(settings: Settings) -> Iterator[Plane]:
    with fresh_database(settings.database_url) as database:
        made = Plane(settings, database)
        try:
            yield made
        finally:
            made.close()


def all_dead(processes: str, seconds: float = SECONDS) -> float:
    """How long it took until they were; their numbers are what STUBBORN prints."""
    asked = time.monotonic()
    assert eventually(lambda: not any(lives(int(each)) for each in processes.split()), seconds), processes
    return time.monotonic() - asked
