"""MLflow as a model registry: an SQLite file of the project, and the embedded server."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.domain.batch.pipeline import Training
from mlplatform.domain.batch.profile import Tracking
from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.frameworks import TrainingEnvironment
from mlplatform.io.plugins.model_registries import RegistryError, mlflow_connection
from mlplatform.io.plugins.model_registries.mlflow import MLflowRegistry
from mlplatform.io.plugins.model_registries.tracking_uri import tracking_store
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.io.plugins.model_registries_checks import CHECKS, SVG, files, tracked_run

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

STORES = ["sqlite", "server"]
NOWHERE = Settings({})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: making its tables takes MLflow two seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/runs.db"


@pytest.fixture(params=STORES)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> MLflowRegistry:
    if request.param == "sqlite":
        uri = request.getfixturevalue("database")
        return MLflowRegistry(Tracking(tracking_uri=uri), NOWHERE, tmp_path)
    running: RunningStack = request.getfixturevalue("mlflow_stack")
    return MLflowRegistry(Tracking(), Settings(running.variables), tmp_path)


@pytest.fixture
def client(registry: MLflowRegistry):
    """MLflow's own, to see what is there."""
    return registry._client


def test_it_is_a_plugin() -> None:
    assert plugin("model_registries", "mlflow") is MLflowRegistry


@pytest.mark.parametrize("check", CHECKS)
def test_registry(check: str, registry: MLflowRegistry, tmp_path: Path) -> None:
    CHECKS[check](registry, tmp_path)


def test_all_that_a_person_looks_for_is_in_mlflow(registry, client, tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING, "mlplatform")
    run = tracked_run(tmp_path)
    digits = {f"p{number}": number for number in range(120)}
    run = replace(run, parameters={**run.parameters, **digits, "grid": {"depth": [1, 2]}, "long": "x" * 7000})
    logged = registry.log(run)
    found = client.get_run(logged.run_id)

    assert (found.info.status, found.info.run_name) == ("FINISHED", "training_churn_model_v1")
    assert client.get_experiment(found.info.experiment_id).name == run.experiment
    assert found.data.metrics == run.metrics
    assert found.data.params["framework"] == "h2o_automl"
    assert found.data.params["grid"] == '{"depth": [1, 2]}'
    assert found.data.params["long"] == "x" * 6000
    assert "parameter long has 7000 characters and is cut after 6000" in caplog.text
    assert len(found.data.params) == len(run.parameters)
    assert run.tags.items() <= found.data.tags.items()
    assert found.data.tags["mlplatform.key"] == run.key

    dataset = found.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("customers", run.dataset_digest[:36])
    assert found.data.tags["mlplatform.dataset_digest"] == run.dataset_digest

    directory = Path(client.download_artifacts(logged.run_id, "", str(tmp_path)))
    assert (directory / "plots" / "roc_curve.svg").read_text() == SVG
    assert (directory / "tables" / "leaderboard.csv").read_text() == run.tables["leaderboard.csv"]
    assert files(directory / "model" / "bundle") == files(run.model)
    assert "h2o==3.46.0.11" in (directory / "model" / "requirements.txt").read_text()
    assert not [path for path in directory.rglob("*") if path.suffix in (".pkl", ".pickle")]

    version = client.get_model_version_by_alias(run.model_name, "challenger")
    assert (str(version.version), version.run_id) == (logged.version, logged.run_id)
    assert version.tags["mlplatform.key"] == run.key


def test_a_model_has_signature_and_example(registry, tmp_path) -> None:
    from mlflow.models import Model

    logged = registry.log(tracked_run(tmp_path))
    uri = f"runs:/{logged.run_id}/model"
    path = registry._client.download_artifacts(logged.run_id, "model", str(tmp_path))
    described = Model.load(path)
    assert described.signature.inputs.input_names() == ["tenure", "charges", "contract"]
    assert described.signature.outputs.input_names() == ["prediction", "prediction_probability"]
    assert described.load_input_example(path)["tenure"].tolist() == [1, 40]
    assert described.flavors["python_function"]["data"] == "bundle"
    assert uri.endswith("/model")


@pytest.mark.parametrize("registry", ["server"], indirect=True)
def test_a_killed_run_is_failed_and_made_anew(registry, client, tmp_path) -> None:
    """Killed at the last moment: all is written, and the model registered."""
    run = tracked_run(tmp_path)
    registry.log(run)
    experiment = client.get_experiment_by_name(run.experiment).experiment_id
    key = f"{run.key} killed"
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from mlplatform.domain.batch.profile import Tracking\n"
        "from mlplatform.io.plugins.model_registries.mlflow import MLflowRegistry\n"
        "from mlplatform.settings import Settings\n"
        "from mlplatform_tests.io.plugins.model_registries_checks import tracked_run\n"
        "uri, root, experiment, model, key = sys.argv[1:]\n"
        "registry = MLflowRegistry(Tracking(tracking_uri=uri), Settings({}), Path(root))\n"
        "registry._client.set_terminated = lambda *_: os._exit(9)\n"
        "registry.log(tracked_run(Path(root), experiment=experiment, model_name=model, key=key))\n"
    )
    uri = registry._store.uri
    killed = subprocess.run(
        [sys.executable, "-c", program, uri, str(tmp_path), run.experiment, run.model_name, key],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert killed.returncode == 9, killed.stderr
    assert killed.stdout == ""
    left = next(one for one in client.search_runs([experiment]) if one.info.status == "RUNNING")
    with pytest.raises(RegistryError, match=f"{left.info.run_id} .*is RUNNING, not FINISHED"):
        registry.resolve(run.model_name, left.info.run_id)

    anew = registry.log(replace(run, key=key))
    assert anew.run_id != left.info.run_id
    assert client.get_run(left.info.run_id).info.status == "FAILED"
    versions = client.search_model_versions(f"name = '{run.model_name}'")
    assert sorted(int(version.version) for version in versions) == [1, 3]


def test_a_failure_is_marked(registry, client, tmp_path) -> None:
    run = tracked_run(tmp_path)
    with pytest.raises(RegistryError, match="nowhere"):
        registry.log(replace(run, model=tmp_path / "nowhere"))
    experiment = client.get_experiment_by_name(run.experiment).experiment_id
    failed = client.search_runs([experiment])
    assert [one.info.status for one in failed] == ["FAILED"]
    with pytest.raises(RegistryError, match="is FAILED, not FINISHED"):
        registry.resolve(run.model_name, failed[0].info.run_id)


def test_runs_without_a_model_and_deleted_things_are_named(registry, client, tmp_path) -> None:
    run = tracked_run(tmp_path)
    logged = registry.log(run)
    experiment = client.get_experiment_by_name(run.experiment).experiment_id
    empty = client.create_run(experiment).info.run_id
    client.set_terminated(empty)
    with pytest.raises(RegistryError, match=f"{empty} .*has no model.*{logged.run_id}"):
        registry.resolve(run.model_name, empty)
    client.delete_run(empty)
    with pytest.raises(RegistryError, match=f"{empty} was deleted"):
        registry.resolve(run.model_name, empty)
    client.delete_experiment(experiment)
    with pytest.raises(RegistryError, match=rf"'{run.experiment}' was deleted.*restore"):
        registry.log(replace(run, key="other"))


def test_several_who_make_the_experiment_at_once(registry, tmp_path) -> None:
    run = tracked_run(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        logged = list(pool.map(lambda n: registry.log(replace(run, key=f"{run.key} {n}")), range(4)))
    assert sorted(int(one.version) for one in logged) == [1, 2, 3, 4]
    experiments = {registry._client.get_run(one.run_id).info.experiment_id for one in logged}
    assert len(experiments) == 1


def test_the_link_leads_to_the_run(mlflow_stack, tmp_path) -> None:
    settings = Settings(mlflow_stack.variables)
    registry = MLflowRegistry(Tracking(), settings, tmp_path)
    logged = registry.log(tracked_run(tmp_path))
    assert logged.url.startswith(f"{settings.mlflow_tracking_uri}/#/experiments/")
    assert logged.url.endswith(f"/runs/{logged.run_id}")


def test_no_state_of_mlflow_is_touched(registry, tmp_path, monkeypatch, capsys) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    uri = mlflow.get_tracking_uri()
    logged = registry.log(tracked_run(tmp_path / "project"))
    registry.fetch(logged, tmp_path / "fetched")
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == uri
    assert not (tmp_path / "mlruns").exists()
    assert "View run" not in capsys.readouterr().out


def test_an_artifact_location_is_used(database, tmp_path) -> None:
    tracking = Tracking(tracking_uri=database, artifact_location="./my artifacts")
    registry = MLflowRegistry(tracking, NOWHERE, tmp_path)
    logged = registry.log(tracked_run(tmp_path))
    assert (tmp_path / "my artifacts" / logged.run_id / "artifacts" / "model" / "MLmodel").is_file()


def test_a_folder_becomes_a_database_beside_it(tmp_path, caplog) -> None:
    registry = MLflowRegistry(Tracking(tracking_uri="file://./mlruns"), NOWHERE, tmp_path)
    logged = registry.log(tracked_run(tmp_path))
    assert (tmp_path / "mlruns.db").is_file()
    assert (tmp_path / "mlruns" / logged.run_id / "artifacts" / "plots").is_dir()
    said = [record.message for record in caplog.records if "no longer writes to folders" in record.message]
    assert len(said) == 1
    assert f"file://./mlruns becomes sqlite:///{tmp_path}/mlruns.db" in said[0]


@pytest.mark.parametrize(
    ("uri", "database", "artifacts"),
    [
        ("file://./mlruns", "/project/mlruns.db", "file:///project/mlruns"),
        ("file:./mlruns", "/project/mlruns.db", "file:///project/mlruns"),
        ("file:mlruns", "/project/mlruns.db", "file:///project/mlruns"),
        ("file:///var/my%20runs", "/var/my runs.db", "file:///var/my%20runs"),
        ("file://localhost/var/runs", "/var/runs.db", "file:///var/runs"),
        ("./mlruns", "/project/mlruns.db", "file:///project/mlruns"),
        ("/var/runs", "/var/runs.db", "file:///var/runs"),
        ("sqlite:///runs.db", "/project/runs.db", "file:///project/mlruns"),
        ("sqlite:////var/runs.db", "/var/runs.db", "file:///var/mlruns"),
    ],
)
def test_what_a_tracking_uri_means(uri: str, database: str, artifacts: str) -> None:
    store = tracking_store(uri, None, Path("/project"))
    assert (store.uri, store.artifact_location) == (f"sqlite:///{database}", artifacts)


def test_a_server_chooses_where_artifacts_go() -> None:
    store = tracking_store("http://mlflow:5000", None, Path("/project"))
    assert (store.uri, store.artifact_location) == ("http://mlflow:5000", None)
    bucket = tracking_store("http://mlflow:5000", "s3://mbt-mlflow-artifacts/", Path("/project"))
    assert bucket.artifact_location == "s3://mbt-mlflow-artifacts/"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_connection, "PATIENCE_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_down_is_said_soon_and_without_its_password(tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    uri = "http://user:c4n4ry%21@127.0.0.1:9"
    registry = MLflowRegistry(Tracking(tracking_uri=uri), NOWHERE, tmp_path)
    began = time.monotonic()
    for ask in (registry.check, lambda: registry.log(tracked_run(tmp_path)), lambda: registry.champion("x")):
        with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:9: .*refused") as raised:
            ask()
        assert "c4n4ry" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
    assert time.monotonic() - began < 15
    assert "c4n4ry" not in caplog.text


def test_a_password_of_the_server_shows_nowhere(mlflow_stack, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    address = Settings(mlflow_stack.variables).mlflow_tracking_uri.removeprefix("http://")
    registry = MLflowRegistry(Tracking(tracking_uri=f"http://me:c4n4ry@{address}"), NOWHERE, tmp_path)
    logged = registry.log(tracked_run(tmp_path))
    found = registry._client.get_run(logged.run_id)
    everything = f"{logged} {found.to_dictionary()} {registry.check()} {caplog.text}"
    with pytest.raises(RegistryError) as raised:
        registry.resolve("nothing", "nowhere")
    directory = registry._client.download_artifacts(logged.run_id, "", str(tmp_path))
    everything += str(raised.value) + str(files(Path(directory)))
    assert "c4n4ry" not in everything


def test_a_server_that_dies_in_between(mlflow_stack, tmp_path, monkeypatch) -> None:
    """Every request after the run was made fails, as it does when the server is gone."""
    registry = MLflowRegistry(Tracking(), Settings(mlflow_stack.variables), tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = tracked_run(tmp_path)

    class Dying(dict):
        def items(self):
            store = registry._client._tracking_client.store
            creds = store.get_host_creds()
            creds.host = "http://127.0.0.1:9"
            monkeypatch.setattr(store, "get_host_creds", lambda: creds)
            return super().items()

    with pytest.raises(RegistryError, match="refused"):
        registry.log(replace(run, metrics=Dying(run.metrics)))
    monkeypatch.undo()
    again = MLflowRegistry(Tracking(), Settings(mlflow_stack.variables), tmp_path)
    logged = again.log(run)
    assert again.resolve(run.model_name, logged.run_id) == logged


def test_without_a_server_the_remedy_is_said(tmp_path) -> None:
    from mlplatform.settings import ConfigurationError

    settings = Settings({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path)})
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_URI"):
        MLflowRegistry(Tracking(), settings, tmp_path).check()


def test_a_database_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").touch()
    registry = MLflowRegistry(Tracking(tracking_uri="sqlite:///file/runs.db"), NOWHERE, tmp_path)
    with pytest.raises(RegistryError, match=r"file/runs\.db.*writable"):
        registry.check()


def test_nothing_is_reported_to_anyone() -> None:
    """In a process of its own: pytest alone turns MLflow's telemetry off."""
    program = (
        "from mlplatform.settings import prepare_mlflow\n"
        "prepare_mlflow()\n"
        "import mlflow.telemetry\n"
        "assert mlflow.telemetry.get_telemetry_client() is None\n"
    )
    clean = {"PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], check=True, env=clean, timeout=60)


def test_the_module_imports_nothing_heavy() -> None:
    program = (
        "import sys, mlplatform.io.plugins.model_registries.mlflow\n"
        "print(*{'mlflow', 'pandas', 'sqlalchemy', 'requests'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == []


def test_mlflow_itself_loads_and_scores_with_the_model(registry, tmp_path, monkeypatch) -> None:
    """`mlflow.pyfunc.load_model` and its schema, with a missing value and a category never seen."""
    from mlplatform.io.model_bundle import fit_model
    from mlplatform.io.signing import Signer

    monkeypatch.setenv("MLPLATFORM_SNAPSHOT_KEY", "k" * 32)
    table = pd.DataFrame(
        {
            "customer_id": [f"c{number}" for number in range(60)],
            "tenure": range(60),
            "contract": pd.Categorical(["monthly", None, "yearly"] * 20),
            "churned": [0, 1] * 30,
        }
    )
    training = Training.model_validate(
        {
            "data_source": {"label_table": "customers"},
            "schema": {
                "target": {"label_column": "churned", "classes": [0, 1], "positive_class": 1},
                "identifiers": {"primary_key": "customer_id"},
            },
            "model_training": {"framework": "sklearn", "config": {"model": "LogisticRegression"}},
        }
    )
    environment = TrainingEnvironment(log=lambda line: None, workdir=tmp_path)
    model = fit_model(table, training, "binary_classification", environment)
    model.save(tmp_path / "model", Signer.from_settings(Settings.load()))
    example = table[["tenure", "contract"]]
    run = tracked_run(
        tmp_path,
        model=tmp_path / "model",
        example=example.head(3),
        prediction=model.predictions(example.head(3)),
        requirements=model.requirements,
    )
    logged = registry.log(run)

    path = registry._client.download_artifacts(logged.run_id, "model", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        loaded = mlflow.pyfunc.load_model(path)
        # MLflow has no word for categories.
        scored = loaded.predict(example.astype({"contract": object}))
        new = pd.DataFrame({"tenure": [3, 4], "contract": ["weekly", None]})
        strange = loaded.predict(new)
    pd.testing.assert_frame_equal(scored, model.predictions(example))
    assert scored["prediction_probability"].between(0, 1).all()
    assert set(scored["prediction"]) <= {0, 1}
    assert len(strange) == 2
