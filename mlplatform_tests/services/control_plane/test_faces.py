"""The seed's lines, word for word, at each of the places where it had a service."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient

from mlplatform.io.control_plane.database import Database
from mlplatform.local import ports
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.local.processes import eventually, lives
from mlplatform_tests.services.control_plane.guards import unguarded
from mlplatform_tests.services.control_plane.secured import REQUIRED, bearer, create_user, log_in
from mlplatform_tests.services.control_plane.serving import client_of, control_plane, settings_of
from mlplatform_tests.services.processes import Process

FACES = ("orchestrator", "scheduler", "worker-manager")
SEED_PATHS = {
    "orchestrator": {
        ("get", "/health"),
        ("post", "/api/v1/pipelines"),
        ("get", "/api/v1/pipelines"),
        ("get", "/api/v1/pipelines/{}"),
        ("post", "/api/v1/jobs"),
        ("get", "/api/v1/jobs"),
        ("get", "/api/v1/jobs/{}"),
        ("get", "/api/v1/jobs/{}/status"),
    },
    "scheduler": {
        ("get", "/health"),
        ("post", "/api/v1/schedule"),
        ("get", "/api/v1/scheduled"),
        ("get", "/api/v1/scheduled/{}"),
        ("post", "/api/v1/workers"),
        ("get", "/api/v1/workers"),
        ("get", "/api/v1/workers/{}"),
        ("post", "/api/v1/workers/{}/heartbeat"),
    },
    "worker-manager": {
        ("get", "/health"),
        ("post", "/api/v1/workers"),
        ("get", "/api/v1/workers"),
        ("get", "/api/v1/workers/{}"),
        ("get", "/api/v1/workers/{}/status"),
        ("delete", "/api/v1/workers/{}"),
        ("post", "/api/v1/execute"),
        ("get", "/api/v1/executions"),
        ("get", "/api/v1/executions/{}"),
        ("get", "/api/v1/executions/{}/logs"),
    },
}


@pytest.fixture(scope="module")
def client(stack: RunningStack, kept_database: Database) -> Iterator[TestClient]:
    with control_plane(stack, kept_database) as client:
        yield client


def curl(client: httpx.Client, address: str, body: dict[str, Any]) -> httpx.Response:
    """As the seed's lines: a body without a word of what it is, which curl then calls a form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return client.post(address, content=json.dumps(body), headers=headers)


@pytest.mark.parametrize("face", FACES)
def test_each_has_pages_of_its_own(client: TestClient, face: str) -> None:
    health = client.get(f"/{face}/health").json()
    assert set(health) == {"status", "service", "version"}
    assert (health["status"], health["service"]) == ("healthy", face)
    document = client.get(f"/{face}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": f"/{face}"}]
    there = {
        (method, "/".join("{}" if "{" in part else part for part in path.split("/")))
        for path, item in document["paths"].items()
        for method in item
    }
    assert there >= SEED_PATHS[face]
    page = client.get(f"/{face}/swagger-ui")
    assert page.headers["content-type"].startswith("text/html")
    # Nothing of it comes from elsewhere.
    assert "https://" not in page.text
    assert "url: 'openapi.json'" in page.text
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"/static-offline-docs/{asset}" in page.text
        assert client.get(f"/static-offline-docs/{asset}").status_code == 200


def test_the_root_has_the_orchestrators_paths_too(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    there = {(method, path) for path, item in document["paths"].items() for method in item}
    assert there > {
        (method, path.replace("{}", "{pipeline_id}" if "pipelines" in path else "{job_id}"))
        for method, path in SEED_PATHS["orchestrator"]
    }
    assert {("post", "/api/v1/execute"), ("post", "/api/v1/schedule"), ("get", "/api/v1/scheduled")} < there
    assert "swagger-ui-bundle.js" in client.get("/swagger-ui").text
    assert not [path for _, path in there if path.startswith(tuple(f"/{face}" for face in FACES))]


@pytest.mark.usefixtures("cheap_passwords")
def test_none_of_them_is_open(stack: RunningStack, kept_database: Database) -> None:
    create_user(kept_database, "poor", [])
    with control_plane(stack, kept_database, **REQUIRED) as client:
        poor = bearer(log_in(client, "poor"))
        for face in FACES:
            assert list(unguarded(client, poor, f"/{face}")) == []


@pytest.mark.parametrize("root", ["", "/orchestrator"])
def test_pipelines_and_jobs(client: TestClient, root: str) -> None:
    asked = {"name": f"test-pipeline {root}", "description": "E2E test pipeline"}
    made = curl(client, f"{root}/api/v1/pipelines", asked)
    pipeline = made.json()
    assert (made.status_code, pipeline["name"], pipeline["status"]) == (201, asked["name"], "active")
    assert pipeline["description"] == asked["description"]
    assert pipeline["created_at"]
    assert pipeline in client.get(f"{root}/api/v1/pipelines").json()
    assert client.get(f"{root}/api/v1/pipelines/{pipeline['id']}").json() == pipeline
    made = curl(client, f"{root}/api/v1/jobs", {"pipeline_id": pipeline["id"]})
    job = made.json()
    # It has no stage.
    assert (made.status_code, job["pipeline_id"], job["status"]) == (201, pipeline["id"], "Success")
    assert job in client.get(f"{root}/api/v1/jobs").json()
    assert client.get(f"{root}/api/v1/jobs/{job['id']}").json() == job
    assert client.get(f"{root}/api/v1/jobs/{job['id']}/status").json() == {
        "id": job["id"],
        "status": "Success",
    }
    answer = curl(client, f"{root}/api/v1/jobs", {"pipeline_id": str(uuid4())})
    assert answer.status_code == 404


def test_schedules(client: TestClient) -> None:
    root = "/scheduler/api/v1"
    job = curl(client, "/api/v1/jobs", {"command": ["echo", "hello"], "name": "greet", "retries": 2}).json()
    made = curl(client, f"{root}/schedule", {"job_id": job["id"], "cron": "0 6 * * *"})
    schedule = made.json()
    assert (made.status_code, schedule["status"], schedule["name"]) == (200, "scheduled", "greet")
    assert schedule["spec"] == job["spec"]
    assert schedule["scheduled_at"]
    assert client.get(f"{root}/scheduled/{schedule['id']}").json() == schedule
    # It is a schedule like any other.
    [found] = [each for each in client.get("/api/v1/schedules").json() if each["id"] == schedule["id"]]
    assert (found["cron"], found["spec"]["command"]) == ("0 6 * * *", ["echo", "hello"])
    once = curl(client, f"{root}/schedule", {"command": ["echo"], "due_at": "2030-01-01T00:00:00Z"}).json()
    assert [each["id"] for each in client.get(f"{root}/scheduled").json()][:2] == [once["id"], schedule["id"]]
    both = {"job_id": job["id"], "cron": "0 6 * * *", "due_at": "2030-01-01T00:00:00Z"}
    for wrong in (
        {},
        {"job_id": "1"},
        {"job_id": job["id"], "cron": "x"},
        {"job_id": job["id"], "crom": ""},
        both,
    ):
        assert curl(client, f"{root}/schedule", wrong).status_code == 422
    assert curl(client, f"{root}/schedule", {"job_id": str(uuid4())}).status_code == 404
    assert client.get(f"{root}/scheduled/{uuid4()}").status_code == 404


def test_workers_that_are_registered(client: TestClient) -> None:
    root = "/scheduler/api/v1/workers"
    made = curl(client, root, {"type": "rust"})
    worker = made.json()
    assert (made.status_code, worker["type"], worker["status"]) == (200, "rust", "online")
    assert worker["state"] == "Available"
    assert worker["registered_at"]
    assert client.get(f"{root}/{worker['id']}").json() == worker
    beaten = client.post(f"{root}/{worker['id']}/heartbeat").json()
    assert (beaten["status"], beaten["last_heartbeat"] > worker["last_heartbeat"]) == ("online", True)
    assert client.delete(f"/api/v1/workers/{worker['id']}").status_code == 200
    [stopped] = [each for each in client.get(root).json() if each["id"] == worker["id"]]
    assert (stopped["status"], stopped["state"]) == ("offline", "Terminated")
    assert client.get(f"{root}/{uuid4()}").status_code == 404
    assert curl(client, root, {"nats_url": "nats://"}).status_code == 422


@pytest.mark.parametrize("root", ["/api/v1", "/worker-manager/api/v1"])
def test_executions(client: TestClient, root: str) -> None:
    made = curl(client, f"{root}/execute", {"command": "echo 'Hello from worker'", "type": "bash"})
    execution = made.json()
    assert (made.status_code, execution["status"], execution["state"]) == (200, "running", "Pending")
    assert execution["started_at"] == execution["created_at"]
    assert execution["spec"]["command"] == ["/bin/sh", "-c", "echo 'Hello from worker'"]
    face = "/worker-manager/api/v1/executions"
    assert client.get(f"{face}/{execution['id']}").json() == execution
    assert execution in client.get(face).json()
    logs = client.get(f"{face}/{execution['id']}/logs").json()
    assert logs == {"execution_id": execution["id"], "logs": []}
    # Its job can be named, and is not run a second time.
    assert curl(client, f"{root}/execute", {"job_id": execution["job_id"]}).json() == execution
    client.post(f"/api/v1/jobs/{execution['job_id']}/cancel")
    ended = client.get(f"{face}/{execution['id']}").json()
    assert (ended["status"], ended["state"]) == ("cancelled", "Cancelled")
    assert client.get(f"{face}/{uuid4()}").status_code == 404
    assert curl(client, f"{root}/execute", {}).status_code == 422
    assert curl(client, f"{root}/execute", {"job_id": str(uuid4())}).status_code == 404


def test_there_is_nothing_to_execute_of_a_pipeline_without_stages(client: TestClient) -> None:
    pipeline_id = curl(client, "/api/v1/pipelines", {"name": "empty"}).json()["id"]
    before = len(client.get("/api/v1/jobs?limit=1000").json())
    assert curl(client, "/api/v1/execute", {"pipeline_id": pipeline_id}).status_code == 409
    assert len(client.get("/api/v1/jobs?limit=1000").json()) == before


# Behind real sockets


@pytest.fixture(scope="module")
def addresses(
    stack: RunningStack, kept_database: Database
) -> Iterator[tuple[Process, dict[str, httpx.Client]]]:
    """One process on three ports."""
    chosen: set[int] = set()
    for _ in range(2):
        chosen.add(ports.choose(chosen))
    scheduler, manager = chosen
    variables = {"SCHEDULER_PORT": str(scheduler), "WORKER_MANAGER_PORT": str(manager)}
    process = Process(settings_of(stack, kept_database, **variables), "api")
    with ExitStack() as opened:
        opened.callback(process.kill)
        process.start()
        process.wait_until_ready()
        yield (
            process,
            {
                name: opened.enter_context(client_of(f"http://127.0.0.1:{port}"))
                for name, port in zip(FACES, (process.port, scheduler, manager), strict=True)
            },
        )


def test_they_listen_on_the_ports_of_the_seed(addresses: tuple[Process, dict[str, httpx.Client]]) -> None:
    _, clients = addresses
    for name in FACES[1:]:
        client = clients[name]
        assert client.get("/health").json()["service"] == name
        document = client.get("/openapi.json").json()
        assert document["info"]["title"].lower().replace(" ", "-") == name
        # Where the document says that it is, it is too.
        assert client.get(document["servers"][0]["url"] + "/health").json()["service"] == name
        assert client.get("/swagger-ui").status_code == 200
        for path in ("/metrics", "/ready", "/api/v1/auth/me", "/static-offline-docs/swagger-ui.css"):
            assert client.get(path).status_code == 200
        assert client.get("/api/v1/jobs").status_code == 404
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 403
    worker = curl(clients["scheduler"], "/api/v1/workers", {"type": "rust"}).json()
    assert worker["status"] == "online"
    assert clients["orchestrator"].get(f"/api/v1/workers/{worker['id']}").json()["status"] == "Available"
    following = clients["scheduler"].get("/api/v1/workers?limit=1").headers.get("link")
    if following:
        assert clients["scheduler"].get(following[1 : following.index(">")]).status_code == 200


def test_a_worker_is_started_and_stopped(
    addresses: tuple[Process, dict[str, httpx.Client]], kept_database: Database
) -> None:
    _, clients = addresses
    manager = clients["worker-manager"]
    asked = {"type": "python", "capabilities": {"cpu_m": 500, "memory_mb": 64, "features": ["python"]}}
    made = curl(manager, "/api/v1/workers", asked)
    worker = made.json()
    assert (made.status_code, worker["status"], worker["type"]) == (200, "running", "python")
    assert worker["listens"]
    assert worker["capabilities"] == {"cpu_m": 500, "memory_mb": 64, "gpu": 0, "features": ["python"]}
    path = f"/api/v1/workers/{worker['id']}"
    assert manager.get(f"{path}/status").json() == {"id": worker["id"], "status": "running"}
    pid = pid_of(worker["name"])
    stopped = manager.delete(path).json()
    assert (stopped["status"], bool(stopped["stopped_at"])) == ("stopped", True)
    assert eventually(lambda: not lives(pid), 15)
    assert manager.get(f"{path}/status").json()["status"] == "stopped"


def test_the_name_of_a_worker_is_no_path(
    addresses: tuple[Process, dict[str, httpx.Client]], stack: RunningStack
) -> None:
    _, clients = addresses
    name = "../elsewhere/" + "ñ" * 180
    made = curl(clients["worker-manager"], "/api/v1/workers", {"name": name})
    assert made.status_code == 200, made.text
    assert made.json()["name"].startswith(name)
    assert not list(Settings(stack.variables).data_directory.glob("elsewhere*"))
    assert clients["worker-manager"].delete(f"/api/v1/workers/{made.json()['id']}").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_api(stack: RunningStack, database: Database, number: signal.Signals) -> None:
    process = Process(settings_of(stack, database), "api")
    process.start()
    try:
        process.wait_until_ready()
        with client_of(process.address) as client:
            worker = curl(client, "/worker-manager/api/v1/workers", {"type": "rust"}).json()
        pid = pid_of(worker["name"])
        os.kill(process.pid, number)
        process.wait()
        assert eventually(lambda: not lives(pid), 15)
    finally:
        process.kill()


def test_elsewhere_workers_are_started_by_others(client: TestClient, stack: RunningStack) -> None:
    app: Any = client.app
    children = app.state.children
    before, children._settings = children._settings, Settings({"MLPLATFORM_ENV": "compose"})
    try:
        answer = curl(client, "/worker-manager/api/v1/workers", {"type": "rust"})
    finally:
        children._settings = before
    assert (answer.status_code, "mlplatform worker start" in answer.json()["detail"]) == (409, True)


def pid_of(name: str) -> int:
    """Of the process that has this name among its arguments."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"no process is called {name}")
