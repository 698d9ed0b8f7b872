"""Workers that are started over HTTP: processes of this machine, which end with the API."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import RowMapping

from mlplatform.domain.jobs.specs import Capabilities
from mlplatform.io.control_plane import workers
from mlplatform.io.control_plane.database import Database
from mlplatform.local import launcher
from mlplatform.local.process import last_lines
from mlplatform.services.refusals import Refused
from mlplatform.settings import Settings

MOST = 16
SECONDS_TO_REGISTER = 30.0
SECONDS_BETWEEN_LOOKS = 0.05
# For what runs when the API ends, or is gone.
GRACE_SECONDS = 5
SECONDS_TO_END = 2 * GRACE_SECONDS


class Children:
    """The workers of this process. Used on the loop's thread, and only there."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._processes: dict[uuid.UUID, Process] = {}
        self._starting = 0

    async def start(
        self, name: str, kind: str, capabilities: Capabilities, timeout_seconds: int
    ) -> RowMapping:
        """A worker that takes work; returns when it has registered.

        Raises:
            Refused: 409, not in this environment, or there are too many; 503, it does not begin.
        """
        if self._settings.environment != "local":
            raise Refused(
                409,
                "workers are started here in local only: run `mlplatform worker start` where commands are to"
                " be run, or more replicas of the worker's deployment",
            )
        self._processes = {
            worker_id: process for worker_id, process in self._processes.items() if process.returncode is None
        }
        if len(self._processes) + self._starting >= MOST:
            raise Refused(409, f"{MOST} workers of this machine are running: stop one, or start it elsewhere")
        self._starting += 1
        try:
            # By it, we know which one it is.
            process, row = await self._registered(name, uuid.uuid4().hex[:8], capabilities, timeout_seconds)
        except TimeoutError:
            raise Refused(503, f"the worker has not begun after {SECONDS_TO_REGISTER:g} seconds") from None
        finally:
            self._starting -= 1
        self._processes[row["id"]] = process
        return await run_in_threadpool(self._called, row["id"], kind)

    def end(self, worker_id: uuid.UUID) -> None:
        """Tells the process to end at once, if it is one of these; what it has was given to others before."""
        if process := self._processes.get(worker_id):
            for _ in range(2):
                _tell(process, signal.SIGTERM)

    async def close(self) -> None:
        """Ends all of them; what they run has a moment to end too."""
        running = [process for process in self._processes.values() if process.returncode is None]
        for process in running:
            _tell(process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_TO_END):
                for process in running:
                    await process.wait()
        for process in running:
            _tell(process, signal.SIGKILL)
            await process.wait()

    async def _registered(
        self, asked: str, unique: str, capabilities: Capabilities, timeout_seconds: int
    ) -> tuple[Process, RowMapping]:
        name = f"{asked}-{unique}"
        # Not by what was asked for, which may be longer than a file's name, or lead elsewhere.
        log = self._settings.data_directory / "workers" / f"{unique}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            # From this thread, which lives as long as the process: the kernel ends what was started by a
            # thread together with the thread.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launcher.__file__),
                *("--parent", str(os.getpid()), "--signal", "SIGTERM", "--"),
                *(sys.executable, "-m", "mlplatform.cli", "worker", "start", "--name", name),
                *("--timeout-seconds", str(timeout_seconds), "--grace-seconds", str(GRACE_SECONDS)),
                *_arguments(capabilities),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=dict(self._settings.variables),
                # Ctrl-C is for the API, which ends it.
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(SECONDS_TO_REGISTER):
                while process.returncode is None:
                    if row := await run_in_threadpool(self._named, name):
                        return process, row
                    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        except BaseException:
            _tell(process, signal.SIGKILL)
            raise
        said = " ".join(last_lines(log, 1))
        raise Refused(503, f"the worker ended at once: {said or f'its log is {log.name}'}")

    def _named(self, name: str) -> RowMapping | None:
        with self._database.transaction() as connection:
            return workers.named(connection, name)

    def _called(self, worker_id: uuid.UUID, kind: str) -> RowMapping:
        with self._database.transaction() as connection:
            return workers.be_of_kind(connection, worker_id, kind)


def _arguments(capabilities: Capabilities) -> list[str]:
    """What is not asked for is all that the machine has."""
    given: Mapping[str, int] = {
        "--cpu-m": capabilities.cpu_m,
        "--memory-mb": capabilities.memory_mb,
        "--gpu": capabilities.gpu,
    }
    arguments = [text for option, value in given.items() if value for text in (option, str(value))]
    return arguments + [text for feature in sorted(capabilities.features) for text in ("--feature", feature)]


def _tell(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
