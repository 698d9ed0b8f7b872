"""What routes have in common: the database, answers that are given once, and pages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Connection

from mlplatform.io.control_plane import idempotency
from mlplatform.io.control_plane.database import Database
from mlplatform.services.refusals import Refused

# As the W3C writes it.
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def _database(request: Request) -> Database:
    return request.app.state.database


Stored = Annotated[Database, Depends(_database)]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=200, description="The same key again gets the first answer, for a day."),
]


def traceparent_of(request: Request) -> str | None:
    """The trace that what a request leads to belongs to: its own span's, or that of whoever asks."""
    given = getattr(request.state, "traceparent", None) or request.headers.get("traceparent", "")
    return given if TRACEPARENT.fullmatch(given) else None


def once(
    request: Request, body: Any, key: str | None, status: int, make: Callable[[Connection], Any]
) -> Response:
    """Answers a request with what `make` gives; under a key, only once.

    Args:
        body: what was asked, as it was understood.
        make: changes the database, and gives what is answered; both are kept together.

    Raises:
        Refused: 422, the key was used for something else.
    """
    database: Database = request.app.state.database
    if key is None:
        with database.transaction() as connection:
            content = jsonable_encoder(make(connection))
        return JSONResponse(content, status)
    asked = f"{request.method} {request.url.path} {json.dumps(body, sort_keys=True, default=_plain)}"
    digest = hashlib.sha256(asked.encode()).digest()
    principal = request.state.principal.id
    with database.transaction() as connection:
        if first := idempotency.first_answer(connection, principal, key):
            if first.digest != digest:
                raise Refused(422, f"the Idempotency-Key {key!r} was used for another request")
            return JSONResponse(first.body, first.status, {"Idempotent-Replayed": "true"})
        content = jsonable_encoder(make(connection))
        idempotency.remember(connection, principal, key, digest, status, content)
    return JSONResponse(content, status)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    # Sets have another order in each process.
    return sorted(value) if isinstance(value, frozenset) else str(value)
