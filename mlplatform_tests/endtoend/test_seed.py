"""The seed's own lines, with what they do there, and what they do here."""

from __future__ import annotations

import pytest

from mlplatform.client import Client
from mlplatform_tests.endtoend import seed
from mlplatform_tests.endtoend.configuration import Deployment
from mlplatform_tests.endtoend.seed import curl


@pytest.mark.parametrize("line", seed.HEALTH.strip().splitlines())
def test_a_service_is_healthy(deployment: Deployment, line: str) -> None:
    answer = curl(deployment, line)
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy"), answer.text


def test_a_pipeline_and_a_job_of_it_are_made(deployment: Deployment, client: Client) -> None:
    made = curl(deployment, seed.PIPELINE)
    assert made.status_code == 201, made.text
    pipeline = made.json()
    try:
        assert {"id", "created_at", "name", "description", "status"} <= pipeline.keys()
        assert pipeline["status"] == "active"
        job = curl(deployment, seed.JOB.replace("<pipeline-id>", pipeline["id"]))
        assert job.status_code == 201, job.text
        assert {"id", "created_at", "status", "pipeline_id"} <= job.json().keys()
        # It has no stages, and so nothing to wait for.
        assert client.jobs.wait(job.json()["id"], timeout=10).status == "Success"
    finally:
        client.pipelines.delete(pipeline["id"])


def test_a_worker_is_registered(deployment: Deployment, client: Client) -> None:
    made = curl(deployment, seed.WORKER)
    assert made.status_code == 200, made.text
    worker = made.json()
    try:
        assert (worker["type"], worker["status"]) == ("rust", "online")
        beat = curl(deployment, f"curl -X POST http://localhost:8081/api/v1/workers/{worker['id']}/heartbeat")
        assert beat.json()["last_heartbeat"] >= worker["last_heartbeat"]
    finally:
        client.workers.stop(worker["id"])


def test_a_worker_is_started_and_stopped(deployment: Deployment) -> None:
    made = curl(deployment, seed.STARTED_WORKER)
    if made.status_code == 409:
        # Only where the API and its workers are one machine's.
        assert "mlplatform worker start" in made.json()["detail"]
        return
    assert made.status_code == 200, made.text
    worker = made.json()
    assert (worker["type"], worker["status"]) == ("rust", "running")
    here = f"http://localhost:8082/api/v1/workers/{worker['id']}"
    assert curl(deployment, f"curl {here}/status").json() == {"id": worker["id"], "status": "running"}
    stopped = curl(deployment, f"curl -X DELETE {here}").json()
    assert stopped["status"] == "stopped"
    assert stopped["stopped_at"]


@pytest.mark.parametrize("port", [8080, 8081, 8082])
def test_a_service_has_its_document(deployment: Deployment, port: int) -> None:
    document = curl(deployment, f"curl http://localhost:{port}/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert document["paths"]
    assert "swagger" in curl(deployment, f"curl http://localhost:{port}/swagger-ui").text


@pytest.mark.parametrize("path", ["pipelines", "jobs"])
def test_what_is_not_there_is_404_and_what_is_wrong_422(deployment: Deployment, path: str) -> None:
    here = f"http://localhost:8080/api/v1/{path}"
    missing = curl(deployment, f"curl {here}/6d1f8f0e-8b53-4f0e-8a2a-2b6d7a1c9e55")
    wrong = curl(deployment, f"curl -X POST {here} -d '{{\"unknown\":1}}'")
    assert (missing.status_code, wrong.status_code) == (404, 422)
    for answer in (missing, wrong):
        assert answer.json().keys() >= {"title", "status", "detail", "correlation_id"}
