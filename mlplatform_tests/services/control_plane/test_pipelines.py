from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlplatform.io.control_plane import pipelines
from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane.declarations import EXAMPLE
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.services.control_plane.secured import REQUIRED, bearer, create_user, log_in
from mlplatform_tests.services.control_plane.serving import control_plane

PATH = "/api/v1/pipelines"
STAGES = [
    {"name": "fetch", "commands": ["echo fetching"]},
    {"name": "train", "commands": ["echo training"], "dependencies": ["fetch"]},
]
YAML = {"content-type": "application/yaml"}


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


def make(client: TestClient, name: str = "etl", **more: Any) -> dict[str, Any]:
    answer = client.post(PATH, json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_the_seed_s_line_makes_one_and_a_job_of_it_ends_at_once(client: TestClient) -> None:
    body = '{"name":"test-pipeline","description":"E2E test pipeline"}'
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = client.post(PATH, content=body, headers=form)
    assert answer.status_code == 201
    made = answer.json()
    assert made["status"] == "active"
    assert (made["name"], made["description"]) == ("test-pipeline", "E2E test pipeline")
    assert (made["slug"], made["version"]) == ("test_pipeline", 1)
    assert client.get(f"{PATH}/{made['id']}").json() == made
    job = client.post("/api/v1/jobs", content=json.dumps({"pipeline_id": made["id"]}), headers=form)
    assert (job.status_code, job.json()["status"]) == (201, "Success")


def test_it_is_changed_run_and_taken_away(client: TestClient) -> None:
    made = make(client, stages=STAGES, triggers=["manual", {"schedule": {"cron": "30 2 * * *"}}])
    url = f"{PATH}/{made['id']}"
    changed = client.put(url, json={"name": "etl", "stages": STAGES, "description": "better"}).json()
    assert (changed["version"], changed["description"], changed["slug"]) == (2, "better", "etl")
    assert changed["created_at"] == made["created_at"] < changed["updated_at"]

    job = client.post(f"{url}/run", json={"priority": 3, "env": {"A": "b"}, "name": "now"})
    assert job.status_code == 201
    assert (job.json()["name"], job.json()["priority"], job.json()["status"]) == ("now", 3, "Pending")
    assert client.post(f"{url}/run").json()["name"] == "etl"
    listed = client.get(f"{url}/jobs").json()
    assert [each["name"] for each in listed] == ["etl", "now"]
    assert client.get(f"{url}/jobs?status=Success").json() == []
    first = client.get(f"/api/v1/jobs/{job.json()['id']}/executions").json()
    assert [(each["stage"], each["spec"]["env"]) for each in first] == [
        ("fetch", {"A": "b"}),
        ("train", {"A": "b"}),
    ]

    refused = client.delete(url)
    assert (refused.status_code, "cancel them first" in refused.json()["detail"]) == (409, True)
    for each in listed:
        client.post(f"/api/v1/jobs/{each['id']}/cancel")
    assert client.delete(url).status_code == 204
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/run"), ("GET", "/jobs")):
        body = {"name": "etl"} if method == "PUT" else None
        assert client.request(method, f"{url}{path}", json=body).status_code == 404
    assert client.get(PATH).json() == []


def test_the_same_key_makes_one(client: TestClient) -> None:
    key = {"Idempotency-Key": "once"}
    answers = [client.post(PATH, json={"name": "etl"}, headers=key).json() for _ in range(2)]
    assert answers[0] == answers[1]
    again = {"Idempotency-Key": "run"}
    runs = [client.post(f"{PATH}/{answers[0]['id']}/run", headers=again).json()["id"] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(client.get(PATH).json()) == 1


def test_a_long_list_comes_page_by_page(client: TestClient) -> None:
    made = [make(client, f"p{number}")["id"] for number in range(5)]
    found, url = [], f"{PATH}?limit=2"
    while url:
        answer = client.get(url)
        found.append([each["id"] for each in answer.json()])
        url = answer.links.get("next", {}).get("url")
    assert found == [made[:2:-1], [made[2], made[1]], [made[0]]]
    assert client.get(f"{PATH}?cursor=nonsense").status_code == 422


@pytest.mark.parametrize(
    ("body", "path", "message", "suggestion", "line"),
    [
        ({"name": "a", "descriptoin": ""}, "descriptoin", "no such key", "did you mean description?", 3),
        (
            {"name": "a", "stages": [{"name": "s", "comands": ["true"]}]},
            "stages[0].comands",
            "no such key",
            "did you mean commands?",
            6,
        ),
        (
            {"name": "a", "stages": [{"name": "s", "commands": ["true"], "dependencies": ["t"]}]},
            "",
            "stage 's' depends on 't', which is no stage",
            "",
            1,
        ),
        ({"name": "a", "triggers": [{"schedule": {"cron": "61 * * * *"}}]}, "triggers[0]", "", "", 4),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_the_remedy(
    untouched: TestClient, body: dict[str, Any], path: str, message: str, suggestion: str, line: int
) -> None:
    answer = untouched.post(f"{PATH}/validate", content=json.dumps(body, indent=1))
    assert answer.status_code == 200
    verdict = answer.json()
    assert verdict["valid"] is False
    problem = verdict["problems"][0]
    assert problem["path"].startswith(path)
    assert message in problem["message"]
    assert problem["suggestion"] == suggestion
    assert problem["line"] >= line
    assert untouched.post(PATH, json=body).status_code == 422
    assert untouched.get(PATH).json() == []


def test_what_is_right_is_said_to_be_and_not_kept(untouched: TestClient) -> None:
    for answer in (
        untouched.post(f"{PATH}/validate", json={"name": "a", "stages": STAGES}),
        untouched.post(f"{PATH}/validate", content=EXAMPLE, headers=YAML),
        untouched.post(f"{PATH}/validate", json={"name": "a", "yaml": EXAMPLE}),
    ):
        assert (answer.status_code, answer.json()) == (200, {"valid": True, "problems": []})
    assert untouched.get(PATH).json() == []


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", "1", '"text"', '{"name": 1}', "\x00", '{"a": "\\ud800"}']
)
def test_whatever_is_sent_is_judged(untouched: TestClient, body: str) -> None:
    for headers in ({}, YAML):
        answer = untouched.post(f"{PATH}/validate", content=body, headers=headers)
        assert answer.status_code == 200
        assert answer.json()["problems"]
    assert untouched.post(f"{PATH}/validate", content=b"\xff").status_code == 400


def test_yaml_of_the_batch_platform_is_kept_under_the_name_of_its_project(client: TestClient) -> None:
    daily = EXAMPLE + "deployment: {cadence: daily}\n"
    answer = client.post(PATH, content=daily, headers=YAML)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["name"], made["slug"], made["yaml"]) == ("churn_small_v1", "churn_small_v1", daily)
    (schedule,) = client.get("/api/v1/schedules").json()
    assert (schedule["cron"], schedule["declared"]) == ("0 0 * * *", True)
    assert client.post(PATH, json={"name": "other", "yaml": EXAMPLE}).status_code == 409
    assert client.put(f"{PATH}/{made['id']}", content=EXAMPLE, headers=YAML).json()["version"] == 2
    assert client.get("/api/v1/schedules").json() == []
    assert client.post(f"{PATH}/{made['id']}/run").json()["status"] == "Pending"


def test_wrong_yaml_is_refused_with_line_path_and_remedy(untouched: TestClient) -> None:
    wrong = EXAMPLE.replace("label_table", "label_tabel")
    answer = untouched.post(PATH, content=wrong, headers=YAML)
    assert answer.status_code == 422
    (told,) = answer.json()["detail"]
    assert told == {
        "type": "invalid_pipeline",
        "loc": ["body", "yaml", "training.data_source.label_tabel"],
        "msg": "no such key",
        "line": 5,
        "column": 17,
        "suggestion": "did you mean label_table?",
    }
    (problem,) = untouched.post(f"{PATH}/validate", content=wrong, headers=YAML).json()["problems"]
    assert (problem["path"], problem["line"]) == ("training.data_source.label_tabel", 5)
    template = EXAMPLE.replace("customers}", "\"{{ env_var('HOME') }}\"}")
    assert "is a template" in untouched.post(PATH, content=template, headers=YAML).text
    assert untouched.get(PATH).json() == []


def test_what_is_there_is_shown_whatever_it_says(client: TestClient, database: Database) -> None:
    made = make(
        client, stages=STAGES, triggers=["manual", {"webhook": {"any": ["thing"]}}], environment={"A": "b"}
    )
    with database.transaction() as connection:
        kept = pipelines.get(connection, uuid.UUID(made["id"]))["spec"]
    assert made["triggers"][0] == "manual"
    assert made["environment"] == kept["environment"] == {"A": "b"}
    assert [stage["name"] for stage in made["stages"]] == ["fetch", "train"]


def test_who_may_see_may_not_make_nor_run(
    stack: RunningStack, database: Database, cheap_passwords: None
) -> None:
    create_user(database, "ada", ["pipelines:read", "schedules:read"])
    with control_plane(stack, database, **REQUIRED) as client:
        token = bearer(log_in(client, "ada"))
        assert client.get(PATH, headers=token).status_code == 200
        assert client.post(f"{PATH}/validate", json={"name": "a"}, headers=token).status_code == 200
        for method, url in (
            ("POST", PATH),
            ("PUT", f"{PATH}/{uuid.uuid4()}"),
            ("DELETE", f"{PATH}/{uuid.uuid4()}"),
            ("POST", f"{PATH}/{uuid.uuid4()}/run"),
            ("GET", f"{PATH}/{uuid.uuid4()}/jobs"),
            ("POST", "/api/v1/schedule"),
        ):
            assert client.request(method, url, json={"name": "a"}, headers=token).status_code == 403
            assert client.request(method, url, json={"name": "a"}).status_code == 401
