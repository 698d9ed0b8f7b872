"""The deployment that is tried, and a client of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import pytest

from mlplatform.client import Client
from mlplatform.errors import PlatformError
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.endtoend.configuration import Deployment, configured
from mlplatform_tests.endtoend.data import MARK
from mlplatform_tests.faults.control_planes import control_plane


@pytest.fixture(scope="session")
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The one that the environment names, if it answers; else one of this machine."""
    if named := configured():
        try:
            with Client(named.api, patience=2) as client:
                client.me()
        except PlatformError as error:
            pytest.fail(f"the deployment at {named.api} cannot be tried: {error}", pytrace=False)
        yield named
        return
    with _on_this_machine(request, tmp_path_factory.mktemp("endtoend")) as started:
        yield started


@contextmanager
def _on_this_machine(request: pytest.FixtureRequest, home: Path) -> Iterator[Deployment]:
    stack = request.getfixturevalue("stack")
    # A token is for a deployment elsewhere.
    token = os.environ.pop("MLPLATFORM_TOKEN", None)
    with fresh_database(Settings(stack.variables).database_url) as database:
        variables = {name: str(value) for name, value in stack.variables.items()}
        with control_plane(home, database, variables, workers=1) as plane:
            yield Deployment(api=str(plane.clients[0].base_url).rstrip("/"))
    if token is not None:
        os.environ["MLPLATFORM_TOKEN"] = token


@pytest.fixture(scope="session")
def client(deployment: Deployment) -> Iterator[Client]:
    """In the end, nothing that was made runs on, and no pipeline stays."""
    with Client(deployment.api) as client:
        began = datetime.now(UTC) - timedelta(minutes=5)
        try:
            yield client
        finally:
            for job in takewhile(lambda job: job.created_at > began, client.jobs.list()):
                if MARK in job.name and not job.ended:
                    client.jobs.cancel(job.id)
            for pipeline in client.pipelines.list():
                if MARK in pipeline.name:
                    client.pipelines.delete(pipeline.id)
