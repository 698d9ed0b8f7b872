from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlplatform.io.control_plane import declared
from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.services.control_plane.serving import command, control_plane

PATH = "/api/v1/schedules"


@pytest.fixture(scope="module")
def untouched(stack: RunningStack) -> Iterator[TestClient]:
    """For tests after which nothing is there that was not there before."""
    with (
        fresh_database(Settings(stack.variables).database_url) as database,
        control_plane(stack, database) as client,
    ):
        yield client


@pytest.fixture
def client(stack: RunningStack, database: Database) -> Iterator[TestClient]:
    with control_plane(stack, database) as client:
        yield client


def make(client: TestClient, **more: Any) -> dict[str, Any]:
    answer = client.post(PATH, json=command(**more))
    assert answer.status_code == 201, answer.text
    return answer.json()


def due(database: Database) -> list[Any]:
    with database.transaction() as connection:
        return declared.due_jobs(connection)


def test_by_the_seed_s_paths_a_job_is_run_as_soon_as_possible(client: TestClient, database: Database) -> None:
    pipeline = client.post("/api/v1/pipelines", json={"name": "etl"}).json()["id"]
    answer = client.post("/api/v1/schedule", json={"pipeline_id": pipeline})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["status"], made["name"], made["pipeline_id"]) == ("scheduled", "etl", pipeline)
    assert client.get("/api/v1/scheduled").json() == [made]
    assert client.get(f"/api/v1/scheduled/{made['id']}").json() == made
    assert len(due(database)) == 1
    assert client.get(f"/api/v1/scheduled/{made['id']}").json()["status"] == "done"
    (job,) = client.get(f"/api/v1/pipelines/{pipeline}/jobs").json()
    assert job["schedule_id"] == made["id"]


def test_it_is_paused_resumed_changed_and_removed(client: TestClient) -> None:
    made = make(client, cron="30 9 * * mon", timezone="Europe/Madrid", priority=2)
    url = f"{PATH}/{made['id']}"
    assert (made["slug"], made["priority"], made["declared"]) == ("hello_schedule", 2, False)
    assert len(made["next_times"]) == 5
    first = datetime.fromisoformat(made["next_times"][0])
    assert (first.hour, first.minute, first.weekday()) == (9, 30, 0)
    paused = client.post(f"{url}/pause").json()
    assert (paused["status"], paused["next_times"]) == ("paused", [])
    assert client.post(f"{url}/resume").json()["status"] == "scheduled"
    changed = client.put(url, json=command("other", cron="@daily")).json()
    assert (changed["name"], changed["cron"], changed["slug"]) == ("other", "@daily", "hello_schedule")
    assert client.delete(url).status_code == 204
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        assert client.request(method, f"{url}{path}", json=command()).status_code == 404
    assert client.get(PATH).json() == []


def test_one_time_comes_once(client: TestClient, database: Database) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    made = make(client, due_at=later.isoformat())
    assert [datetime.fromisoformat(time) for time in made["next_times"]] == [later]
    assert due(database) == []
    past = {"due_at": (later - timedelta(hours=2)).isoformat()}
    client.put(f"{PATH}/{made['id']}", json=command(**past))
    assert [job["name"] for job in due(database)] == ["hello"]
    assert due(database) == []
    answer = client.post(f"{PATH}/{made['id']}/resume")
    assert (answer.status_code, "was done" in answer.json()["detail"]) == (409, True)


def test_a_trigger_is_changed_with_its_pipeline_only(client: TestClient) -> None:
    body = {"name": "etl", "triggers": [{"schedule": {"cron": "0 0 * * *"}}]}
    pipeline = client.post("/api/v1/pipelines", json=body).json()["id"]
    other = make(client, cron="0 1 * * *")
    (trigger,) = client.get(PATH, params={"pipeline_id": pipeline}).json()
    also = {"pipeline_id": pipeline, "cron": "0 3 * * *", "timezone": "Europe/Madrid", "paused": True}
    assert client.post(PATH, json=also).json()["status"] == "paused"
    assert trigger["declared"]
    assert client.put(f"{PATH}/{trigger['id']}", json=command(cron="0 2 * * *")).status_code == 409
    assert client.delete(f"/api/v1/pipelines/{pipeline}").status_code == 204
    assert [each["id"] for each in client.get(PATH).json()] == [other["id"]]


def test_a_long_list_comes_page_by_page(client: TestClient) -> None:
    made = [make(client, cron="0 0 * * *")["id"] for _ in range(3)]
    first = client.get(f"{PATH}?limit=2")
    second = client.get(first.links["next"]["url"])
    assert [each["id"] for each in [*first.json(), *second.json()]] == made[::-1]
    assert "next" not in second.links


@pytest.mark.parametrize(
    "wrong",
    [
        command(cron="61 * * * *"),
        command(cron="0 0 30 2 *"),
        command(cron="* * * * * *"),
        command(cron="0 0 * * *", due_at="2030-01-01T00:00:00Z"),
        command(cron="0 0 * * *", timezone="Europe/Atlantis"),
        command(due_at="2030-01-01T00:00:00"),
        {"cron": "0 0 * * *"},
        {"cron": "0 0 * * *", "pipeline_id": str(uuid.uuid4()), "env": {"A": "b"}},
        command(crno="0 0 * * *"),
    ],
)
def test_what_never_comes_or_is_nothing_is_refused(untouched: TestClient, wrong: dict[str, Any]) -> None:
    assert untouched.post(PATH, json=wrong).status_code == 422
    assert untouched.get(PATH).json() == []


def test_a_pipeline_that_is_not_there_is_said(untouched: TestClient) -> None:
    unknown = {"cron": "0 0 * * *", "pipeline_id": str(uuid.uuid4())}
    answer = untouched.post(PATH, json=unknown)
    assert (answer.status_code, unknown["pipeline_id"] in answer.json()["detail"]) == (404, True)
