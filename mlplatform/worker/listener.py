"""Hears of the executions that are given to a worker: procrastinate's part of the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException

from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.queue import TASK

SECONDS_TO_LISTEN_AGAIN = 1


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
            conninfo=database.conninfo, kwargs=database.arguments, min_size=1, max_size=2, timeout=1
        )
    )
    app.task(name=TASK, pass_context=True)(execute)
    return app
