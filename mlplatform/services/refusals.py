"""Replies that are no success, in the shape of RFC 9457: `detail` says what is wrong, and the remedy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from asgi_correlation_id import correlation_id
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"description": "What is wrong, and the remedy"},
        "correlation_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}


def documented(text: str) -> dict[str, Any]:
    """A refusal as the document of an interface has it."""
    return {"description": text, "content": {PROBLEM: {"schema": SCHEMA}}}


class Refused(HTTPException):
    """A reply that is no success: its status, and what the client is told."""

    def __init__(
        self, status: int, detail: str | list[dict[str, Any]], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)


def problem(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> JSONResponse:
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if request_id := correlation_id.get():
        told["correlation_id"] = request_id
    return JSONResponse(told, status, headers, PROBLEM)


def refusal(refused: AnyHTTPException) -> JSONResponse:
    return problem(refused.status_code, refused.detail, refused.headers)


async def refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)  # noqa: S101 - handlers are typed for any exception
    return refusal(error)


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's detail, without what was sent: it may be NaN, which JSON has no word for, or a secret."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - handlers are typed for any exception
    return problem(422, [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()])


async def unavailable(_: Request | None, error: Exception) -> JSONResponse:
    log.error("%s", error)
    return refusal(Refused(503, str(error), {"Retry-After": "1"}))


def failed() -> JSONResponse:
    return problem(500, "the service failed; its log says why, under the correlation id")
