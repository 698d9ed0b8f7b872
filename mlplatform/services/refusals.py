"""Replies that are no success, in one shape: `detail` says what is wrong, and the remedy."""

from __future__ import annotations

import logging
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

log = logging.getLogger(__name__)

DETAIL = {
    "type": "object",
    "properties": {"detail": {"description": "What is wrong, and the remedy"}},
    "required": ["detail"],
}


def documented(text: str) -> dict[str, Any]:
    """A refusal as the document of an interface has it."""
    return {"description": text, "content": {"application/json": {"schema": DETAIL}}}


class Refused(HTTPException):
    """A reply that is no success: its status, and what the client is told."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


def refusal(refused: Refused) -> JSONResponse:
    return JSONResponse({"detail": refused.detail}, refused.status_code, headers=refused.headers)


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's reply, without what was sent: it may be NaN, which JSON has no word for, or a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - handlers are typed for any exception
    problems = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": problems}, 422)


async def unavailable(_: Request | None, error: Exception) -> JSONResponse:
    log.error("%s", error)
    return refusal(Refused(503, str(error), {"Retry-After": "1"}))


def failed() -> JSONResponse:
    said = {"detail": "the service failed; its log says why", "correlation_id": correlation_id.get()}
    return JSONResponse(said, 500)
