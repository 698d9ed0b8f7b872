"""The `curl` lines of the seed, as it has them, at the addresses of a deployment."""

from __future__ import annotations

import os
import shlex
from urllib.parse import urlsplit

import httpx

from mlplatform_tests.endtoend.configuration import SECONDS, Deployment

PIPELINE = """
curl -X POST http://localhost:8080/api/v1/pipelines \\
  -d '{"name":"test-pipeline","description":"E2E test pipeline"}'
"""
JOB = """
curl -X POST http://localhost:8080/api/v1/jobs \\
  -d '{"pipeline_id":"<pipeline-id>"}'
"""
WORKER = """
curl -X POST http://localhost:8081/api/v1/workers \\
  -d '{"type":"rust"}'
"""
STARTED_WORKER = """
curl -X POST http://localhost:8082/api/v1/workers \\
  -d '{"type":"rust"}'
"""
HEALTH = """
curl http://localhost:8080/health
curl http://localhost:8081/health
curl http://localhost:8082/health
"""


def curl(deployment: Deployment, line: str, method: str = "GET") -> httpx.Response:
    """What curl would send: it calls every body a form.

    Args:
        method: unless the line says another.
    """
    command, *arguments = shlex.split(line.replace("\\\n", " "))
    assert command == "curl"
    url, content = "", None
    while arguments:
        argument = arguments.pop(0)
        if argument == "-X":
            method = arguments.pop(0)
        elif argument == "-d":
            content = arguments.pop(0)
        else:
            url = argument
    parts = urlsplit(url)
    faces = {8080: deployment.orchestrator, 8081: deployment.scheduler, 8082: deployment.worker_manager}
    headers = {"User-Agent": "curl/8", "Accept": "*/*"}
    if content is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    if token := os.environ.get("MLPLATFORM_TOKEN"):
        headers["Authorization"] = f"Bearer {token.strip()}"
    address = faces[parts.port or 0] + parts.path
    try:
        return httpx.request(method, address, content=content, headers=headers, timeout=SECONDS)
    except httpx.TransportError as error:
        raise AssertionError(f"{address} does not answer: {error!r}") from None
