"""Everything that happens, in the order in which it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sse_starlette import EventSourceResponse

from mlplatform.io.control_plane import events
from mlplatform.services.control_plane.auth import authorize
from mlplatform.services.control_plane.jobs import told
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Limit
from mlplatform.services.control_plane.requests import Stored
from mlplatform.services.control_plane.streams import last_heard, stream
from mlplatform.services.control_plane.views import EventView

router = APIRouter(prefix="/api/v1/events", tags=["events"], dependencies=[authorize("events:read")])


@router.get("")
def list_events(
    database: Stored,
    after: Annotated[int, Query(ge=0, le=2**62, description="The id of the last one seen")] = 0,
    limit: Limit = DEFAULT_LIMIT,
) -> list[EventView]:
    """The oldest first, behind `after`."""
    with database.transaction() as connection:
        return [EventView.model_validate(row) for row in events.after(connection, after, limit)]


@router.get(
    "/stream",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
def stream_events(
    request: Request,
    database: Stored,
    after: Annotated[int | None, Query(ge=0, le=2**62, description="Else from now on")] = None,
) -> EventSourceResponse:
    """As they happen; a client that was cut off goes on behind the header `Last-Event-ID`."""

    def read(position: int) -> tuple[Sequence[tuple[int, str, str]], bool]:
        with database.transaction() as connection:
            return told(connection, position), False

    with database.transaction() as connection:
        newest = events.newest(connection) if after is None else after
    return stream(request, events.CHANNEL, "", last_heard(request, newest), read)
