"""No route can be forgotten: each asks for a token and a scope, or is in a short list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane.app import application
from mlplatform.services.control_plane.auth import authorize
from mlplatform.settings import Settings
from mlplatform_tests.services.control_plane.guards import FOR_ALL_WHO_ARE_KNOWN, PUBLIC, routes, unguarded
from mlplatform_tests.services.control_plane.secured import REQUIRED, bearer, create_user, log_in

pytestmark = pytest.mark.usefixtures("cheap_passwords")


@pytest.fixture
def app(stack: RunningStack, database: Database) -> FastAPI:
    # Who has nothing may log in.
    create_user(database, "poor", [])
    # Nobody listens there: Dagit is not asked for anything.
    dagit = {"MLPLATFORM_DAGIT_URL": "http://127.0.0.1:9"}
    schema = {"MLPLATFORM_CONTROL_PLANE_SCHEMA": database.schema}
    return application(Settings({**stack.variables, **REQUIRED, **schema, **dagit}))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def wrong(client: TestClient) -> list[str]:
    return list(unguarded(client, bearer(log_in(client, "poor"))))


def test_each_route_asks_for_a_token_and_a_scope(client: TestClient) -> None:
    assert len(routes(client)) > 10
    assert wrong(client) == []


def test_the_lists_of_exceptions_name_what_is_there(client: TestClient) -> None:
    there = {(method, path) for method, path, _ in routes(client)}
    missing = (PUBLIC | FOR_ALL_WHO_ARE_KNOWN) - there
    # The pages of the document are not in it.
    assert {method for method, _ in missing} == {"get"}
    assert {client.get(path).status_code for _, path in missing} == {200}


def test_a_route_that_was_forgotten_is_found(app: FastAPI, client: TestClient) -> None:
    @app.get("/api/v1/open/{name}")
    def open_() -> None: ...

    @app.get("/api/v1/known", dependencies=[authorize()])
    def known() -> None: ...

    app.openapi_schema = None
    assert wrong(client) == [
        "get /api/v1/open/{name} answers 200 without a token",
        "get /api/v1/open/{name} does not say in the document that it needs a token",
        "get /api/v1/open/{name} answers 200 to a token without a scope",
        "get /api/v1/known answers 200 to a token without a scope",
    ]
