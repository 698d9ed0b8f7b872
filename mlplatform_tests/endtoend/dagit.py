"""What Dagit shows of a job, asked as its page asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from mlplatform.client.models import Job
from mlplatform_tests.endtoend.configuration import SECONDS, Deployment
from mlplatform_tests.local.processes import eventually

RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { status tags { key value } stepStats { stepKey status startTime endTime } }
  }
}
"""


def run_of(deployment: Deployment, job: Job, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The run of a job, when it is as it should be; a job has ended before its run has."""
    assert job.run_url, f"{deployment.api} does not say where job {job.id} is shown"
    address = deployment.dagit or job.run_url.rpartition("/runs/")[0]
    found: dict[str, Any] = {}

    def ask() -> bool:
        asked = {"query": RUN, "variables": {"id": job.run_id}}
        try:
            answer = httpx.post(f"{address}/graphql", json=asked, timeout=SECONDS)
        except httpx.TransportError as error:
            raise AssertionError(f"Dagit at {address} does not answer: {error!r}") from None
        assert answer.status_code == 200, (address, answer.text)
        found.update(answer.json()["data"]["runOrError"])
        return until(found)

    assert eventually(ask, SECONDS), (address, found)
    return found
