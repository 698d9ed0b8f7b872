"""The queue that brings executions to their workers: procrastinate's, in the control plane's own tables."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable

from procrastinate import App, JobContext, PsycopgConnector, SyncPsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException
from sqlalchemy import Connection, text

from mlplatform.io.control_plane.database import Database

TASK = "execute"
SECONDS_TO_LISTEN_AGAIN = 1
# Never opened: what is given goes through the connection of a transaction.
_app = App(connector=SyncPsycopgConnector())


def name_of(worker_id: uuid.UUID) -> str:
    """The queue to which one worker listens."""
    # No longer: it is part of the name of a channel, for which PostgreSQL has 63 bytes.
    return worker_id.hex


def give(
    connection: Connection, worker_id: uuid.UUID, execution_id: uuid.UUID, lease: uuid.UUID, priority: int
) -> int:
    """Brings an execution to a worker, when the transaction is kept; returns the number of the entry."""
    return _app.configure_task(
        TASK,
        queue=name_of(worker_id),
        priority=priority,
        connection=connection.connection.driver_connection,
    ).defer(execution_id=str(execution_id), lease=str(lease))


def withdraw(connection: Connection, entry: int) -> None:
    """Whoever works at it is told to stop; one that does not hear it learns it with its next heartbeat."""
    connection.execute(text("SELECT procrastinate_cancel_job_v1(:entry, true, true)"), {"entry": entry})


def forget(connection: Connection, worker_id: uuid.UUID) -> None:
    """The entries of a worker that will not come back."""
    connection.execute(
        text("DELETE FROM procrastinate_jobs WHERE queue_name = :queue"), {"queue": name_of(worker_id)}
    )


class _Connector(PsycopgConnector):
    """One that hears of entries again after the database was away, and not only sees them now and then."""

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        while True:
            try:
                await super().listen_notify(on_notification, channels)
            except ConnectorException:
                await asyncio.sleep(SECONDS_TO_LISTEN_AGAIN)


def listener(database: Database, execute: Callable[[JobContext, str, str], Awaitable[None]]) -> App:
    """The application of a worker, which awaits `execute(context, execution_id, lease)` for each entry."""
    app = App(
        connector=_Connector(
            conninfo=database.conninfo, kwargs=database.arguments, min_size=1, max_size=2, timeout=5
        )
    )
    app.task(name=TASK, pass_context=True)(execute)
    return app
