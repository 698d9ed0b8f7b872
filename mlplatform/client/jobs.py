"""Jobs and their executions, as a client has them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from uuid import UUID

from mlplatform.client.connection import Connection, new_key, segment
from mlplatform.client.models import Artefact, Event, Execution, Job, JobStatus, Log, LogLine, Resources
from mlplatform.domain.jobs.states import TERMINAL, State

JOBS, EXECUTIONS = "/api/v1/jobs", "/api/v1/executions"
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.1, 1.0
LINES_OF_A_PAGE = 1000
EVENTS_OF_A_PAGE = 1000


class Jobs:
    def __init__(self, connection: Connection, executions: Executions) -> None:
        self._connection = connection
        self._executions = executions

    def create(
        self,
        command: Sequence[str],
        *,
        name: str | None = None,
        image: str | None = None,
        resources: Resources | None = None,
        features: Sequence[str] = (),
        timeout_ms: int | None = None,
        retries: int = 0,
        env: Mapping[str, str] | None = None,
        secret_refs: Sequence[str] = (),
        priority: int = 0,
        key: str | None = None,
    ) -> Job:
        """Runs a command on a worker that fits; no shell. Pipelines are run by `Pipelines.run`.

        Args:
            features: what the worker must have besides its resources.
            timeout_ms: of each attempt; None: a day.
            retries: how often a command that failed is run again.
            secret_refs: names of secrets, each of which becomes a variable of the command.
            key: the same key again gets the first job; None: each call makes another.
        """
        body = {
            "command": list(command),
            "name": name,
            "image": image,
            "resources": (resources or Resources()).model_dump(),
            "features": sorted(features),
            "retries": retries,
            "env": dict(env or {}),
            "secret_refs": list(secret_refs),
            "priority": priority,
        }
        if timeout_ms is not None:
            body["timeout_ms"] = timeout_ms
        return self._connection.post(Job, JOBS, body, key=key or new_key())

    def get(self, job_id: UUID) -> Job:
        return self._connection.get(Job, f"{JOBS}/{segment(job_id)}")

    def list(
        self, *, status: State | None = None, pipeline_id: UUID | None = None, page_size: int = 100
    ) -> Iterator[Job]:
        """The newest first; the next page is asked for when it is wanted."""
        return self._connection.pages(Job, JOBS, status=status, pipeline_id=pipeline_id, limit=page_size)

    def status(self, job_id: UUID) -> State:
        return self._connection.get(JobStatus, f"{JOBS}/{segment(job_id)}/status").status

    def wait(self, job_id: UUID, timeout: float | None = None) -> Job:
        """The job, when it has ended.

        Raises:
            TimeoutError: it has not, in so many seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_LOOK_SECONDS
        while (status := self.status(job_id)) not in TERMINAL:
            if end is not None:
                pause = min(pause, end - time.monotonic())
                if pause <= 0:
                    raise TimeoutError(f"job {job_id} is {status} after {timeout:g} seconds")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        return self.get(job_id)

    def cancel(self, job_id: UUID) -> Job:
        """Ends it, with whatever runs of it. One that is cancelled already stays so."""
        return self._connection.post(Job, f"{JOBS}/{segment(job_id)}/cancel")

    def retry(self, job_id: UUID) -> Job:
        """Another round of a job that failed: what has succeeded of it is not run again."""
        return self._connection.post(Job, f"{JOBS}/{segment(job_id)}/retry")

    def executions(self, job_id: UUID) -> Sequence[Execution]:
        """All attempts of its stages, in the order of the stages."""
        return self._connection.get(list[Execution], f"{JOBS}/{segment(job_id)}/executions")

    def logs(self, job_id: UUID) -> Iterator[tuple[Execution, LogLine]]:
        """What its commands have written by now, one attempt after the other."""
        for execution in self.executions(job_id):
            for line in self._executions.logs(execution.id):
                yield execution, line

    def follow_logs(self, job_id: UUID) -> Iterator[tuple[Execution, LogLine]]:
        """What its commands write, from the first line until the job has ended.

        One attempt after the other: of stages that run at once, the second is told when the first has ended.
        """
        told: set[UUID] = set()
        for _ in chain([None], self.follow_events(job_id)):
            for execution in self.executions(job_id):
                if execution.started_at and execution.id not in told:
                    told.add(execution.id)
                    for line in self._executions.follow_logs(execution.id):
                        yield execution, line

    def events(self, job_id: UUID, after: int = 0) -> Iterator[Event]:
        """What became of it, the oldest first, behind the event with the id `after`."""
        return _behind(self._connection, f"{JOBS}/{segment(job_id)}/events", after)

    def follow_events(self, job_id: UUID, after: int = 0) -> Iterator[Event]:
        """The same, as it happens, until it has ended."""
        for said in self._connection.stream(f"{JOBS}/{segment(job_id)}/events/stream", after):
            yield Event.model_validate_json(said.data)


class Executions:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, execution_id: UUID) -> Execution:
        return self._connection.get(Execution, f"{EXECUTIONS}/{segment(execution_id)}")

    def list(
        self, *, status: State | None = None, worker_id: UUID | None = None, page_size: int = 100
    ) -> Iterator[Execution]:
        """The newest first."""
        return self._connection.pages(
            Execution, EXECUTIONS, status=status, worker_id=worker_id, limit=page_size
        )

    def logs(self, execution_id: UUID, after: int = -1) -> Iterator[LogLine]:
        """What its command has written by now, behind the line with the number `after`."""
        while True:
            path = f"{EXECUTIONS}/{segment(execution_id)}/logs"
            found = self._connection.get(Log, path, after=after, limit=LINES_OF_A_PAGE).logs
            yield from found
            if len(found) < LINES_OF_A_PAGE:
                return
            after = found[-1].number

    def follow_logs(self, execution_id: UUID, after: int = -1) -> Iterator[LogLine]:
        """The same, as it is written, until the command has ended."""
        for said in self._connection.stream(f"{EXECUTIONS}/{segment(execution_id)}/logs/stream", after):
            yield LogLine.model_validate_json(said.data)

    def artefacts(self, execution_id: UUID) -> Sequence[Artefact]:
        """The files that its command left."""
        return self._connection.get(list[Artefact], f"{EXECUTIONS}/{segment(execution_id)}/artefacts")

    def artefact(self, execution_id: UUID, path: str) -> bytes:
        """One of them, whole."""
        parts = "/".join(map(segment, path.split("/")))
        return self._connection.ask("GET", f"{EXECUTIONS}/{segment(execution_id)}/artefacts/{parts}").content


class Events:
    """Of all jobs, and of all else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, after: int = 0) -> Iterator[Event]:
        """The oldest first, behind the event with the id `after`, until there are no more."""
        return _behind(self._connection, "/api/v1/events", after)

    def follow(self, after: int | None = None) -> Iterator[Event]:
        """As they happen, without end.

        Args:
            after: None: from now on (and from then on, if the stream is cut off before the first event).
        """
        for said in self._connection.stream("/api/v1/events/stream", after):
            yield Event.model_validate_json(said.data)


def _behind(connection: Connection, path: str, after: int) -> Iterator[Event]:
    while True:
        found = connection.get(list[Event], path, after=after, limit=EVENTS_OF_A_PAGE)
        yield from found
        if len(found) < EVENTS_OF_A_PAGE:
            return
        after = found[-1].id
