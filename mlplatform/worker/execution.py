"""One execution, from its lease to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Row

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io import tracing
from mlplatform.io.control_plane import artefacts, executions, jobs, log_lines
from mlplatform.io.control_plane.database import Database, DatabaseUnreachable
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.control_plane.log_lines import Line
from mlplatform.io.object_store import ObjectStore, StoreUnavailable
from mlplatform.settings import ConfigurationError, Settings
from mlplatform.worker import child, secrets
from mlplatform.worker.artefacts import ArtefactLimits, Uploaded, upload
from mlplatform.worker.child import Child
from mlplatform.worker.lines import Redaction
from mlplatform.worker.output import LogLimits, Output
from mlplatform.worker.pulse import Pulse

log = logging.getLogger(__name__)

SECONDS_BEFORE_AGAIN = 0.3
# The object store itself is asked again for some seconds each time.
UPLOADS = 5
# Of the number of a signal, in an exit code.
SIGNALLED = 128

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What one execution may leave behind, and how long it may take to end itself."""

    log: LogLimits = field(default_factory=LogLimits)
    artefacts: ArtefactLimits = field(default_factory=ArtefactLimits)
    grace_seconds: float = 10


@dataclass(frozen=True)
class Workshop:
    """What the executions of a worker share."""

    settings: Settings
    database: Database
    # Where calls wait for the database, and for the object store.
    threads: Executor
    pulse: Pulse
    # Below it, each execution has its own.
    folder: Path
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Ending:
    """How the command of an execution ended."""

    status: State
    exit_code: int | None = None
    reason: Reason | None = None
    message: str | None = None


class Execution:
    """An execution that was given to this worker, with its lease."""

    def __init__(self, workshop: Workshop, id_: uuid.UUID, lease: uuid.UUID) -> None:
        self.id = id_
        self.lease = lease
        self._shop = workshop
        self._child: Child | None = None
        self._redact = Redaction()
        self._extra = {"execution_id": str(id_)}

    def hold(self) -> None:
        """The lease was held when the worker's newest heartbeat was kept."""
        if self._child is not None:
            self._child.hold(self._shop.pulse.until)

    async def run(self) -> None:
        """
        Raises:
            LeaseLost: it is, or may be, another's: what it ran is dead, and nothing was written.
        """
        row, of_the_job = await self._begin()
        log.info("begins", extra=self._extra)
        parent = row.bootstrap.get("TRACEPARENT") or of_the_job
        attributes = {"mlplatform.job_id": str(row.job_id), "mlplatform.execution_id": str(self.id)}
        with tracing.span(f"execute {row.stage}", parent, "CONSUMER", **attributes) as traceparent:
            await self._execute(row, traceparent)

    async def _execute(self, row: Row[Any], traceparent: str | None) -> None:
        spec = JobSpec.model_validate(row.spec)
        try:
            given = secrets.values(spec.secret_refs, self._shop.settings)
        except secrets.SecretMissing as error:
            await self._finish(Ending(State.FAILED, None, Reason.NOT_STARTED, str(error)))
            return
        self._redact = Redaction(given.values())
        folder = self._shop.folder / str(self.id)
        try:
            await self._finish(await self._run(row, spec, given, traceparent, folder))
        finally:
            await self._in_thread(_remove, folder)

    async def _begin(self) -> tuple[Row[Any], str | None]:
        tries = 0

        def begin(connection: Connection) -> tuple[Row[Any], str | None]:
            nonlocal tries
            tries += 1
            row = executions.start(connection, self.id, self.lease, again=tries > 1)
            return row, jobs.get(connection, row.job_id)["traceparent"]

        return await self._write(begin)

    async def _finish(self, ending: Ending) -> None:
        message = ending.message and self._redact(ending.message)

        def finish(connection: Connection) -> None:
            executions.finish(
                connection, self.id, self.lease, ending.status, ending.exit_code, ending.reason, message
            )

        await self._write(finish)
        log.info("ended: %s", ending.status, extra=self._extra)

    async def _run(
        self,
        row: Row[Any],
        spec: JobSpec,
        given: Mapping[str, str],
        traceparent: str | None,
        folder: Path,
    ) -> Ending:
        left = folder / "artefacts"
        environment = _environment(self._shop.settings, folder, spec, given, row, traceparent)
        await self._in_thread(_make, folder)

        async def keep(lines: Sequence[Line]) -> None:
            await self._write(lambda connection: log_lines.append(connection, self.id, self.lease, lines))

        output = Output(keep, self._redact, self._shop.limits.log)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(output.keep_all())
                home = folder / "home"
                async with child.running(spec.command, environment, home, self._shop.pulse) as running:
                    self._child = running
                    ending = await self._follow(running, output, spec)
                uploaded, problem = await self._upload(left)
                for text in uploaded.left_out:
                    await output.say(text)
                await output.end()
        except ExceptionGroup as group:
            raise (group.subgroup(LeaseLost) or group).exceptions[0] from group
        finally:
            self._child = None
        if uploaded.artefacts:
            await self._write(
                lambda connection: artefacts.keep(connection, self.id, self.lease, uploaded.artefacts)
            )
        if problem and ending.status is State.SUCCESS:
            return Ending(State.FAILED, ending.exit_code, Reason.ARTEFACTS_LOST, problem)
        return ending

    async def _follow(self, running: Child, output: Output, spec: JobSpec) -> Ending:
        readers = [asyncio.create_task(output.read(*stream)) for stream in running.outputs.items()]
        try:
            timed_out = False
            try:
                async with asyncio.timeout(spec.timeout_ms / 1000):
                    code = await running.wait()
            except TimeoutError:
                timed_out = True
                running.end(self._shop.limits.grace_seconds)
                code = await running.wait()
            # It is dead with all that it had started: the streams have an end.
            await asyncio.gather(*readers)
        finally:
            for reader in readers:
                reader.cancel()
        if timed_out:
            message = f"it took longer than its time-out of {spec.timeout_ms / 1000:g} s"
            return Ending(State.FAILED, code, Reason.TIMED_OUT, message)
        if code:
            return Ending(State.FAILED, code, Reason.EXIT_CODE, _said(code))
        return Ending(State.SUCCESS, code)

    async def _upload(self, folder: Path) -> tuple[Uploaded, str | None]:
        """What is in the object store now, and why not all is."""
        if not await self._in_thread(_has_files, folder):
            return Uploaded([], []), None
        for attempt in range(1, UPLOADS + 1):
            self._check()
            try:
                return await self._in_thread(self._store, folder), None
            except ConfigurationError as error:
                return Uploaded([], []), f"its artefacts are not kept: {error}"
            except StoreUnavailable as error:
                if attempt == UPLOADS:
                    return Uploaded([], []), f"its artefacts are not kept: {error}"
                log.warning("%s", error, extra=self._extra)
        raise AssertionError

    def _store(self, folder: Path) -> Uploaded:
        store = ObjectStore(self._shop.settings.s3)
        return upload(folder, str(self.id), store, self._redact, self._shop.limits.artefacts)

    async def _write(self, work: Callable[[Connection], Result]) -> Result:
        """One transaction, tried again while the database is away and the lease is surely held.

        Raises:
            LeaseLost: it is not.
        """

        def transaction() -> Result:
            with self._shop.database.transaction() as connection:
                return work(connection)

        while True:
            self._check()
            try:
                return await self._in_thread(transaction)
            except DatabaseUnreachable as error:
                log.warning("%s", error, extra=self._extra)
                await asyncio.sleep(SECONDS_BEFORE_AGAIN)

    def _check(self) -> None:
        if self._shop.pulse.left <= 0:
            raise LeaseLost(f"execution {self.id}: no heartbeat was kept for the worker's time-out")

    def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> Awaitable[Result]:
        return asyncio.get_running_loop().run_in_executor(self._shop.threads, work, *arguments)


def _environment(
    settings: Settings,
    folder: Path,
    spec: JobSpec,
    given: Mapping[str, str],
    row: Row[Any],
    traceparent: str | None,
) -> dict[str, str]:
    """All variables of the command: nothing of the worker's but the way to programs."""
    return {
        "PATH": settings.variables.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        **spec.env,
        **given,
        **row.bootstrap,
        **({"TRACEPARENT": traceparent} if traceparent else {}),
        "MLPLATFORM_JOB_ID": str(row.job_id),
        "MLPLATFORM_EXECUTION_ID": str(row.id),
        "MLPLATFORM_ARTEFACTS": str(folder / "artefacts"),
    }


def _make(folder: Path) -> None:
    for name in ("home", "tmp", "artefacts"):
        (folder / name).mkdir(mode=0o700, parents=True)


def _remove(folder: Path) -> None:
    def allowed(function: Callable[[str], object], path: str, _: Any) -> None:
        # The command may have taken the right to do so from its own folders.
        try:
            os.chmod(os.path.dirname(path), 0o700)
            function(path)
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error.strerror)

    if folder.exists():
        shutil.rmtree(folder, onerror=allowed)


def _has_files(folder: Path) -> bool:
    return any(names for _, _, names in os.walk(folder))


def _said(code: int) -> str:
    try:
        return f"it ended with exit code {code} ({signal.Signals(code - SIGNALLED).name})"
    except ValueError:
        return f"it ended with exit code {code}"
