"""The audit log: each write that succeeded becomes a row, which those who may can read."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated

from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlplatform.io.control_plane.audit import Actor, AuditLog
from mlplatform.services.control_plane.auth import PREFIX, accounts_of, authorize
from mlplatform.services.control_plane.pages import DEFAULT_LIMIT, Limit, link_next
from mlplatform.services.security import Principal

READS = {"GET", "HEAD", "OPTIONS"}

log = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v1/audit", tags=["security"])


class Audited:
    """Adds the row of a write once it is answered, so that nobody waits for it.

    Writes below /api/v1/auth are left out: their rows are kept in the transactions that make them.
    """

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READS or scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            if status < 400:
                await self._add(scope)

    async def _add(self, scope: Scope) -> None:
        # Where the route asked for nobody, nobody is known.
        principal: Principal | None = scope.get("state", {}).get("principal")
        who = Actor(
            principal.id if principal else "",
            principal.name if principal else "unknown",
            correlation_id.get() or "",
            (scope["client"] or ("",))[0],
        )
        method, path = scope["method"], scope["path"]
        try:
            await run_in_threadpool(self._audit.add, who, method, path)
        except BaseException as error:
            log.exception("the audit log has no row of: %s %s by %s (%s)", method, path, who.name, who.id)
            # The client has its answer.
            if not isinstance(error, Exception):
                raise


class AuditRead(BaseModel):
    id: int
    at: datetime
    principal_id: str
    principal: str
    action: str
    target: str
    outcome: str
    request_id: str
    address: str


@router.get("", dependencies=[authorize("audit:read")])
def list_audit(
    request: Request,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Annotated[int | None, Query(ge=0, le=2**62, description="From the header `Link`")] = None,
) -> list[AuditRead]:
    """Who did what, the newest first."""
    page = accounts_of(request).audit.page(limit + 1, cursor)
    if len(page) > limit:
        link_next(request, response, page[limit - 1].id)
    return [AuditRead.model_validate(row, from_attributes=True) for row in page[:limit]]
