"""What `curl` sends works, and what a stranger's web page makes a browser send does not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform_tests.services.control_plane.secured import REQUIRED
from mlplatform_tests.services.control_plane.serving import ADDRESS, command, control_plane

FORM = "application/x-www-form-urlencoded"
JOBS = "/api/v1/jobs"
BODY = json.dumps(command())
STREAM = "/api/v1/events/stream"


@pytest.fixture(scope="module")
def client(stack: RunningStack, kept_database: Database) -> Iterator[TestClient]:
    with control_plane(stack, kept_database, MLPLATFORM_CORS_ORIGINS="https://console.example, *") as client:
        yield client


@pytest.mark.parametrize("kind", [None, FORM, f"{FORM}; charset=utf-8", "application/json"])
def test_json_needs_no_content_type(client: TestClient, kind: str | None) -> None:
    answer = client.post(JOBS, content=BODY, headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, answer.json()["name"]) == (201, "hello")


@pytest.mark.parametrize("body", ["name=hello", "", "null", "\xff"])
def test_what_is_no_json_is_refused(client: TestClient, body: str) -> None:
    answer = client.post(JOBS, content=body.encode("latin-1"), headers={"Content-Type": FORM})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_called_something_else_is_none(client: TestClient) -> None:
    # Also what a page can send without asking first.
    assert client.post(JOBS, content=BODY, headers={"Content-Type": "text/plain"}).status_code == 422


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:8080"},  # not the name that was asked
    {"Origin": "http://127.0.0.1:3000"},  # another program of this machine
    {"Origin": "https://console.example.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
]
OWN = [
    {},
    {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://console.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "HTTPS://Console.example"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_a_stranger_changes_nothing(client: TestClient, headers: dict[str, str]) -> None:
    before = client.get(JOBS).json()
    answer = client.post(JOBS, content=BODY, headers={"Content-Type": FORM, **headers})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert "may change nothing" in answer.json()["detail"]
    # Counted, logged and numbered like any other.
    assert answer.json()["correlation_id"] == answer.headers["x-request-id"]
    assert client.get(JOBS).json() == before
    for method in ("PUT", "PATCH", "DELETE"):
        assert client.request(method, f"{JOBS}/1", headers=headers).status_code == 403


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_its_own_pages_and_those_that_are_named_may(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post(JOBS, content=BODY, headers=headers).status_code == 201


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.2:8080", "", "[", "::1"]
)
@pytest.mark.parametrize("path", [JOBS, STREAM, "/openapi.json", "/health"])
def test_a_name_that_leads_here_is_not_this_machine(client: TestClient, host: str, path: str) -> None:
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert "MLPLATFORM_AUTHENTICATION=required" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:1", "[::1]:8080"])
def test_names_of_this_machine_are_taken(client: TestClient, host: str) -> None:
    assert client.get(JOBS, headers={"Host": host}).status_code == 200


def test_where_tokens_are_needed_it_has_any_name(stack: RunningStack, kept_database: Database) -> None:
    variables = {**REQUIRED, "MLPLATFORM_CORS_ORIGINS": "*"}
    with control_plane(stack, kept_database, **variables) as client:
        for path in (JOBS, STREAM):
            assert client.get(path, headers={"Host": "control.example"}).status_code == 401
        # The token is what a page does not have.
        assert client.post(JOBS, headers={"Origin": "https://any.example"}).status_code == 401
