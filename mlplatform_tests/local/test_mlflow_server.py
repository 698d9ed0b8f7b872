"""MLflow as a server of the embedded stack, on its PostgreSQL and S3, and without them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from mlplatform.local import ports, servers, stack
from mlplatform.local.probes import problem
from mlplatform.local.stack import running_stack
from mlplatform.settings import ConfigurationError, Settings, prepare_mlflow
from mlplatform_tests.local.processes import (
    S3_ELSEWHERE,
    descendants,
    eventually,
    lives,
    mlplatform,
    program,
    shown_by_ps,
    status,
)

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

WITH_MLFLOW = {"MLPLATFORM_STACK_SERVICES": "s3,postgresql,mlflow"}


def settings_of(data_directory: Path, **variables: str) -> Settings:
    return Settings({"MLPLATFORM_DATA_DIRECTORY": str(data_directory), **WITH_MLFLOW, **variables})


def client(settings: Settings):
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(settings.mlflow_tracking_uri, settings.mlflow_tracking_uri)


def write_run(settings: Settings) -> str:
    """A run with a metric, which goes to the database, and a file, which goes to the object store."""
    mlflow = client(settings)
    run = mlflow.create_run("0").info.run_id
    mlflow.log_metric(run, "auc", 0.8)
    mlflow.log_text(run, "hello", "note.txt")
    mlflow.set_terminated(run)
    return run


def reads_run(settings: Settings, run: str, folder: Path) -> bool:
    mlflow = client(settings)
    note = Path(mlflow.download_artifacts(run, "note.txt", str(folder)))
    return mlflow.get_run(run).data.metrics == {"auc": 0.8} and note.read_text() == "hello"


def mlflow_processes(supervisor: int) -> list[int]:
    return [pid for pid in descendants(supervisor) if "mlflow_server" in shown_by_ps(pid)]


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running stack with MLflow, which tests may hurt, if it heals."""
    directory = tmp_path_factory.mktemp("stack") / "data, here"
    up = mlplatform(directory, "up", **WITH_MLFLOW)
    assert up.returncode == 0, up.stderr
    assert "mlflow      http://127.0.0.1:" in up.stdout
    yield directory
    stack.stop(directory)


@pytest.fixture(scope="module")
def run(data_directory: Path) -> str:
    return write_run(settings_of(data_directory))


def test_it_keeps_runs_in_postgresql_and_files_in_s3(data_directory: Path, run: str, tmp_path: Path) -> None:
    settings = settings_of(data_directory)
    assert reads_run(settings, run, tmp_path)
    assert client(settings).get_run(run).info.artifact_uri.startswith("mlflow-artifacts:/")
    folder = data_directory / "stack" / "mlflow"
    assert not list((folder / "artifacts").iterdir())
    assert not (folder / "mlflow.db").exists()


def test_it_is_one_process_which_shows_no_password(data_directory: Path) -> None:
    supervisor = status(data_directory, **WITH_MLFLOW)["supervisor"]
    processes = mlflow_processes(supervisor)
    assert len(processes) == 1
    assert not descendants(processes[0])
    settings = settings_of(data_directory)
    folder = data_directory / "stack" / "mlflow"
    texts = [*map(shown_by_ps, [supervisor, *descendants(supervisor)])]
    texts += [log.read_text(errors="replace") for log in data_directory.rglob("*.log")]
    for secret in (
        settings.s3.secret_access_key,
        settings.database_url.partition("dagster:")[2].partition("@")[0],
    ):
        assert len(secret) > 20
        assert not any(secret in text for text in texts)
    assert {path.stat().st_mode & 0o777 for path in (folder / "pgpass", folder / "credentials")} == {0o600}


def test_a_killed_server_comes_back_at_its_address(data_directory: Path, run: str, tmp_path: Path) -> None:
    before = status(data_directory, **WITH_MLFLOW)
    (killed,) = mlflow_processes(before["supervisor"])
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: not lives(killed))
    assert eventually(lambda: status(data_directory, **WITH_MLFLOW)["ready"], seconds=40)
    assert status(data_directory, **WITH_MLFLOW) == before
    assert reads_run(settings_of(data_directory), run, tmp_path)


def test_it_outlives_a_lost_postgresql(data_directory: Path, run: str, tmp_path: Path) -> None:
    supervisor = status(data_directory, **WITH_MLFLOW)["supervisor"]
    (server,) = mlflow_processes(supervisor)
    postgres = next(pid for pid in descendants(supervisor) if program(pid) == "postgres")
    os.kill(postgres, signal.SIGKILL)
    assert eventually(lambda: not lives(postgres))
    settings = settings_of(data_directory)
    assert eventually(lambda: problem("mlflow", settings) is None, seconds=20)
    assert mlflow_processes(supervisor) == [server]
    assert reads_run(settings, run, tmp_path)


def test_a_killed_supervisor_leaves_nothing_and_loses_nothing(
    data_directory: Path, run: str, tmp_path: Path
) -> None:
    supervisor = status(data_directory, **WITH_MLFLOW)["supervisor"]
    pids = descendants(supervisor)
    assert mlflow_processes(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    assert eventually(lambda: not any(lives(pid) for pid in pids))
    with pytest.raises(ConfigurationError, match=r"mlplatform up.*MLFLOW_TRACKING_URI"):
        settings_of(data_directory).mlflow_tracking_uri  # noqa: B018
    assert mlplatform(data_directory, "up", **WITH_MLFLOW).returncode == 0
    assert reads_run(settings_of(data_directory), run, tmp_path)
    assert mlplatform(data_directory, "down").returncode == 0


def test_without_postgresql_and_s3_of_the_stack_it_keeps_its_own(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path / "data", **S3_ELSEWHERE, MLPLATFORM_DATABASE_URL="postgresql+psycopg2://127.0.0.1:9/x"
    )
    # Not the port of another test: MLflow's client remembers what the server there was able to.
    with running_stack(settings, {"mlflow": ports.choose(set())}):
        run = write_run(settings)
        assert reads_run(settings, run, tmp_path)
    assert (tmp_path / "data" / "stack" / "mlflow" / "mlflow.db").is_file()


def test_one_elsewhere_is_not_started(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, MLFLOW_TRACKING_URI="http://me:secret@127.0.0.1:9")
    assert stack.embedded_services(settings) == ["s3", "postgresql"]
    assert settings.mlflow_tracking_uri == "http://me:secret@127.0.0.1:9"
    found = problem("mlflow", settings)
    assert found
    assert "secret" not in found


def test_what_is_left_out_is_neither_started_nor_shown(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, MLPLATFORM_STACK_SERVICES=" s3 , redis")
    assert stack.embedded_services(settings) == ["s3", "redis"]
    assert [service.name for service in stack.status(settings).services] == ["s3", "redis"]
    with pytest.raises(ConfigurationError, match=r"'mysql' is not one of s3, redis, postgresql, mlflow"):
        stack.embedded_services(settings_of(tmp_path, MLPLATFORM_STACK_SERVICES="s3,mysql"))


def test_without_the_package_the_rest_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_others(name: str) -> metadata.Distribution:
        if name == "mlflow":
            raise metadata.PackageNotFoundError(name)
        return metadata.distribution(name)

    monkeypatch.setattr(servers, "distribution", only_others)
    settings = settings_of(tmp_path)
    assert stack.embedded_services(settings) == ["s3", "postgresql"]
    found = stack.status(settings).services[-1]
    assert (found.name, found.wanted, found.ready) == ("mlflow", False, False)
    assert "pip install 'mlplatform[mlflow]'" in str(found.problem)


def test_the_environment_is_what_mlflow_hands_to_its_own_server(tmp_path: Path) -> None:
    from mlflow.server import constants

    names = {
        constants.BACKEND_STORE_URI_ENV_VAR,
        constants.ARTIFACT_ROOT_ENV_VAR,
        constants.ARTIFACTS_DESTINATION_ENV_VAR,
        constants.SERVE_ARTIFACTS_ENV_VAR,
    }
    server = servers.MLflow(tmp_path, {"port": 1, "inner_ports": {}})
    assert names <= server.environment.keys()
