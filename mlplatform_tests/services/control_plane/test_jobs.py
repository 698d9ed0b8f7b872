"""Jobs, their executions, workers and events, as requests and answers; nothing is run here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import executions, idempotency, log_lines
from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform_tests.services.control_plane.serving import command, control_plane

JOBS, EXECUTIONS, WORKERS, EVENTS = (
    f"/api/v1/{name}" for name in ("jobs", "executions", "workers", "events")
)


@pytest.fixture(scope="module")
def client(stack: RunningStack, kept_database: Database) -> Iterator[TestClient]:
    with control_plane(stack, kept_database) as client:
        yield client


def create(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.post(JOBS, json=asked or command())
    assert answer.status_code == 201, answer.text
    return answer.json()


def first_execution(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return client.get(f"{JOBS}/{job_id}/executions").json()[0]


def begin(database: Database, job_id: str) -> tuple[UUID, UUID]:
    """The execution of a job runs from now on; its id and lease."""
    with database.transaction() as connection:
        released = executions.release(connection, UUID(job_id), "command")
        given = executions.schedule(connection, released.id, None)
        assert given
        executions.start(connection, given.id, given.lease)
    return given.id, given.lease


def say(database: Database, execution_id: UUID, lease: UUID, first: int, *lines: str) -> None:
    now = datetime.now(UTC)
    made = [log_lines.Line(first + at, now, "stdout", line) for at, line in enumerate(lines)]
    with database.transaction() as connection:
        log_lines.append(connection, execution_id, lease, made)


def finish(database: Database, execution_id: UUID, lease: UUID, status: State = State.SUCCESS) -> None:
    with database.transaction() as connection:
        reason = None if status is State.SUCCESS else Reason.EXIT_CODE
        code = 0 if status is State.SUCCESS else 1
        executions.finish(connection, execution_id, lease, status, code, reason, f"exit code {code}")


def test_a_command_becomes_a_job(client: TestClient) -> None:
    job = create(client, name="hello", command=["echo", ""], env={"A": "1"}, priority=3, retries=2)
    assert (job["status"], job["round"], job["priority"], job["created_by"]) == ("Pending", 1, 3, "local")
    assert job["spec"]["command"] == ["echo", ""]
    assert client.get(f"{JOBS}/{job['id']}").json() == job
    assert client.get(f"{JOBS}/{job['id']}/status").json() == {"id": job["id"], "status": "Pending"}
    [execution] = client.get(f"{JOBS}/{job['id']}/executions").json()
    assert (execution["stage"], execution["attempt"], execution["status"]) == ("command", 1, "Pending")
    assert client.get(f"{EXECUTIONS}/{execution['id']}").json() == execution
    assert [event["type"] for event in client.get(f"{JOBS}/{job['id']}/events").json()] == ["job.pending"]


@pytest.mark.parametrize("program", ["a\nb", "\n", "", "x" * 1000])
def test_a_command_without_a_name_has_one(client: TestClient, program: str) -> None:
    name = create(client, command=[program])["name"]
    assert 0 < len(name) <= 200
    assert name.isprintable()


WRONG: dict[str, dict[str, Any]] = {
    "nothing": {},
    "both": {"command": ["a"], "pipeline_id": str(uuid4())},
    "an unknown field": {**command(), "retires": 1},
    "an unknown field below": {**command(), "resources": {"cpu": 1}},
    "no program": {"command": []},
    "NUL in an argument": {"command": ["a\x00"]},
    "NUL in a variable": {**command(), "env": {"A": "\x00"}},
    "half a character": {"command": ["\ud800"]},
    "what the stages say": {"pipeline_id": str(uuid4()), "retries": 1},
    "no time": {**command(), "timeout_ms": 0},
    "too many retries": {**command(), "retries": 256},
    "a number that is none": {**command(), "timeout_ms": "1e3"},
    "a secret and not its name": {**command(), "secret_refs": ["a b"]},
}


@pytest.mark.parametrize("asked", WRONG.values(), ids=WRONG)
def test_what_cannot_be_run_is_refused(client: TestClient, asked: dict[str, Any]) -> None:
    # Not by httpx, which would not send half a character.
    answer = client.post(JOBS, content=json.dumps(asked), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{JOBS}/{{}}"),
        ("GET", f"{JOBS}/{{}}/status"),
        ("GET", f"{JOBS}/{{}}/executions"),
        ("GET", f"{JOBS}/{{}}/events"),
        ("GET", f"{JOBS}/{{}}/events/stream"),
        ("POST", f"{JOBS}/{{}}/cancel"),
        ("POST", f"{JOBS}/{{}}/retry"),
        ("GET", f"{EXECUTIONS}/{{}}"),
        ("GET", f"{EXECUTIONS}/{{}}/logs"),
        ("GET", f"{EXECUTIONS}/{{}}/logs/stream"),
        ("GET", f"{EXECUTIONS}/{{}}/artefacts"),
        ("GET", f"{EXECUTIONS}/{{}}/artefacts/a/b"),
        ("GET", f"{WORKERS}/{{}}"),
        ("POST", f"{WORKERS}/{{}}/heartbeat"),
        ("POST", f"{WORKERS}/{{}}/drain"),
        ("DELETE", f"{WORKERS}/{{}}"),
    ],
)
def test_what_is_not_there_is_not_found(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path.format(uuid4()))
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert client.request(method, path.format("1")).status_code == 422


def test_a_job_of_an_unknown_pipeline_is_not_made(client: TestClient) -> None:
    assert client.post(JOBS, json={"pipeline_id": str(uuid4())}).status_code == 404


def test_cancelling_ends_it_and_retrying_begins_another_round(
    client: TestClient, kept_database: Database
) -> None:
    job_id = create(client)["id"]
    assert client.post(f"{JOBS}/{job_id}/retry").status_code == 409
    execution_id, lease = begin(kept_database, job_id)
    finish(kept_database, execution_id, lease, State.FAILED)
    failed = client.get(f"{JOBS}/{job_id}").json()
    assert (failed["status"], failed["reason"], failed["message"]) == (
        "Failed",
        "exit_code",
        "command: exit code 1",
    )
    again = client.post(f"{JOBS}/{job_id}/retry").json()
    assert (again["status"], again["round"], again["reason"], again["finished_at"]) == (
        "Pending",
        2,
        None,
        None,
    )
    # Twice is once.
    for _ in range(2):
        cancelled = client.post(f"{JOBS}/{job_id}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "Cancelled")
    executed = client.get(f"{JOBS}/{job_id}/executions").json()
    assert [(each["attempt"], each["status"]) for each in executed] == [(1, "Failed"), (2, "Cancelled")]
    told = client.get(f"{JOBS}/{job_id}/events").json()
    assert [event["sequence"] for event in told] == list(range(1, len(told) + 1))
    assert client.post(f"{JOBS}/{job_id}/retry").status_code == 409


def pages(client: TestClient, path: str) -> Iterator[list[dict[str, Any]]]:
    while True:
        answer = client.get(path)
        assert answer.status_code == 200
        yield answer.json()
        if "link" not in answer.headers:
            return
        found = re.fullmatch(r'<(.+)>; rel="next"', answer.headers["link"])
        assert found
        path = found[1]
        assert not urlsplit(path).netloc


def test_lists_come_in_pages_that_nothing_new_shifts(client: TestClient) -> None:
    made = [create(client)["id"] for _ in range(5)]
    seen: list[str] = []
    for number, page in enumerate(pages(client, f"{JOBS}?limit=2&status=Pending")):
        assert len(page) <= 2
        if number < 3:
            create(client)
        seen += [job["id"] for job in page]
    assert len(seen) == len(set(seen))
    assert seen[:5] == made[::-1]


@pytest.mark.parametrize("cursor", ["x", "\xff", "e30", "MjAyNi0wMS0wMSA", "9" * 300, "a%00b"])
def test_a_cursor_that_is_none_is_refused(client: TestClient, cursor: str) -> None:
    for path in (JOBS, EXECUTIONS, WORKERS):
        assert client.get(f"{path}?cursor={cursor}").status_code == 422


# Idempotency


def test_the_same_key_makes_one_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    before = len(client.get(f"{JOBS}?limit=1000").json())
    first = client.post(JOBS, json=command(), headers=headers)
    # Said in other words, it is the same.
    said = {**command(), "retries": 0, "env": {}}
    again = client.post(JOBS, json=dict(reversed(said.items())), headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len(client.get(f"{JOBS}?limit=1000").json()) == before + 1


def test_a_key_is_good_for_one_request(client: TestClient) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    assert client.post(JOBS, json=command(), headers=headers).status_code == 201
    other = client.post(JOBS, json=command(retries=1), headers=headers)
    assert (other.status_code, "another request" in other.json()["detail"]) == (422, True)
    assert client.post(WORKERS, json={}, headers=headers).status_code == 422


def test_what_failed_under_a_key_may_be_tried_again(client: TestClient, kept_database: Database) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    asked = {"pipeline_id": str(uuid4())}
    assert client.post(JOBS, json=asked, headers=headers).status_code == 404
    with kept_database.transaction() as connection:
        connection.execute(
            text("INSERT INTO pipelines (id, name, slug, spec) VALUES (:id, 'p', 'p', '{\"name\": \"p\"}')"),
            {"id": asked["pipeline_id"]},
        )
    # One without stages is done at once.
    answer = client.post(JOBS, json=asked, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (201, "Success")


def test_answers_are_forgotten_after_a_day(client: TestClient, kept_database: Database) -> None:
    def kept() -> int:
        with kept_database.transaction() as connection:
            query = "SELECT count(*) FROM idempotency_keys WHERE principal = 'old'"
            return connection.scalar(text(query)) or 0

    with kept_database.transaction() as connection:
        for number in range(3):
            idempotency.remember(connection, "old", str(number), b"", 200, {})
        connection.execute(
            text(
                "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'"
                " WHERE principal = 'old' AND key <> '0'"
            )
        )
    assert kept() == 3
    client.post(JOBS, json=command(), headers={"Idempotency-Key": str(uuid4())})
    assert kept() == 1


# Logs


def test_a_log_is_read_page_by_page(client: TestClient, kept_database: Database) -> None:
    job_id = create(client)["id"]
    execution_id, lease = begin(kept_database, job_id)
    say(kept_database, execution_id, lease, 0, "one", "two", "three")
    logs = f"{EXECUTIONS}/{execution_id}/logs"
    first = client.get(f"{logs}?limit=2")
    assert [line["message"] for line in first.json()["logs"]] == ["one", "two"]
    assert first.json()["execution_id"] == str(execution_id)
    following = re.fullmatch(r'<(.+)>; rel="next"', first.headers["link"])
    assert following
    rest = client.get(following[1])
    assert [(line["number"], line["message"]) for line in rest.json()["logs"]] == [(2, "three")]
    assert "link" not in rest.headers
    finish(kept_database, execution_id, lease)
    assert client.get(f"{JOBS}/{job_id}").json()["status"] == "Success"


# Workers


def test_a_worker_is_registered_beats_and_ends(client: TestClient) -> None:
    answer = client.post(WORKERS, json={"type": "rust"})
    worker = answer.json()
    assert (answer.status_code, worker["type"], worker["status"]) == (200, "rust", "Available")
    path = f"{WORKERS}/{worker['id']}"
    assert client.get(path).json() == worker
    beaten = client.post(f"{path}/heartbeat").json()
    assert beaten["last_heartbeat"] > worker["last_heartbeat"]
    assert client.post(f"{path}/drain").json()["status"] == "Draining"
    assert client.delete(path).json()["status"] == "Terminated"
    assert client.delete(path).status_code == 200
    for verb in ("heartbeat", "drain"):
        assert client.post(f"{path}/{verb}").status_code == 409
    assert worker["id"] in [each["id"] for each in client.get(WORKERS).json()]


# Events


def test_events_are_read_behind_the_last_one_seen(client: TestClient) -> None:
    newest = max((event["id"] for event in client.get(f"{EVENTS}?limit=1000").json()), default=0)
    made = [create(client)["id"] for _ in range(3)]
    told = client.get(f"{EVENTS}?after={newest}&limit=2").json()
    told += client.get(f"{EVENTS}?after={told[-1]['id']}").json()
    assert [event["job_id"] for event in told] == made
    assert len({event["event_id"] for event in told}) == 3
