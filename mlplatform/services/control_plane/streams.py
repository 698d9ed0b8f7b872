"""Server-sent events: what happens, as it happens, from where a client has heard it last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from sse_starlette import EventSourceResponse, ServerSentEvent

from mlplatform.errors import TransientError
from mlplatform.services.control_plane.bell import Bell

# So that what lies between does not think that nobody is there.
SECONDS_BETWEEN_PINGS = 15


def stream(
    request: Request,
    channel: str,
    payload: str,
    position: int,
    read: Callable[[int], tuple[Sequence[tuple[int, str, str]], bool]],
) -> EventSourceResponse:
    """
    Args:
        channel: with `payload`, what rings when there is more.
        position: behind which to begin.
        read: what there is behind a position (position, kind, JSON), and whether nothing will follow.
    """
    bell: Bell = request.app.state.bell

    async def told() -> AsyncIterator[ServerSentEvent]:
        behind = position
        while not bell.ending.is_set():
            try:
                found, ended = await run_in_threadpool(read, behind)
            except TransientError:
                # The stream goes on where it is, when the database is back.
                found, ended = (), False
            for behind, kind, data in found:
                yield ServerSentEvent(data=data, event=kind, id=str(behind))
            if ended and not found:
                yield ServerSentEvent(data="{}", event="end")
                return
            if not found:
                await bell.wait(channel, payload)

    return EventSourceResponse(
        told(), ping=SECONDS_BETWEEN_PINGS, headers={"X-Accel-Buffering": "no"}, sep="\n"
    )


def last_heard(request: Request, after: int) -> int:
    """Where a client that was cut off goes on."""
    given: Any = request.headers.get("Last-Event-ID", "")
    return int(given) if given.isdecimal() and len(given) < 19 else after
