"""The client and the OpenAPI document say the same, of every route that the client uses."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from mlplatform.client import Client
from mlplatform.client import models as m
from mlplatform.domain.jobs.specs import JobSpec, PipelineSpec
from mlplatform.domain.jobs.states import State
from mlplatform.services.control_plane.app import application
from mlplatform.settings import Settings
from mlplatform_tests.client.documented import Document, Undocumented
from mlplatform_tests.local.processes import S3_ELSEWHERE

ID = UUID("6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55")
SPEC: dict[str, Any] = {
    "command": ["echo", "hello"],
    "name": "hello",
    "image": "python:3.11",
    "resources": m.Resources(cpu_m=500, memory_mb=64, gpu=1),
    "features": ["cuda-12"],
    "timeout_ms": 60_000,
    "retries": 1,
    "env": {"A": "1"},
    "secret_refs": ["token"],
    "priority": 5,
    "key": "once",
}
PIPELINE: dict[str, Any] = {
    "name": "nightly",
    "description": "all of it",
    "stages": [
        {"name": "fetch", "commands": ["echo fetching"], "resources": {"cpu": 0.5, "memory": 1024}},
        {"name": "train", "commands": ["echo training"], "dependencies": ["fetch"], "timeout_ms": 60_000},
    ],
    "environment": {"A": "1"},
    "triggers": [{"schedule": {"cron": "0 2 * * *"}}, "manual"],
}
COMMAND = JobSpec(
    name="hello", command=["echo", "hello"], image="python:3.11", features=frozenset({"cuda-12"})
)
WHEN: dict[str, Any] = {
    "name": "nightly",
    "cron": "0 2 * * *",
    "timezone": "Europe/Berlin",
    "due_at": datetime(2030, 1, 31, 12, tzinfo=UTC),
    "paused": True,
    "priority": 5,
}
# Each method with all of its arguments, and what the events of its streams are.
CALLS: dict[str, dict[str, Any]] = {
    "login": {"username": "ada", "password": "correct horse"},
    "logout": {},
    "me": {},
    "jobs.create": SPEC,
    "jobs.get": {"job_id": ID},
    "jobs.list": {"status": State.FAILED, "pipeline_id": ID, "page_size": 10},
    "jobs.status": {"job_id": ID},
    "jobs.wait": {"job_id": ID, "timeout": 1},
    "jobs.cancel": {"job_id": ID},
    "jobs.retry": {"job_id": ID},
    "jobs.executions": {"job_id": ID},
    "jobs.logs": {"job_id": ID},
    "jobs.events": {"job_id": ID, "after": 3},
    "jobs.follow_events": {"job_id": ID, "after": 3},
    "executions.get": {"execution_id": ID},
    "executions.list": {"status": State.RUNNING, "worker_id": ID, "page_size": 10},
    "executions.logs": {"execution_id": ID, "after": 3},
    "executions.follow_logs": {"execution_id": ID, "after": 3},
    "executions.artefacts": {"execution_id": ID},
    "executions.artefact": {"execution_id": ID, "path": "plots/loss.png"},
    "workers.list": {"page_size": 10},
    "workers.get": {"worker_id": ID},
    "workers.drain": {"worker_id": ID},
    "workers.stop": {"worker_id": ID},
    "events.list": {"after": 3},
    "events.follow": {"after": 3},
    "pipelines.create": {"pipeline": PIPELINE, "key": "once"},
    "pipelines.validate": {"pipeline": PIPELINE},
    "pipelines.list": {"page_size": 10},
    "pipelines.get": {"pipeline_id": ID},
    "pipelines.replace": {"pipeline_id": ID, "pipeline": PipelineSpec.model_validate(PIPELINE)},
    "pipelines.delete": {"pipeline_id": ID},
    "pipelines.run": {"pipeline_id": ID, "name": "nightly", "env": {"A": "1"}, "priority": 1, "key": "once"},
    "schedules.create": {"what": COMMAND, **WHEN, "key": "once"},
    "schedules.list": {"pipeline_id": ID, "page_size": 10},
    "schedules.get": {"schedule_id": ID},
    "schedules.replace": {"schedule_id": ID, "what": ID, **WHEN},
    "schedules.pause": {"schedule_id": ID},
    "schedules.resume": {"schedule_id": ID},
    "schedules.delete": {"schedule_id": ID},
    "webhooks.create": {"url": "https://example.org/hook", "types": ["job.*"], "after": 3},
    "webhooks.list": {"page_size": 10},
    "webhooks.get": {"webhook_id": ID},
    "webhooks.change": {
        "webhook_id": ID,
        "url": "https://example.org",
        "types": ["job.failed"],
        "paused": True,
    },
    "webhooks.delete": {"webhook_id": ID},
    "webhooks.test": {"webhook_id": ID},
    "webhooks.rotate": {"webhook_id": ID},
}
STREAMS = {
    "jobs.follow_events": m.Event,
    "events.follow": m.Event,
    "executions.follow_logs": m.LogLine,
}
# Made of others.
COMPOSED = {"close", "jobs.follow_logs"}
# What the client leaves to those who administer, to workers, and to those who watch.
WITHOUT_METHOD = {
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("POST", "/api/v1/auth/service-tokens"),
    ("GET", "/api/v1/auth/users"),
    ("POST", "/api/v1/auth/users"),
    ("PATCH", "/api/v1/auth/users/{name}"),
    ("DELETE", "/api/v1/auth/users/{name}"),
    ("GET", "/api/v1/audit"),
    ("POST", "/api/v1/workers"),
    # Other words for schedules, jobs and their executions.
    ("POST", "/api/v1/schedule"),
    ("GET", "/api/v1/scheduled"),
    ("GET", "/api/v1/scheduled/{schedule_id}"),
    ("GET", "/api/v1/pipelines/{pipeline_id}/jobs"),
    ("POST", "/api/v1/execute"),
    ("POST", "/api/v1/workers/{worker_id}/heartbeat"),
}


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    # Neither is asked for a document.
    nowhere = {"MLPLATFORM_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/nothing", **S3_ELSEWHERE}
    return application(
        Settings({**nowhere, "MLPLATFORM_JWT_KEY": "the key of the tests, of 32 bytes"})
    ).openapi()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("MLPLATFORM_TOKEN", raising=False)
    with Client("http://on.paper", patience=0) as client:
        yield client


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Document]:
    """Lets clients ask a document."""

    def ask(written: Any) -> Document:
        document = Document(written)
        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", lambda _, asked: document.answer(asked))
        return document

    return ask


def method(client: Client, name: str) -> Callable[..., Any]:
    found: Any = client
    for part in name.split("."):
        found = getattr(found, part)
    return found


def call(client: Client, name: str) -> None:
    answer = method(client, name)(**CALLS[name])
    if isinstance(answer, Iterator):
        assert list(answer)


def methods(client: Client) -> set[str]:
    """All that a program may call."""
    own = {name for name, _ in inspect.getmembers(client, inspect.ismethod) if not name.startswith("_")}
    groups = {name: group for name, group in vars(client).items() if not name.startswith("_")}
    return own | {
        f"{name}.{each}"
        for name, group in groups.items()
        for each, _ in inspect.getmembers(group, inspect.ismethod)
        if not each.startswith("_")
    }


def answered(function: Callable[..., Any]) -> Any:
    """What a method reads from an answer: of those that give rows one by one, a list."""
    hint = typing.get_type_hints(function)["return"]
    if typing.get_origin(hint) in (Iterator, Sequence):
        return list[typing.get_args(hint)[0]]
    return hint


def test_each_method_is_tried_with_all_of_its_arguments(client: Client) -> None:
    assert methods(client) - COMPOSED == CALLS.keys()
    for name, arguments in CALLS.items():
        assert inspect.signature(method(client, name)).parameters.keys() == arguments.keys(), name


@pytest.mark.parametrize("name", CALLS)
def test_the_document_allows_what_a_method_asks_for(
    name: str, client: Client, asked_of: Callable[[Any], Document], written: Any
) -> None:
    document = asked_of(written)
    document.streamed = STREAMS.get(name)
    call(client, name)
    assert document.asked


# Those whose answer is more than what one route gives, or no JSON.
READ_ELSEWHERE = {
    "login",
    "logout",
    "jobs.status",
    "jobs.wait",
    "jobs.logs",
    "executions.logs",
    "executions.artefact",
    "pipelines.delete",
    "schedules.delete",
    "webhooks.delete",
}


@pytest.mark.parametrize("name", sorted(CALLS.keys() - READ_ELSEWHERE - STREAMS.keys()))
def test_the_document_promises_what_a_method_reads(
    name: str, client: Client, asked_of: Callable[[Any], Document], written: Any
) -> None:
    document = asked_of(written)
    call(client, name)
    [(verb, path)] = document.asked
    schema = document.schema_of_answer(verb, path)
    assert list(document.differences(answered(method(client, name)), schema, name)) == []


@pytest.mark.parametrize(
    ("read", "documented"),
    [(m.Log, "LogView"), (m.LogLine, "LogLine"), (m.JobStatus, "StatusView"), (m.Event, "EventView")],
)
def test_the_document_promises_what_is_read_by_the_way(read: Any, documented: str, written: Any) -> None:
    schema = written["components"]["schemas"][documented]
    assert list(Document(written).differences(read, schema, documented)) == []


def test_routes_without_a_method_are_known(
    client: Client, asked_of: Callable[[Any], Document], written: Any
) -> None:
    document = asked_of(written)
    # The document's tokens expire so soon that those of the login are exchanged too.
    for name in CALLS:
        document.streamed = STREAMS.get(name)
        call(client, name)
    assert set(document.routes()) - document.asked == WITHOUT_METHOD


def test_what_is_missing_or_another_type_is_found(
    client: Client, asked_of: Callable[[Any], Document], written: Any
) -> None:
    less = copy.deepcopy(written)
    del less["paths"]["/api/v1/jobs/{job_id}/cancel"]
    less["components"]["schemas"]["JobRequest"]["properties"]["retries"]["type"] = "string"
    del less["components"]["schemas"]["WorkerView"]["properties"]["slots"]
    less["components"]["schemas"]["Capabilities"]["properties"]["cpu_m"]["type"] = "number"
    less["paths"]["/api/v1/workers"]["get"]["parameters"] = []
    document = asked_of(less)
    for name, said in (("jobs.cancel", "no route"), ("jobs.create", "string"), ("workers.list", "limit")):
        with pytest.raises(Undocumented, match=said):
            call(client, name)
    schema = less["components"]["schemas"]["WorkerView"]
    found = " ".join(document.differences(m.Worker, schema))
    assert ".slots is not documented" in found
    assert "capabilities.cpu_m" in found


def test_importing_the_client_is_light() -> None:
    code = "import sys, mlplatform.client; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"dagster", "sqlalchemy", "psycopg", "fastapi", "starlette", "numpy", "pandas"}
    assert set(loaded.stdout.split()) & heavy == set()
