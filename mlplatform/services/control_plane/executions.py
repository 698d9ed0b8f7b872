"""Executions, the attempts of jobs, over HTTP: their logs, and what they left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection, RowMapping, select
from sse_starlette import EventSourceResponse

from mlplatform.domain.jobs.states import TERMINAL, State
from mlplatform.io.control_plane import executions, log_lines, tables
from mlplatform.io.object_store import ObjectStore
from mlplatform.services.control_plane.auth import authorize
from mlplatform.services.control_plane.jobs import READ
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Cursor, Limit, link_next, rows_of_page
from mlplatform.services.control_plane.requests import Stored
from mlplatform.services.control_plane.streams import last_heard, stream
from mlplatform.services.control_plane.views import ArtefactView, ExecutionView, LogLine, LogView
from mlplatform.services.refusals import Refused, documented

UNKNOWN: dict[int | str, dict[str, Any]] = {404: documented("There is no such execution")}

router = APIRouter(prefix="/api/v1/executions", tags=["executions"], dependencies=[authorize(READ)])


@router.get("")
def list_executions(
    request: Request,
    response: Response,
    database: Stored,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    status: State | None = None,
    worker_id: UUID | None = None,
) -> list[ExecutionView]:
    """The newest first."""
    query = select(tables.executions)
    if status is not None:
        query = query.where(tables.executions.c.status == status)
    if worker_id is not None:
        query = query.where(tables.executions.c.worker_id == worker_id)
    order = (tables.executions.c.created_at, tables.executions.c.id)
    found = rows_of_page(request, response, database, query, order, limit, cursor)
    return [ExecutionView.model_validate(row) for row in found]


@router.get("/{execution_id}", responses=UNKNOWN)
def get_execution(database: Stored, execution_id: UUID) -> ExecutionView:
    with database.transaction() as connection:
        return ExecutionView.model_validate(executions.get(connection, execution_id))


@router.get("/{execution_id}/logs", responses=UNKNOWN)
def get_logs(
    request: Request,
    response: Response,
    database: Stored,
    execution_id: UUID,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="The number of the last one seen")] = -1,
    limit: Limit = 1000,
) -> LogView:
    """What the command has written, line by line; the next lines are in the header `Link`."""
    with database.transaction() as connection:
        executions.get(connection, execution_id)
        found = log_lines.after(connection, execution_id, after, limit)
    if len(found) == limit:
        link_next(request, response, found[-1]["number"], name="after")
    return LogView(execution_id=execution_id, logs=[LogLine.of(line) for line in found])


@router.get(
    "/{execution_id}/logs/stream",
    response_class=EventSourceResponse,
    responses=UNKNOWN | {200: {"content": {"text/event-stream": {}}}},
)
def stream_logs(
    request: Request,
    database: Stored,
    execution_id: UUID,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1)] = -1,
) -> EventSourceResponse:
    """Line by line as they are written, until the command has ended; begins behind `Last-Event-ID`."""
    with database.transaction() as connection:
        executions.get(connection, execution_id)

    def read(position: int) -> tuple[Sequence[tuple[int, str, str]], bool]:
        with database.transaction() as connection:
            ended = State(executions.get(connection, execution_id)["status"]) in TERMINAL
            found = log_lines.after(connection, execution_id, position)
        return [(line["number"], "log", LogLine.of(line).model_dump_json()) for line in found], ended

    return stream(request, log_lines.CHANNEL, str(execution_id), last_heard(request, after), read)


@router.get("/{execution_id}/artefacts", responses=UNKNOWN)
def list_artefacts(database: Stored, execution_id: UUID) -> list[ArtefactView]:
    """The files that the command left in the folder `$MLPLATFORM_ARTEFACTS`."""
    with database.transaction() as connection:
        executions.get(connection, execution_id)
        return [ArtefactView.model_validate(row) for row in _artefacts(connection, execution_id)]


@router.get(
    "/{execution_id}/artefacts/{path:path}",
    response_class=Response,
    responses={404: documented("There is no such file"), 200: {"content": {"application/octet-stream": {}}}},
)
def get_artefact(request: Request, database: Stored, execution_id: UUID, path: str) -> Response:
    """One of the files."""
    with database.transaction() as connection:
        found = [row for row in _artefacts(connection, execution_id) if row["path"] == path]
    if not found:
        raise Refused(404, f"execution {execution_id} left no file {path!r}")
    [artefact] = found
    store: ObjectStore = request.app.state.objects
    name = quote(path.rpartition("/")[2])
    return StreamingResponse(
        store.chunks(artefact["key"]),
        media_type="application/octet-stream",
        # Never shown in a page: whoever wrote it is not us.
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "Content-Length": str(artefact["bytes"]),
            "ETag": f'"{artefact["sha256"]}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _artefacts(connection: Connection, execution_id: UUID) -> Sequence[RowMapping]:
    artefact = tables.artefacts
    query = select(artefact).where(artefact.c.execution_id == execution_id).order_by(artefact.c.path)
    return connection.execute(query).mappings().all()
