"""An application with a few routes, for tests of what all services have in common."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

from mlplatform.errors import TransientError
from mlplatform.services import logs
from mlplatform.services.app import create_app
from mlplatform.services.refusals import Refused
from mlplatform.services.security import scope
from mlplatform.services.server import Service, listening, serve
from mlplatform.settings import Settings

SECRET = "what only the log may say"


class Thing(BaseModel):
    value: float
    name: str = "thing"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.open = True
    yield
    app.state.open = False


def application(**variables: str) -> FastAPI:
    app = create_app(
        "Things",
        "For tests",
        Settings(variables),
        lifespan,
        lambda app: None if app.state.open else "not open yet; wait",
    )

    @app.get("/things/{name}", dependencies=[scope("things:read")])
    async def read(name: str) -> str:
        return name

    @app.post("/things", dependencies=[scope("things:write")])
    async def write(thing: Thing) -> Thing:
        return thing

    @app.get("/refused")
    async def refused() -> None:
        raise Refused(409, "there is one already; name another", {"Retry-After": "7"})

    @app.get("/transient")
    async def transient() -> None:
        raise TransientError("the store is away; try again")

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError(SECRET)

    return app


def main() -> None:
    """Serves it on a free port, whose address goes to stderr, as `mlplatform serve` does."""
    logs.configure("things")
    services = [Service("things", application(), 0)]
    with listening(services, "127.0.0.1") as sockets:
        print(f"http://127.0.0.1:{sockets['things'].getsockname()[1]}", file=sys.stderr, flush=True)
        if not serve(services, sockets):
            sys.exit(1)
