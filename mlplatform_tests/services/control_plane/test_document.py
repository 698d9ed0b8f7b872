"""The OpenAPI document says all that there is to say, and what is asked by it is answered by it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from click.testing import CliRunner

from mlplatform.cli.main import main
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.users import SCOPES
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane.app import application
from mlplatform.services.refusals import PROBLEM
from mlplatform_tests.services.control_plane.guards import METHODS
from mlplatform_tests.services.control_plane.secured import REQUIRED
from mlplatform_tests.services.control_plane.serving import client_of, command, listening, settings_of
from mlplatform_tests.services.test_documents import ask

TOKEN = "a token that may do everything"
EXAMPLES = 2
# What they take that nobody knows is passed over, as OAuth 2 says.
OAUTH = {"/api/v1/auth/login", "/api/v1/auth/refresh"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    printed = CliRunner().invoke(main, ["openapi", "api"])
    assert printed.exit_code == 0, printed.output
    return json.loads(printed.output)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield f"{method} {path}", operation


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema of each object that is taken as JSON, with the examples that are beside it."""
    for name, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content or name.split()[1] in OAUTH:
            continue
        schema = content["application/json"]["schema"]
        for each in schema.get("anyOf", [schema]):
            if "$ref" in each:
                beside = each.get("examples")
                named = document["components"]["schemas"][each["$ref"].split("/")[-1]]
                yield name, {"examples": beside, **named}


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    found = dict(operations(document))
    assert len(found) > 50
    assert [name for name, each in found.items() if not (each.get("summary") and each.get("tags"))] == []
    assert [
        count for count in Counter(each["operationId"] for each in found.values()).values() if count > 1
    ] == []


def test_every_refusal_is_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        refusals = {code: each for code, each in operation["responses"].items() if code[0] in "45"}
        assert {"422", "500", "503"} <= set(refusals), name
        assert [code for code, each in refusals.items() if PROBLEM not in each["content"]] == [], name


def test_every_body_has_an_example_and_knows_its_fields(document: dict[str, Any]) -> None:
    found = list(bodies(document))
    assert len(found) > 10
    for name, schema in found:
        assert schema.get("additionalProperties") is False, name
        assert schema.get("examples"), name


def test_scopes_are_those_that_there_are(document: dict[str, Any]) -> None:
    flow = document["components"]["securitySchemes"]["login"]["flows"]["password"]
    assert flow["scopes"] == SCOPES
    asked = {
        scope
        for _, operation in operations(document)
        for scheme in operation.get("security", [])
        for scopes in scheme.values()
        for scope in scopes
    }
    assert asked == set(SCOPES)


def test_nothing_that_is_asked_makes_it_fail(
    stack: RunningStack, kept_database: Database, cheap_passwords: None
) -> None:
    tokens = {hashlib.sha256(TOKEN.encode()).hexdigest(): sorted(SCOPES)}
    variables = {**REQUIRED, "MLPLATFORM_API_TOKENS": json.dumps(tokens)}
    app = application(settings_of(stack, kept_database, **variables))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with listening(app) as address, client_of(address, **headers) as client:
        pipeline = client.post("/api/v1/pipelines", json={"name": "known"}).json()
        job = client.post("/api/v1/jobs", json=command()).json()
        [execution] = client.get(f"/api/v1/jobs/{job['id']}/executions").json()
        # Parts of paths that lead somewhere, which nobody finds by chance.
        known = {"pipeline_id": pipeline["id"], "job_id": job["id"], "execution_id": execution["id"]}
        known["worker_id"] = client.post("/api/v1/workers", json={}).json()["id"]
        schedule = client.post("/api/v1/schedules", json={**command(), "due_at": "2100-01-01T00:00:00Z"})
        known["schedule_id"] = schedule.json()["id"]
        # Nobody listens there.
        webhook = client.post("/api/v1/webhooks", json={"url": "http://127.0.0.1:9/"}).json()
        known["webhook_id"] = webhook["id"]
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        # Streams have no end, and a log-in takes its time.
        found = schema.exclude(path_regex="/stream$|/auth/login$").get_all_operations()
        asked = [ask(each.ok(), known, headers, EXAMPLES) for each in found]
    assert len(asked) > 50
