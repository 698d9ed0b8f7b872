"""G16: the passwords of a profile are in nothing that a run leaves or says, also when it fails."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlplatform.io.artifacts import REGISTRY
from mlplatform.io.plugins.data_connectors.postgres import PostgresConnector
from mlplatform.io.plugins.model_registries import mlflow_connection
from mlplatform.settings import Settings
from mlplatform_tests.batch_projects import SERVING, TRAINING, BatchProject, make, reasons, warehouse
from mlplatform_tests.cli.projects import call
from mlplatform_tests.faults.batch_harness import command

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

# No digits, which a time or an address may happen to have.
CANARY = "canary/Quetzal & more"


def secret(name: str) -> str:
    return f"{{{{ secret('{name}') }}}}"


@pytest.fixture
def project(mlflow_stack, tmp_path: Path) -> Iterator[BatchProject]:
    """On real servers, whose passwords it takes from secrets. MLflow asks for none, and is given one."""
    settings = Settings(mlflow_stack.variables)
    s3, server = settings.s3, urlsplit(settings.mlflow_tracking_uri)
    with warehouse(settings, labelled=200) as tables:
        secrets = {
            "PG_PASSWORD": tables.config["password"],
            "S3_SECRET_KEY": s3.secret_access_key,
            "MLFLOW_PASSWORD": "canary-of-mlflow",
        }
        storage = {
            "endpoint_url": s3.endpoint_url,
            "bucket": s3.bucket,
            "prefix": f"secrets-{tables.schema}",
            "access_key": s3.access_key_id,
            "secret_key": secret("S3_SECRET_KEY"),
        }
        uri = f"http://me:{secret('MLFLOW_PASSWORD')}@{server.netloc}"
        variables = {**mlflow_stack.variables, **secrets}
        made = make(tmp_path / "project", variables, tables, uri, storage={"type": "s3", "config": storage})
        yield made.change_target(data_connector__config__password=secret("PG_PASSWORD"))


def values(project: BatchProject) -> list[str]:
    found = [project.variables[name] for name in ("PG_PASSWORD", "S3_SECRET_KEY", "MLFLOW_PASSWORD")]
    assert all(len(value) > 10 for value in found)
    return found


def texts(*folders: Path) -> str:
    """All that is in the files: databases, logs, manifests, and what is packed in archives."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return "\n".join(part.decode(errors="replace") for path in files for part in parts(path.read_bytes()))


def parts(content: bytes) -> Iterator[bytes]:
    """A file as it is, and whatever it holds in compressed form, at any depth."""
    yield content
    if content.startswith(b"PAR1"):
        table = pq.read_table(io.BytesIO(content))
        yield str(table.schema).encode()
        yield str(table.schema.metadata).encode()
        yield table.to_pandas().to_csv().encode()
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from parts(archive.read(name))
    elif content.startswith(b"\x1f\x8b"):
        yield from parts(gzip.decompress(content))
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                yield member.name.encode()
                file = archive.extractfile(member)
                yield from parts(file.read() if file else b"")


def objects(project: BatchProject) -> dict[str, str]:
    """What each object of the bucket holds below the project's prefix, by its key."""
    storage = project.load().plugins.storage
    found = {}
    for key in storage.list(""):
        with storage.open(storage.uri(key)) as file:
            found[key] = "\n".join(part.decode(errors="replace") for part in parts(file.read()))
    return found


def events(instance: dg.DagsterInstance, run_id: str) -> str:
    return "\n".join(
        record.event_log_entry.to_json() for record in instance.get_records_for_run(run_id).records
    )


def test_the_search_sees_through_every_packing():
    inner, parquet = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        entry = tarfile.TarInfo("log.txt")
        entry.size = len(CANARY)
        tar.addfile(entry, io.BytesIO(CANARY.encode()))
    pq.write_table(pa.table({"text": [CANARY]}), parquet, compression="gzip")
    for packed in (inner.getvalue(), parquet.getvalue()):
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("packed", packed)
        assert CANARY.encode() not in outer.getvalue()
        assert any(CANARY.encode() in part for part in parts(outer.getvalue()))


def test_nothing_that_a_run_leaves_or_says_holds_a_secret(project, tmp_path, dagster_instance):
    """Training as a job of Dagster, serving by the command line."""
    result = project.run(TRAINING, dagster_instance)
    assert result.success, reasons(result)
    said = events(dagster_instance, result.run_id)
    for arguments in (["compile", "all", "--upload"], ["run", "--select", SERVING]):
        code, output = command(project, *arguments)
        assert code == 0, output
        said += output
    assert "success" in (project.root / "target" / SERVING / "run_results.json").read_text()
    # By an address without the password, which is MLflow's own.
    open_project = project.change_target(mlflow__tracking_uri=None)
    [run] = open_project.mlflow_runs()
    said += json.dumps(run.to_dictionary())
    client = open_project.registry()._client
    said += json.dumps([dict(version) for version in client.search_model_versions()], default=str)
    client.download_artifacts(run.info.run_id, "", str(tmp_path))
    # SQLite and logs of Dagster, the project with its manifests, and what MLflow keeps.
    said += texts(tmp_path)
    stored = objects(project)
    made = {key.rpartition("/")[2] for key in stored}
    assert {"raw_data", "train_set", "model", "run_id", "predictions", REGISTRY, f"{SERVING}.json"} <= made
    for value in values(project):
        assert value not in said
        assert [key for key, content in stored.items() if value in key + content] == []
    # It has looked into what is packed.
    for end, content in (
        ("load_data/raw_data", "C0-00001"),
        ("train_model/model", '"label_column": "churned"'),
    ):
        [found] = [text for key, text in stored.items() if key.endswith(end)]
        assert content in found


FAILURES = {
    "wrong password": ({"PG_PASSWORD": CANARY}, {}, "password of `data_connector.config`"),
    "no PostgreSQL": ({"PG_PASSWORD": CANARY}, {"data_connector__config__port": 9}, "check that it runs"),
    "wrong key": ({"S3_SECRET_KEY": CANARY}, {}, "storage s3"),
    "no MLflow": (
        {"MLFLOW_PASSWORD": CANARY},
        {"mlflow__tracking_uri": f"http://me:{secret('MLFLOW_PASSWORD')}@127.0.0.1:9"},
        "does the server run?",
    ),
    "an address that is none": (
        {"MLFLOW_PASSWORD": CANARY},
        {"mlflow__tracking_uri": f"http://[{secret('MLFLOW_PASSWORD')}"},
        "",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_a_failed_run_says_holds_no_secret(project, tmp_path, dagster_instance, monkeypatch, failure):
    monkeypatch.setattr(mlflow_connection, "PATIENCE_SECONDS", 0.1)
    variables, changes, message = FAILURES[failure]
    project = project.with_variables(**variables).change_target(**changes)
    result = project.run(SERVING, dagster_instance)
    assert not result.success
    assert message in reasons(result)
    for name, value in project.variables.items():
        monkeypatch.setenv(name, value)
    assert call("compile", SERVING, "--project-dir", str(project.root)).exit_code == 0
    step = "load_model" if "MLFLOW_PASSWORD" in variables else "load_scoring_data"
    arguments = ["--pipeline", SERVING, "--step", step, "--run-id", "run_1"]
    ended = call("step", "execute", *arguments, "--project-dir", str(project.root))
    assert ended.exit_code == 1, ended.output
    assert message in ended.output
    said = events(dagster_instance, result.run_id) + texts(tmp_path) + ended.output
    for spelling in (CANARY, "canary%2FQuetzal", "canary/Quetzal", "Quetzal"):
        assert spelling not in said, failure


def test_an_error_that_nobody_foresaw_holds_no_secret(project, tmp_path, dagster_instance, monkeypatch):
    password = project.variables["PG_PASSWORD"]

    def broken(*_: object) -> None:
        raise RuntimeError(f"internal: {password}")

    monkeypatch.setattr(PostgresConnector, "read", broken)
    result = project.run(SERVING, dagster_instance)
    assert not result.success
    assert "RuntimeError: internal: ***" in reasons(result)
    assert password not in events(dagster_instance, result.run_id) + texts(tmp_path)


def test_a_secret_that_is_not_there_is_named(project, dagster_instance):
    del project.variables["PG_PASSWORD"]
    result = project.run(SERVING, dagster_instance)
    assert "secret 'PG_PASSWORD' is not set" in reasons(result)
