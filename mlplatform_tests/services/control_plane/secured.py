"""An application that is nothing but secured, and those who come to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.users import PLATFORM, SCOPES, Users
from mlplatform.services.app import create_app
from mlplatform.services.control_plane import audit, auth, users
from mlplatform.services.control_plane.accounts import Accounts
from mlplatform.services.control_plane.audit import Audited
from mlplatform.services.control_plane.auth import authorize
from mlplatform.services.refusals import Refused
from mlplatform.settings import Settings

PASSWORD = "correct horse battery"
KEY = "the key of the tests, of 32 bytes"
REQUIRED = {"MLPLATFORM_AUTHENTICATION": "required", "MLPLATFORM_JWT_KEY": KEY}


def application(
    database: Database, show: Callable[[str], None] = lambda _: None, **variables: str
) -> FastAPI:
    """With two routes of its own: `/api/v1/jobs` to read and to write."""
    settings = Settings({**REQUIRED, **variables})
    accounts = Accounts(settings, database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        accounts.prepare(show)
        yield

    app = create_app("Control plane", "For tests", settings, lifespan, lambda _: None, accounts)
    for router in (auth.router, users.router, audit.router):
        app.include_router(router)
    app.add_middleware(Audited, audit=accounts.audit)

    @app.get("/api/v1/jobs", dependencies=[authorize("jobs:read")])
    def list_jobs() -> list[str]:
        return []

    @app.post("/api/v1/jobs", status_code=201, dependencies=[authorize("jobs:write")])
    def create_job(name: str = "") -> str:
        if name == "taken":
            raise Refused(409, "taken")
        return name

    return app


def create_user(
    database: Database, name: str, scopes: Collection[str] = tuple(SCOPES), password: str = PASSWORD
) -> None:
    Users(database).create(name, password, scopes, PLATFORM)


def log_in(client: TestClient, name: str, password: str = PASSWORD, scope: str = "") -> httpx.Response:
    return client.post("/api/v1/auth/login", json={"username": name, "password": password, "scope": scope})


def bearer(response: httpx.Response | str) -> dict[str, str]:
    token = response if isinstance(response, str) else response.json()["access_token"]
    return {"Authorization": f"Bearer {token}"}
