"""Feature services for tests: in this process, or in one of their own that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi.testclient import TestClient

from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import LOG, QUARANTINE
from mlplatform.io.online_store import OnlineStore
from mlplatform.io.tables import Table, TableSpec
from mlplatform.services import logs
from mlplatform.services.features import application
from mlplatform.services.server import Service, listening, serve
from mlplatform.settings import Settings
from mlplatform_tests.local.processes import eventually

SHARD = 1000
SECONDS = 30
# So long that only what ends the service flushes.
NEVER = "1000000"


@dataclass(frozen=True)
class Place:
    """What one shard is kept in: a disk of its own, and keys of its own on the servers."""

    variables: Mapping[str, str]

    @classmethod
    def make(cls, stack: Mapping[str, str], disk: Path, **variables: str) -> Place:
        own = {
            "MLPLATFORM_S3_PREFIX": f"test-{uuid.uuid4().hex}",
            "MLPLATFORM_REDIS_URL": Settings(stack).redis_url,
            **s3_variables(stack),
            # The stack's own has its files; the services' are beside.
            "MLPLATFORM_DATA_DIRECTORY": str(disk),
            "MLPLATFORM_FLUSH_SECONDS": NEVER,
            "MLPLATFORM_LEASE_SECONDS": "1",
            "MLPLATFORM_SNAPSHOT_KEY": "for tests",
        }
        return cls({**own, **variables})

    def but(self, **variables: str) -> Place:
        return Place({**self.variables, **variables})

    @property
    def settings(self) -> Settings:
        return Settings(self.variables)

    @property
    def redis(self) -> OnlineStore:
        return OnlineStore(self.settings.redis_url, self.settings.s3.prefix)

    @property
    def journal(self) -> Path:
        return self.settings.data_directory / "services" / f"features-{SHARD}.db"

    def log(self) -> list[dict[str, Any]]:
        return self._rows(LOG)

    def quarantine(self) -> list[dict[str, Any]]:
        return self._rows(QUARANTINE)

    def _rows(self, spec: TableSpec) -> list[dict[str, Any]]:
        return list(Table(spec, ObjectStore(self.settings.s3)).select(list(spec.columns)))

    @contextmanager
    def client(self, ready: bool = True) -> Iterator[TestClient]:
        """A service in this process; in the end it flushes."""
        with TestClient(application(self.settings), raise_server_exceptions=False) as client:
            if ready:
                wait_until_ready(client)
            yield client


def s3_variables(stack: Mapping[str, str]) -> dict[str, str]:
    s3 = Settings(stack).s3
    return {
        "MLPLATFORM_S3_ENDPOINT_URL": s3.endpoint_url or "",
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
        "MLPLATFORM_S3_BUCKET": s3.bucket,
    }


def wait_until_ready(client: httpx.Client) -> None:
    assert eventually(lambda: is_ready(client), SECONDS), client.get("/ready").text


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: list[str] = field(default_factory=list)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0


@contextmanager
def running(place: Place, port: int = 0) -> Iterator[Running]:
    environment = {**os.environ, **place.variables}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    with process:
        try:
            assert process.stdout is not None
            # Warnings may come first.
            first = next((line for line in process.stdout if line.startswith("http")), "")
            service = Running(process, first.strip())
            reader = threading.Thread(target=lambda: service.log.extend(process.stdout or ()))
            reader.start()
            with httpx.Client(base_url=service.url) as client:
                wait_until_ready(client)
            yield service
        finally:
            process.kill()
            process.wait()
            reader.join()


def main() -> None:
    print_to = sys.stdout
    services = [Service("features", application(Settings.load()), int(sys.argv[1]))]
    with listening(services, "127.0.0.1") as sockets:
        print(f"http://127.0.0.1:{sockets['features'].getsockname()[1]}", file=print_to, flush=True)
        logs.configure("features")
        if not serve(services, sockets):
            sys.exit(1)


if __name__ == "__main__":
    main()
