"""The worker: registered, heard of, and given executions, until it drains."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from procrastinate import JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import AbortReason
from sqlalchemy import Connection

from mlplatform.domain.jobs.specs import Capabilities
from mlplatform.domain.jobs.states import ENDED, WorkerState
from mlplatform.errors import PlatformError
from mlplatform.io.control_plane import executions, queue, workers
from mlplatform.io.control_plane.database import Database, DatabaseRefused, DatabaseUnreachable
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.control_plane.job_rows import Conflict
from mlplatform.local.directory import acquire
from mlplatform.settings import Settings, is_locked
from mlplatform.worker import machine
from mlplatform.worker.execution import Execution, Limits, Workshop
from mlplatform.worker.listener import listener
from mlplatform.worker.pulse import Pulse, now

log = logging.getLogger(__name__)

BEATS_OF_A_TIMEOUT = 4
# Notifications come at once; this finds what came while nobody listened.
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BEFORE_AGAIN = 1.0
SECONDS_TO_SAY_GOODBYE = 10
MOST_THREADS = 8
LOCK = "lock"
ONE_MINUTE = 60

Result = TypeVar("Result")


class WorkerLost(PlatformError):
    """Nothing is heard of this worker any more, whatever it says: it has to be started again."""


class NotReady(PlatformError):
    """The control plane's tables are not those of this release."""


@dataclass(frozen=True)
class Options:
    """What a worker says of itself."""

    name: str
    capabilities: Capabilities
    # Commands at once.
    slots: int
    # Silent for so long, it has lost what it has.
    timeout_seconds: int = 30
    # For what runs when it is told to end.
    grace_seconds: float = 300
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Running:
    execution: Execution
    task: asyncio.Task[None]


class Worker:
    """One worker, from its registration to its end.

    Args:
        database: with room for ten connections.
    """

    def __init__(self, settings: Settings, database: Database, options: Options) -> None:
        self._database = database
        self._options = options
        self._settings = settings
        self._running: dict[uuid.UUID, Running] = {}
        # Given to this worker, by its newest heartbeat, and not begun.
        self._not_begun: set[uuid.UUID] = set()
        self._threads = ThreadPoolExecutor(min(MOST_THREADS, options.slots + 1), "executions")
        # Not behind what executions wait for.
        self._pulse_thread = ThreadPoolExecutor(1, "pulse")
        self._draining = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Returns when it has drained, or was told to end.

        Raises:
            DatabaseUnreachable: it cannot register.
            WorkerLost: it was silent for so long that it is given up.
        """
        machine.keep_to_itself()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_end)
        pulse = Pulse(self._options.timeout_seconds)
        try:
            self._id = await self._call(self._register)
        except DatabaseRefused as error:
            # Who migrates is one, and not each of the workers of several releases.
            raise NotReady(
                f"{error}; `mlplatform serve api` of this release makes the tables: start it first"
            ) from None
        folder = self._settings.data_directory / "workers" / str(self._id)
        lock = await asyncio.to_thread(_own, folder)
        self._shop = Workshop(
            self._settings, self._database, self._threads, pulse, folder, self._options.limits
        )
        log.info("registered", extra={"worker_id": str(self._id), "slots": self._options.slots})
        try:
            await self._work()
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            os.close(lock)
            self._threads.shutdown(wait=False)
            self._pulse_thread.shutdown(wait=False)

    async def _work(self) -> None:
        beating = asyncio.create_task(self._beat())
        listening = asyncio.create_task(self._listen())
        draining = asyncio.create_task(self._draining.wait())
        ending = asyncio.create_task(self._ended.wait())
        try:
            await _first(beating, draining, ending)
            await _cancelled(listening)
            if draining.done() and not ending.done():
                log.info("drains", extra={"executions": len(self._running)})
                await self._say(workers.drain, self._id)
                idle = asyncio.create_task(self._idle())
                await _first(beating, ending, idle, seconds=self._options.grace_seconds)
                await _cancelled(idle)
        finally:
            lost = beating.exception() if beating.done() else None
            # Nothing begins any more.
            self._draining.set()
            await _cancelled(listening, beating, draining, ending)
            await self._kill_all("it ends")
            await self._leave()
        if lost:
            raise lost

    def _asked_to_end(self) -> None:
        if self._draining.is_set():
            self._ended.set()
        self._draining.set()

    def _register(self, connection: Connection) -> uuid.UUID:
        options = self._options
        return workers.register(
            connection,
            options.name,
            options.capabilities,
            slots=options.slots,
            listens=True,
            timeout_seconds=options.timeout_seconds,
            host=socket.gethostname(),
            version=version("mlplatform"),
        )["id"]

    # --- executions ---

    async def _listen(self) -> None:
        # What it raises when it is cancelled while the database is away is not CancelledError.
        while not self._draining.is_set():
            try:
                app = listener(self._database, self._execute)
                async with app.open_async():
                    await app.run_worker_async(
                        queues=[queue.name_of(self._id)],
                        name=self._options.name,
                        # The placer gives no more than there are slots; those that clean up have one too.
                        concurrency=2 * self._options.slots,
                        fetch_job_polling_interval=SECONDS_BETWEEN_LOOKS,
                        # A notification that is missed: the pulse finds what is no longer this worker's.
                        abort_job_polling_interval=60,
                        delete_jobs="always",
                        # What runs goes on without it.
                        shutdown_graceful_timeout=0,
                        install_signal_handlers=False,
                    )
            except ConnectorException as error:
                log.warning("the queue is not heard: %s", error.__cause__ or error)
            await asyncio.sleep(SECONDS_BEFORE_AGAIN)

    async def _execute(self, context: JobContext, execution_id: str, lease: str) -> None:
        id_ = uuid.UUID(execution_id)
        if id_ in self._running:
            return
        execution = Execution(self._shop, id_, uuid.UUID(lease))
        task = asyncio.create_task(self._run(execution))
        self._running[id_] = Running(execution, task)
        task.add_done_callback(lambda _: self._running.pop(id_))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # And not because the queue is listened to anew.
            if context.abort_reason() is AbortReason.USER_REQUEST:
                task.cancel()
                await asyncio.wait([task])
            raise

    async def _run(self, execution: Execution) -> None:
        extra = {"execution_id": str(execution.id)}
        try:
            await execution.run()
        except LeaseLost as error:
            log.info("%s", error, extra=extra)
        except asyncio.CancelledError:
            log.info("cancelled", extra=extra)
        except Exception:
            log.exception("failed", extra=extra)
            await self._give_back(execution.id, "its worker failed, whose log says why")

    # --- the pulse ---

    async def _beat(self) -> None:
        pulse, every = self._shop.pulse, self._options.timeout_seconds / BEATS_OF_A_TIMEOUT
        while True:
            sent, begun = now(), set(self._running)
            beating = asyncio.ensure_future(self._call(self._heartbeat, self._pulse_thread))
            await asyncio.wait([beating], timeout=max(0, pulse.left))
            if pulse.left <= 0:
                await self._kill_all("no heartbeat was kept for the worker's time-out")
            pause = every
            try:
                status, held = await beating
            except DatabaseUnreachable as error:
                log.warning("no heartbeat: %s", error)
                pause = min(every, SECONDS_BEFORE_AGAIN)
            else:
                if status in ENDED:
                    self._end(status)
                    return
                pulse.beat(sent)
                await self._compare(begun, held)
                if status is WorkerState.DRAINING:
                    self._draining.set()
            await asyncio.sleep(min(pause, pulse.left) if pulse.left > 0 else pause)

    def _heartbeat(self, connection: Connection) -> tuple[WorkerState, Mapping[uuid.UUID, uuid.UUID]]:
        try:
            worker = workers.heartbeat(connection, self._id)
        except Conflict:
            worker = workers.get(connection, self._id)
        return WorkerState(worker["status"]), executions.leases_of(connection, self._id)

    async def _compare(self, begun: set[uuid.UUID], held: Mapping[uuid.UUID, uuid.UUID]) -> None:
        """Ends what is no longer this worker's, and gives back what it has and does not run."""
        for id_ in begun & self._running.keys():
            running = self._running[id_]
            if held.get(id_) == running.execution.lease:
                running.execution.hold()
            else:
                running.task.cancel()
        not_begun = held.keys() - self._running.keys()
        for id_ in not_begun & self._not_begun:
            await self._give_back(id_, "its worker does not run it")
        self._not_begun = set(not_begun)

    async def _kill_all(self, why: str) -> None:
        if self._running:
            log.warning("ends what it runs: %s", why, extra={"executions": len(self._running)})
            await _cancelled(*(running.task for running in self._running.values()))

    def _end(self, status: WorkerState) -> None:
        self._ended.set()
        if status is not WorkerState.TERMINATED:
            raise WorkerLost(f"worker {self._options.name} is {status}: start it again")

    # --- the end ---

    async def _idle(self) -> None:
        while self._running:
            await asyncio.wait([running.task for running in self._running.values()])

    async def _leave(self) -> None:
        def stop() -> None:
            workers.stop(self._database, self._id)

        try:
            async with asyncio.timeout(SECONDS_TO_SAY_GOODBYE):
                await asyncio.get_running_loop().run_in_executor(self._pulse_thread, stop)
        except (PlatformError, TimeoutError) as error:
            log.warning("nobody was told of the end: %s", error)

    async def _give_back(self, execution_id: uuid.UUID, message: str) -> None:
        await self._say(executions.lose, execution_id, self._id, message)

    async def _say(self, what: Callable[..., object], *arguments: object) -> None:
        """What is found out without it too, but later."""
        try:
            await self._call(lambda connection: what(connection, *arguments))
        except PlatformError as error:
            log.warning("%s", error)

    async def _call(
        self, work: Callable[[Connection], Result], thread: ThreadPoolExecutor | None = None
    ) -> Result:
        def transaction() -> Result:
            with self._database.transaction() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(thread or self._threads, transaction)


async def _first(*tasks: asyncio.Task[object], seconds: float | None = None) -> None:
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


async def _cancelled(*tasks: asyncio.Task[object]) -> None:
    """Returns when they have ended, whatever they raise."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _own(folder: Path) -> int:
    """The folder, for as long as the lock that is returned is held; what dead workers left is removed."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One at a time: between a folder and its lock, its worker looks like a dead one.
    alone = _held(folder.parent / LOCK, ONE_MINUTE)
    try:
        for other in folder.parent.iterdir():
            if other.is_dir() and not is_locked(other / LOCK):
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return _held(folder / LOCK, 0)
    finally:
        os.close(alone)


def _held(path: Path, seconds: float) -> int:
    lock = acquire(path, seconds)
    if lock is None:
        raise WorkerLost(f"{path} is held by another process: end it")
    return lock
