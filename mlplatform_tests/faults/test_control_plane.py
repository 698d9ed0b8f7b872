"""The control plane while its processes are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlplatform.domain.jobs.states import TERMINAL
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.collector import Collector, collecting
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.faults.control_planes import ControlPlane, control_plane, troubled
from mlplatform_tests.local.processes import descendants, eventually
from mlplatform_tests.services.test_learner import addresses


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def plane(
    stack: RunningStack, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    settings = Settings(stack.variables)
    home = tmp_path_factory.mktemp("plane")
    variables = {
        **addresses(stack),
        "MLPLATFORM_DATABASE_URL": settings.database_url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with (
        fresh_database(settings.database_url) as database,
        control_plane(home, database, variables, workers=3) as plane,
    ):
        yield plane


def ended(plane: ControlPlane, job_id: str, seconds: float = 60) -> dict[str, Any]:
    """The job when it has ended."""

    def job() -> dict[str, Any]:
        return plane.ask("GET", f"/api/v1/jobs/{job_id}").json()

    assert eventually(lambda: job()["status"] in TERMINAL, seconds), plane.logs()
    return job()


def test_a_pipeline_that_was_just_made_runs_in_order_and_is_shown(plane: ControlPlane) -> None:
    stages = [
        {"name": "load", "commands": ["echo loaded", "echo 1 > $MLPLATFORM_ARTEFACTS/rows"]},
        {"name": "left", "commands": ["echo left"], "dependencies": ["load"]},
        {"name": "right", "commands": ["echo right >&2"], "dependencies": ["load"]},
        {"name": "join", "commands": ["echo $WHO"], "dependencies": ["left", "right"]},
    ]
    asked = {"name": "diamond", "stages": stages, "environment": {"WHO": "joined"}}
    pipeline = plane.ask("POST", "/api/v1/pipelines", json=asked).json()
    made = plane.ask("POST", "/api/v1/jobs", json={"pipeline_id": pipeline["id"]}).json()
    job = ended(plane, made["id"])
    assert job["status"] == "Success", (job, plane.logs())
    executions = plane.ask("GET", f"/api/v1/jobs/{job['id']}/executions").json()
    by_stage = {execution["stage"]: execution for execution in executions}
    assert len(executions) == len(by_stage) == 4
    for stage in stages:
        for before in stage.get("dependencies", []):
            assert by_stage[before]["finished_at"] <= by_stage[stage["name"]]["started_at"]
    said = {
        stage: plane.ask("GET", f"/api/v1/executions/{execution['id']}/logs").json()["logs"]
        for stage, execution in by_stage.items()
    }
    assert {stage: line["message"] for stage, [line] in said.items()} == {
        "load": "loaded",
        "left": "left",
        "right": "right",
        "join": "joined",
    }
    assert plane.ask("GET", f"/api/v1/executions/{by_stage['load']['id']}/artefacts/rows").text == "1\n"
    # Dagit has the assets with their edges, and the run that made them.
    nodes = plane.graphql(
        "{ assetNodes { assetKey { path } dependencyKeys { path } assetMaterializations { runId } } }"
    )["assetNodes"]
    ours = {tuple(node["assetKey"]["path"]): node for node in nodes}
    join = ours["diamond", "join"]
    assert {tuple(key["path"]) for key in join["dependencyKeys"]} == {
        ("diamond", "left"),
        ("diamond", "right"),
    }
    query = f'{{ runOrError(runId: "{job["run_id"]}") {{ ... on Run {{ status }} }} }}'
    assert eventually(lambda: plane.graphql(query)["runOrError"]["status"] == "SUCCESS", 30)
    assert {ours[key]["assetMaterializations"][0]["runId"] for key in ours if key[0] == "diamond"} == {
        job["run_id"]
    }


def test_the_end_to_end_tests_pass_against_it(plane: ControlPlane) -> None:
    address = str(plane.clients[0].base_url)
    tried = subprocess.run(
        [sys.executable, "-m", "mlplatform_tests.endtoend", "--api", address],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    assert tried.returncode == 0, tried.stdout[-5000:] + tried.stderr[-2000:] + plane.logs()


def test_a_job_and_its_run_end_together_whoever_ends_one(plane: ControlPlane) -> None:
    go = plane.home / "go"

    def make(name: str) -> dict[str, Any]:
        command = ["sh", "-c", f"echo begun; while [ ! -e {go} ]; do sleep 0.1; done; echo done"]
        return plane.ask("POST", "/api/v1/jobs", json={"name": name, "command": command}).json()

    def now(job: dict[str, Any]) -> dict[str, Any]:
        return plane.ask("GET", f"/api/v1/jobs/{job['id']}").json()

    def run(job: dict[str, Any]) -> dict[str, Any]:
        query = f'{{ runOrError(runId: "{now(job)["run_id"]}") {{ ... on Run {{ status }} }} }}'
        return plane.graphql(query)["runOrError"]

    by_api, in_dagit, orphaned = jobs = [make(name) for name in ("by API", "in Dagit", "orphaned")]
    assert eventually(lambda: {now(job)["status"] for job in jobs} == {"Running"}, 120), plane.logs()
    # The process that follows the third one dies; what it followed goes on.
    of_third = now(orphaned)["run_id"]
    [process] = [pid for pid in descendants(plane.code.pid) if of_third in plane.run_of(pid)]
    os.kill(process, signal.SIGKILL)
    plane.ask("POST", f"/api/v1/jobs/{by_api['id']}/cancel").raise_for_status()
    plane.graphql(f'mutation {{ terminateRun(runId: "{now(in_dagit)["run_id"]}") {{ __typename }} }}')
    for job in (by_api, in_dagit):
        assert ended(plane, job["id"])["status"] == "Cancelled", plane.logs()
        assert eventually(lambda job=job: run(job)["status"] == "CANCELED", 60), plane.logs()
        [execution] = plane.ask("GET", f"/api/v1/jobs/{job['id']}/executions").json()
        assert execution["status"] == "Cancelled"
        log = plane.ask("GET", f"/api/v1/executions/{execution['id']}/logs").json()["logs"]
        assert [line["message"] for line in log] == ["begun"]
    go.touch()
    assert ended(plane, orphaned["id"])["status"] == "Success", plane.logs()
    assert eventually(lambda: now(orphaned)["run_id"] != of_third, 60), plane.logs()
    assert eventually(lambda: run(orphaned)["status"] == "SUCCESS", 60), plane.logs()
    [execution] = plane.ask("GET", f"/api/v1/jobs/{orphaned['id']}/executions").json()
    assert execution["attempt"] == 1


def test_what_is_due_once_is_run_once(plane: ControlPlane) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2)
    asked = {"name": "once", "command": ["true"], "due_at": due.isoformat()}
    schedule = plane.ask("POST", "/api/v1/schedules", json=asked)
    assert schedule.status_code == 201, schedule.text

    def jobs() -> list[dict[str, Any]]:
        found = plane.ask("GET", "/api/v1/jobs", params={"limit": 1000}).json()
        return [job for job in found if job["schedule_id"] == schedule.json()["id"]]

    assert eventually(lambda: bool(jobs()), 60), plane.logs()
    [job] = jobs()
    assert datetime.fromisoformat(job["scheduled_for"]) == due
    assert ended(plane, job["id"])["status"] == "Success", plane.logs()
    assert len(jobs()) == 1


def test_a_trace_goes_from_the_request_to_the_command(plane: ControlPlane, collector: Collector) -> None:
    trace, asker = uuid.uuid4().hex, "00f067aa0ba902b7"
    command = {"name": "traced", "command": ["sh", "-c", "echo $TRACEPARENT"]}
    headers = {"traceparent": f"00-{trace}-{asker}-01"}
    job = plane.ask("POST", "/api/v1/jobs", json=command, headers=headers).json()
    assert ended(plane, job["id"])["status"] == "Success", plane.logs()
    names = {"POST /api/v1/jobs", "stage command", "execute command"}
    assert eventually(lambda: collector.of(trace).keys() >= names, 30), collector.spans
    spans = collector.of(trace)
    request, stage, execution = (
        spans[name] for name in ("POST /api/v1/jobs", "stage command", "execute command")
    )
    assert (request.service, request.parent) == ("mlplatform-control-plane", asker)
    assert (stage.service, stage.parent) == ("mlplatform-dagster", request.id)
    assert (execution.service, execution.parent) == ("mlplatform-worker", stage.id)
    [ran] = plane.ask("GET", f"/api/v1/jobs/{job['id']}/executions").json()
    [line] = plane.ask("GET", f"/api/v1/executions/{ran['id']}/logs").json()["logs"]
    assert line["message"] == f"00-{trace}-{execution.id}-01"


@pytest.mark.timeout(600)
def test_thirty_jobs_end_once_each_while_everything_is_killed(plane: ControlPlane) -> None:
    seed = int(os.environ.get("MLPLATFORM_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"MLPLATFORM_TEST_SEED={seed}")
    troubled(plane, jobs=30, kills=12, chance=random.Random(seed), seconds=24)
