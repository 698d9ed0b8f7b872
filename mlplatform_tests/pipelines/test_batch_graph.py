"""The seed's end goals on real parts, and what a training does to the champion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from mlplatform.domain.batch.profile import Tracking
from mlplatform.io.plugins.model_registries.mlflow import MLflowRegistry
from mlplatform.settings import Settings
from mlplatform_tests.batch_projects import (
    SERVING,
    TRAINING,
    Warehouse,
    customers,
    failed_steps,
    outcomes,
    reasons,
)
from mlplatform_tests.graphs import environment
from mlplatform_tests.local import processes

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

JOBS = ["training_churn_model_v1", "serving_churn_model_v1"]


@pytest.fixture(scope="module")
def whole() -> dg.Definitions:
    from mlplatform.definitions import defs

    # Of Dagster's own loading of components.
    with warnings.catch_warnings(action="ignore"):
        return defs()


def test_both_schedules_are_there(whole):
    for job, cron in zip(JOBS, ("0 0 1 * *", "0 0 * * *"), strict=True):
        [schedule] = [each for each in whole.schedules or () if each.job_name == job]
        assert schedule.cron_schedule == cron
        assert schedule.execution_timezone == "UTC"
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert whole.resolve_job_def(job)


def test_the_scores_descend_from_the_customers(whole):
    graph = whole.resolve_asset_graph()

    def above(name: str) -> set[str]:
        return {key.to_user_string() for key in graph.get_ancestor_asset_keys(dg.AssetKey(name))}

    assert "customers" in above("churn_model")
    assert {"churn_model", "customers", "customers_to_score"} <= above("churn_predictions")


@pytest.fixture(scope="module")
def after_both_jobs(mlflow_stack, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Dagster's home and the variables, after `dagster job execute` of both jobs, training first."""
    home = tmp_path_factory.mktemp("dagster_home")
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    data_directory = Path(mlflow_stack.variables["MLPLATFORM_DATA_DIRECTORY"])
    variables = {**mlflow_stack.variables, "DAGSTER_HOME": str(home)}
    for job in JOBS:
        ended = subprocess.run(
            [sys.executable, "-m", "dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", job],
            env=processes.environment(data_directory, **variables),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return home, variables


def test_both_jobs_have_successful_runs_in_their_history(after_both_jobs):
    home, _ = after_both_jobs
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for job in JOBS:
            [run] = instance.get_runs(dg.RunsFilter(job_name=job))
            assert run.is_success


def test_the_model_is_in_mlflow_with_all_that_a_person_looks_for(after_both_jobs, tmp_path):
    settings = Settings(after_both_jobs[1])
    registry = MLflowRegistry(Tracking(), settings, tmp_path)
    client = registry._client
    champion = registry.champion("churn_model")
    run = client.get_run(champion.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "churn_prediction"
    assert run.info.status == "FINISHED"
    for metric in ("roc_auc", "accuracy", "f1", "precision", "recall"):
        assert 0 < run.data.metrics[metric] <= 1
    assert run.data.metrics["roc_auc"] > 0.75
    assert run.data.params["framework"] == "h2o_automl"
    assert run.data.params["problem_type"] == "binary_classification"
    assert run.data.tags["pipeline_name"] == "training_churn_model_v1"
    artefacts = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert {path.suffix for path in (artefacts / "plots").iterdir()} == {".svg"}
    assert len(list((artefacts / "plots").iterdir())) >= 5
    assert not [path for path in artefacts.rglob("*") if path.suffix in (".pkl", ".pickle")]

    # Of MLflow's own types, when they are imported.
    with warnings.catch_warnings(action="ignore"):
        import mlflow.pyfunc

    two = {"tenure": [1, 70], "monthly_charges": [99.0, 20.0], "total_charges": [99.0, 1400.0]}
    with environment(after_both_jobs[1]):
        model = mlflow.pyfunc.load_model(str(artefacts / "model"))
        said = model.predict(pd.DataFrame(two))
    assert said["prediction"].isin([0, 1]).all()
    new, loyal = said["prediction_probability"]
    assert 1 > new > loyal > 0


def test_each_customer_to_score_has_a_score(after_both_jobs, tmp_path):
    home, variables = after_both_jobs
    settings = Settings(variables)
    public = Warehouse(settings, "public")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_runs(dg.RunsFilter(job_name=JOBS[1]))
    # The table may hold the scores of another file's runs: a worker has one stack for all of its files.
    rows = public.scores()[run.run_id]
    assert [row["customer_id"] for row in rows] == [
        key for (key,) in public.execute("SELECT customer_id FROM customers_to_score ORDER BY customer_id")
    ]
    assert len(rows) == 1372
    assert {row["prediction"] for row in rows} == {0, 1}
    assert all(0 <= row["prediction_probability"] <= 1 for row in rows)
    [time] = {row["execution_date"] for row in rows}
    assert abs(datetime.now(UTC).replace(tzinfo=None) - time) < timedelta(minutes=10)
    champion = MLflowRegistry(Tracking(), settings, tmp_path).champion("churn_model")
    assert {row["model_run_id"] for row in rows} == {champion.run_id}


# Champion and challenger


def test_the_same_data_gives_the_same_model_which_takes_over(batch_project):
    for _ in range(2):
        result = batch_project.run(TRAINING)
        assert result.success, reasons(result)
        assert outcomes(result)["beats_champion"].passed
        assert outcomes(result)["reproducible"].passed
    newest, first = batch_project.mlflow_runs()
    assert newest.data.metrics == first.data.metrics
    registry = batch_project.registry()
    assert registry.champion(batch_project.model_name).run_id == newest.info.run_id


def test_a_worse_model_stays_challenger_and_ends_the_run(batch_project, tables):
    assert batch_project.run(TRAINING).success
    registry, name = batch_project.registry(), batch_project.model_name
    champion = registry.champion(name)
    # A single leaf, which knows no more than the share of those who leave.
    stump = {"model": "DecisionTreeClassifier", "max_depth": 1, "min_samples_leaf": 110}
    batch_project.change(TRAINING, training__model_training__config=stump)
    result = batch_project.run(TRAINING)
    assert failed_steps(result) == ["log_run"]
    for part in ("beats_champion", "is worse than the champion: roc_auc", "with the alias challenger"):
        assert part in reasons(result)
    assert not outcomes(result)["beats_champion"].passed
    assert registry.champion(name) == champion
    challenger = registry._client.get_model_version_by_alias(name, "challenger")
    [worse] = [run for run in batch_project.mlflow_runs() if run.info.run_id != champion.run_id]
    assert challenger.run_id == worse.info.run_id
    assert worse.info.status == "FINISHED"
    assert batch_project.run(SERVING).success
    [rows] = tables.scores().values()
    assert {row["model_run_id"] for row in rows} == {champion.run_id}


# The project's own code

PER_MONTH = """
import pandas as pd

class PerMonth:
    def fit(self, frame, target):
        self.usual = float(frame["monthly_charges"].mean())

    def transform(self, frame):
        months = frame["tenure"].where(frame["tenure"] > 0)
        return frame.assign(per_month=(frame["total_charges"] / months).fillna(self.usual))
"""


def test_a_transform_of_the_project_travels_inside_the_model(batch_project, tables, tmp_path):
    batch_project.code("months", PER_MONTH)
    custom = {"custom": [{"transform": "months:PerMonth"}]}
    batch_project.change(TRAINING, training__preprocessing=custom)
    trained = batch_project.run(TRAINING)
    assert trained.success, reasons(trained)
    [run] = batch_project.mlflow_runs()
    assert "customer_id" not in json.loads(run.data.params["features"])
    assert batch_project.run(SERVING).success
    batch_project.code("months", PER_MONTH.replace("fillna(self.usual)", "fillna(0) * 1000"))
    assert batch_project.run(SERVING).success
    # In production there may be no such file at all.
    shutil.rmtree(batch_project.root / "lib")
    elsewhere = batch_project.copy(tmp_path / "elsewhere", tables)
    (elsewhere.root / "pipelines" / f"{TRAINING}.yaml").unlink()
    last = elsewhere.run(SERVING)
    assert last.success, reasons(last)
    first, *others = ([row["prediction_probability"] for row in rows] for rows in tables.scores().values())
    assert len(others) == 2
    assert first == others[0] == others[1]
    # It does something: without it, the same customers get other scores.
    batch_project.change(TRAINING, training__preprocessing=None)
    batch_project.run(TRAINING)
    [without] = [each for each in batch_project.mlflow_runs() if each.info.run_id != run.info.run_id]
    batch_project.change(SERVING, serving__model_source__run_id=without.info.run_id)
    last = batch_project.run(SERVING)
    assert [row["prediction_probability"] for row in tables.scores()[last.run_id]] != first


def test_columns_of_the_scoring_table_can_be_published_beside_the_scores(serving_project, tables):
    serving_project.change(
        SERVING, serving__output={"destination": "database", "table": "scores", "columns": ["tenure"]}
    )
    result = serving_project.run(SERVING)
    assert result.success, reasons(result)
    expected = customers(60, seed=1).set_index("customer_id")["tenure"].to_dict()
    assert dict(tables.execute("SELECT customer_id, tenure FROM scores")) == expected
