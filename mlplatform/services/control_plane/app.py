"""The control plane: one application over one database, with what goes on in its background."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import click
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from mlplatform.io.control_plane.dagster_graphql import Dagster
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.events import CHANNEL
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.control_plane.job_rows import ENDED, LAUNCHING, PLACING, Conflict, NotFound
from mlplatform.io.control_plane.pages import InvalidCursor
from mlplatform.io.control_plane.retention import clean
from mlplatform.io.control_plane.schedules import CHANNEL as PIPELINES
from mlplatform.io.control_plane.workers import expire, place_waiting
from mlplatform.io.object_store import ObjectStore
from mlplatform.services.app import create_app
from mlplatform.services.control_plane import (
    audit,
    auth,
    events,
    executions,
    jobs,
    pipelines,
    schedules,
    users,
    webhooks,
    workers,
)
from mlplatform.services.control_plane.accounts import Accounts
from mlplatform.services.control_plane.audit import Audited
from mlplatform.services.control_plane.bell import Bell
from mlplatform.services.control_plane.bodies import JsonBodies
from mlplatform.services.control_plane.browsers import BrowserGuard
from mlplatform.services.control_plane.children import Children
from mlplatform.services.control_plane.delivering import Delivery, webhook_publishers
from mlplatform.services.control_plane.duties import Duty
from mlplatform.services.control_plane.faces import add_faces
from mlplatform.services.control_plane.launching import Launcher
from mlplatform.services.control_plane.metrics import ControlPlaneCollector
from mlplatform.services.control_plane.reloading import Reloader
from mlplatform.services.control_plane.shared import Shared
from mlplatform.services.refusals import problem
from mlplatform.settings import Settings

DESCRIPTION = "Pipelines, jobs, schedules and workers over Dagster."
SECONDS_BETWEEN_CLEANING = 600
STATUS = {NotFound: 404, Conflict: 409, LeaseLost: 409, InvalidCursor: 422}


def application(settings: Settings) -> FastAPI:
    """
    Raises:
        ConfigurationError: the settings do not say where the database is, or who may call.
    """
    database = Database(settings.database_url, settings.control_plane_schema, pool_size=20)
    accounts = Accounts(settings, database)
    app = create_app(
        "Control plane",
        DESCRIPTION,
        settings,
        Shared(_lifespan),
        _not_ready,
        accounts,
        [
            Middleware(BrowserGuard, origins=settings.cors_origins, open_=not accounts.required),
            Middleware(JsonBodies, forms=auth.FORMS),
        ],
        blocking_collectors=True,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.objects = ObjectStore(settings.s3)
    app.state.dagit_url = settings.dagit_url
    for error, status in STATUS.items():
        app.add_exception_handler(error, _refusal(status))
    for module in (auth, users, audit, pipelines, jobs, schedules, executions, workers, events, webhooks):
        app.include_router(module.router)

    @app.get("/health", tags=["operation"])
    async def health(request: Request) -> dict[str, Any]:
        """The process lives; `degraded` names the duties that do not get on."""
        troubled = [duty.name for duty in request.app.state.duties if duty.trouble]
        return {
            "status": "healthy",
            "service": "control-plane",
            "version": app.version,
            "degraded": troubled,
        }

    add_faces(app)
    # Outside of what measures, since nobody waits for it.
    app.add_middleware(Audited, audit=accounts.audit)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    database: Database = app.state.database
    await run_in_threadpool(database.migrate)
    await run_in_threadpool(app.state.authority.prepare, lambda said: click.echo(said, err=True))
    dagster = Dagster(app.state.dagit_url)
    reloader = Reloader(database, dagster)
    delivery = Delivery(database, webhook_publishers(app.state.settings))
    app.state.bell = bell = Bell(database)
    app.state.end_streams = bell.stop
    app.state.children = children = Children(app.state.settings, database)
    keep = timedelta(days=app.state.settings.job_history_days)
    clean_up = partial(clean, database, app.state.objects, keep)
    app.state.duties = duties = [
        Duty(
            "placing",
            database,
            lambda: (expire(database), place_waiting(database)),
            [PLACING, ENDED],
            longest_round=30,
        ),
        Duty("launching", database, Launcher(database, dagster).round, [LAUNCHING, ENDED]),
        Duty("reloading", database, reloader.round, [PIPELINES], begin=reloader.forget),
        Duty("delivering", database, delivery.round, [CHANNEL]),
        Duty("cleaning", database, clean_up, [], SECONDS_BETWEEN_CLEANING),
    ]
    collector = ControlPlaneCollector(database, duties)
    app.state.registry.register(collector)
    for duty in duties:
        duty.start()
    try:
        yield
    finally:
        app.state.registry.unregister(collector)
        bell.stop()
        await children.close()
        for duty in duties:
            duty.stop()
        for duty in duties:
            await run_in_threadpool(duty.join)
        await run_in_threadpool(delivery.close)
        dagster.close()
        await run_in_threadpool(database.close)


def _not_ready(app: FastAPI) -> str | None:
    # It asks the database once a second, whether it leads or not.
    return app.state.duties[0].trouble


def _refusal(status: int) -> Any:
    async def told(_: Request, error: Exception) -> Response:
        return problem(status, str(error))

    return told
