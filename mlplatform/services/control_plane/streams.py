"""Server-sent events: what happens, as it happens, from where a client has heard it last."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from sse_starlette import EventSourceResponse, ServerSentEvent

from mlplatform.errors import TransientError
from mlplatform.services.control_plane.bell import Bell
from mlplatform.services.refusals import Refused
from mlplatform.services.security import Authority, Principal, bearer

# So that what lies between does not think that nobody is there.
SECONDS_BETWEEN_PINGS = 15
# A stream outlives the token that it was opened with by so much.
SECONDS_BETWEEN_CHECKS = 60


def stream(
    request: Request,
    channel: str,
    payload: str,
    position: int,
    read: Callable[[int], tuple[Sequence[tuple[int, str, str]], bool]],
) -> EventSourceResponse:
    """Ends when nothing will follow, with an event `end`; and without one when the service ends, or when who
    listens may no more: then a client comes again with `Last-Event-ID`, and is told why it may not.

    Args:
        channel: with `payload`, what rings when there is more.
        position: behind which to begin.
        read: what there is behind a position (position, kind, JSON), and whether nothing will follow.
    """
    bell: Bell = request.app.state.bell

    async def told() -> AsyncIterator[ServerSentEvent]:
        behind = position
        checked = time.monotonic()
        with bell.heard(channel, payload) as rings:
            async for _ in rings:
                more = True
                while more and not bell.ending.is_set():
                    try:
                        if time.monotonic() - checked > SECONDS_BETWEEN_CHECKS:
                            if not await _may_listen(request):
                                return
                            checked = time.monotonic()
                        found, ended = await run_in_threadpool(read, behind)
                    except TransientError:
                        # The stream goes on where it is, when the database is back.
                        break
                    for behind, kind, data in found:
                        yield ServerSentEvent(data=data, event=kind, id=str(behind))
                    if ended and not found:
                        yield ServerSentEvent(data="{}", event="end")
                        return
                    more = bool(found)

    return EventSourceResponse(
        told(), ping=SECONDS_BETWEEN_PINGS, headers={"X-Accel-Buffering": "no"}, sep="\n"
    )


def last_heard(request: Request, after: int) -> int:
    """Where a client that was cut off goes on."""
    given: Any = request.headers.get("Last-Event-ID", "")
    return int(given) if given.isdecimal() and len(given) < 19 else after


async def _may_listen(request: Request) -> bool:
    authority: Authority = request.app.state.authority
    before: Principal = request.state.principal
    try:
        now = await authority.principal(bearer(dict(request.headers.raw)))
    except Refused:
        return False
    return now.scopes == before.scopes
