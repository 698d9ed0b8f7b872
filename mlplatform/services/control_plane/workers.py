"""Workers over HTTP: who is there, and what becomes of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from mlplatform.io.control_plane import tables, workers
from mlplatform.services.control_plane.auth import Authorized, authorize
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit, rows_of_page
from mlplatform.services.control_plane.requests import IdempotencyKey, Stored, once
from mlplatform.services.control_plane.views import WorkerRequest, WorkerView
from mlplatform.services.refusals import documented
from mlplatform.services.security import Principal

READ, WRITE = "workers:read", "workers:write"
UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such worker")}
ENDED: dict[int | str, dict[str, Any]] = {409: documented("It has ended: register again")}

router = APIRouter(prefix="/api/v1/workers", tags=["workers"])


@router.post("", response_model=WorkerView, dependencies=[authorize(WRITE)])
def register_worker(
    request: Request, asked: WorkerRequest, principal: Authorized, idempotency_key: IdempotencyKey = None
) -> Response:
    """Tells of a worker, which lives as long as its heartbeats come.

    Work is given to those that `mlplatform worker start` makes: they also take it.
    """
    return once(
        request, asked, idempotency_key, 200, lambda connection: registered(connection, asked, principal)
    )


def registered(connection: Connection, asked: WorkerRequest, principal: Principal) -> WorkerView:
    return WorkerView.model_validate(
        workers.register(
            connection,
            asked.name or asked.type,
            asked.capabilities,
            kind=asked.type,
            timeout_seconds=asked.timeout_seconds,
            created_by=principal.name,
        )
    )


@router.get("", dependencies=[authorize(READ)])
def list_workers(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> list[WorkerView]:
    """The newest first."""
    order = (tables.workers.c.registered_at, tables.workers.c.id)
    found = rows_of_page(request, response, database, workers.view(), order, limit, cursor)
    return [WorkerView.model_validate(row) for row in found]


@router.get("/{worker_id}", dependencies=[authorize(READ)], responses=UNKNOWN)
def get_worker(database: Stored, worker_id: UUID) -> WorkerView:
    with database.transaction() as connection:
        return WorkerView.model_validate(workers.get(connection, worker_id))


@router.post("/{worker_id}/heartbeat", dependencies=[authorize(WRITE)], responses=UNKNOWN | ENDED)
def beat(database: Stored, worker_id: UUID) -> WorkerView:
    """It is alive."""
    with database.transaction() as connection:
        return WorkerView.model_validate(workers.heartbeat(connection, worker_id))


@router.post("/{worker_id}/drain", dependencies=[authorize(WRITE)], responses=UNKNOWN | ENDED)
def drain_worker(database: Stored, worker_id: UUID) -> WorkerView:
    """It ends what it has, is given nothing more, and then ends."""
    with database.transaction() as connection:
        return WorkerView.model_validate(workers.drain(connection, worker_id))


@router.delete("/{worker_id}", dependencies=[authorize(WRITE)], responses=UNKNOWN)
def stop_worker(database: Stored, worker_id: UUID) -> WorkerView:
    """It ends at once; what it has is given to others."""
    workers.stop(database, worker_id)
    with database.transaction() as connection:
        return WorkerView.model_validate(workers.get(connection, worker_id))
