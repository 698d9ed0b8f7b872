"""The whole control plane for tests: in this process, or behind real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane.app import application
from mlplatform.settings import Settings
from mlplatform_tests.local.processes import eventually

# Nobody listens there: no run is made of a job, which stays as it is.
WITHOUT_DAGIT = {"MLPLATFORM_DAGIT_URL": "http://127.0.0.1:9"}
ADDRESS = "http://127.0.0.1:8080"
SECONDS = 20


def settings_of(stack: RunningStack, database: Database, **variables: str) -> Settings:
    schema = {"MLPLATFORM_CONTROL_PLANE_SCHEMA": database.schema}
    return Settings({**stack.variables, **WITHOUT_DAGIT, **schema, **variables})


@contextmanager
def control_plane(stack: RunningStack, database: Database, **variables: str) -> Iterator[TestClient]:
    """Without real connections; in `local` unless `variables` say otherwise."""
    app = application(settings_of(stack, database, **variables))
    with TestClient(app, base_url=ADDRESS) as client:
        yield client


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of an application that a real server serves, in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert eventually(lambda: server.started or not thread.is_alive(), SECONDS)
            yield address
        finally:
            server.should_exit = True
            getattr(app.state, "end_streams", lambda: None)()
            thread.join()


@contextmanager
def client_of(address: str, **headers: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=SECONDS) as client:
        yield client


def command(name: str = "hello", **more: Any) -> dict[str, Any]:
    """A job, as it is asked for."""
    return {"name": name, "command": ["echo", name], **more}
