"""What is wrong with data, models or servers is said with the remedy, and nothing is half written."""

# The one table that is put into statements is a constant.
# ruff: noqa: S608

from __future__ import annotations

import os
import shutil
import signal
from urllib.parse import urlsplit

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlplatform.io import model_bundle
from mlplatform.io.artifacts import Artifacts, PackedModel
from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.model_registries import mlflow_connection
from mlplatform_tests.batch_projects import (
    SERVING,
    TRAINING,
    BatchProject,
    Result,
    Warehouse,
    customers,
    failed_steps,
    outcomes,
    reasons,
    steps_run,
)
from mlplatform_tests.faults.batch_harness import start
from mlplatform_tests.io.h2o.servers import shared_server
from mlplatform_tests.local.processes import descendants, eventually, lives, program

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SCORED = "customers_to_score"
TRAINS = {
    "load_data": {"raw_data"},
    "split_data": {"train_set", "test_set"},
    "train_model": {"model", "train_metrics"},
    "evaluate": {"eval_metrics", "eval_plots"},
    "log_run": {"run_id"},
}


# More models than it has time for.
H2O = {"framework": "h2o_automl", "config": {"max_models": 50, "nfolds": 2, "include_algos": ["GBM", "GLM"]}}


def lines(instance: dg.DagsterInstance) -> list[str]:
    """What all runs have logged so far."""
    runs = instance.get_runs()
    return [entry.user_message for run in runs for entry in instance.all_logs(run.run_id)]


def refused(result: Result, step: str, *parts: str) -> None:
    """The run failed at the step alone, with a message that has these parts and no trace of ours."""
    assert not result.success
    assert failed_steps(result) == [step], reasons(result)
    for part in parts:
        assert part in reasons(result)
    assert "Traceback" not in reasons(result)


def nothing_tracked(project: BatchProject) -> None:
    assert [run for run in project.mlflow_runs() if run.info.status == "FINISHED"] == []
    assert project.registry().champion(project.model_name) is None


def to_score(rows: int = 60) -> pd.DataFrame:
    return customers(rows, seed=1).drop(columns="churned")


def quarantine(project: BatchProject, result: Result) -> pd.DataFrame:
    storage = plugin("storages", "local")({"base_path": "artifacts"}, project.settings, project.root)
    return Artifacts(storage, [f"{result.run_id}/{SERVING}"]).load("refused_rows").to_pandas()


# Training


def test_a_missing_table_is_named_with_those_that_are_there(batch_project, tables):
    tables.execute("ALTER TABLE customers RENAME TO custommers")
    result = batch_project.run(TRAINING)
    refused(result, "load_data", f"no table {tables.schema}.customers", "did you mean custommers?")
    assert batch_project.made(TRAINING, result.run_id) == set()
    nothing_tracked(batch_project)


def test_an_empty_table_ends_the_training(batch_project, tables):
    tables.execute("DELETE FROM customers")
    result = batch_project.run(TRAINING)
    refused(result, "load_data", "table customers: 0 rows, at least 10 are needed; load more into it")
    assert batch_project.made(TRAINING, result.run_id) <= {"raw_data"}
    nothing_tracked(batch_project)


def test_a_single_class_ends_the_training(batch_project, tables):
    tables.execute("UPDATE customers SET churned = 0")
    result = batch_project.run(TRAINING)
    refused(result, "load_data", "classes", "0")
    nothing_tracked(batch_project)


def test_repeated_keys_end_the_training(batch_project, tables):
    frame = customers(100)
    tables.fill("customers", pd.concat([frame, frame[:3]]), anew=True)
    result = batch_project.run(TRAINING)
    refused(result, "load_data", "table customers: customer_id must be unique", "C0-00000", "repair its rows")
    nothing_tracked(batch_project)


def test_missing_labels_end_the_training(batch_project, tables):
    frame = customers(100).astype({"churned": object})
    frame.loc[3, "churned"] = None
    tables.fill("customers", frame, anew=True)
    tables.execute("ALTER TABLE customers ALTER churned TYPE INT USING churned::INT")
    result = batch_project.run(TRAINING)
    refused(result, "load_data", "keys", "churned")
    nothing_tracked(batch_project)


def test_a_label_that_is_no_class_ends_the_training(batch_project, tables):
    frame = customers(100)
    frame.loc[3, "churned"] = 7
    tables.fill("customers", frame, anew=True)
    result = batch_project.run(TRAINING)
    assert not result.success
    assert "7" in reasons(result)
    assert "churned" in reasons(result) or "classes" in reasons(result)
    nothing_tracked(batch_project)


def test_a_transform_that_raises_is_named(batch_project):
    batch_project.code(
        "broken",
        "class Broken:\n"
        "    def fit(self, frame, target):\n        pass\n"
        "    def transform(self, frame):\n        raise ValueError('the moon is full')\n",
    )
    custom = [{"transform": "broken:Broken"}]
    batch_project.change(TRAINING, training__preprocessing={"custom": custom})
    result = batch_project.run(TRAINING)
    refused(result, "train_model", "broken:Broken", "the moon is full")
    assert batch_project.made(TRAINING, result.run_id) == {"raw_data", "train_set", "test_set"}
    nothing_tracked(batch_project)


def test_an_h2o_that_does_not_answer_is_named(batch_project):
    """The cluster that the profile names trains, and no other in its place."""
    batch_project.change(TRAINING, training__model_training=H2O)
    batch_project.change_target(h2o__url="http://127.0.0.1:9")
    result = batch_project.run(TRAINING)
    refused(result, "train_model", "H2O at http://127.0.0.1:9 cannot be reached", "check h2o.url")
    assert batch_project.made(TRAINING, result.run_id) == {"raw_data", "train_set", "test_set"}
    nothing_tracked(batch_project)


def test_an_h2o_that_dies_in_mid_training_is_told_and_another_trains_when_the_run_is_executed_again(
    batch_project, dagster_instance
):
    """The other is a server that the profile names, and has a limit of time, which is a warning."""
    batch_project.change(TRAINING, training__model_training=H2O)
    child = start(batch_project, TRAINING, dagster_instance)
    assert eventually(lambda: any("model 1 is" in line for line in lines(dagster_instance)), 60)
    below = descendants(child.process.pid)
    [java] = [pid for pid in below if program(pid) == "java"]
    os.kill(java, signal.SIGKILL)
    outcome = child.outcome()
    assert not outcome.success
    assert outcome.reasons.startswith(
        f"{TRAINING}__train_model: the Java process of H2O ended (killed by SIG"
    )
    for part in ("Give training more memory", "Its last lines:"):
        assert part in outcome.reasons
    assert "Traceback" not in outcome.reasons
    assert eventually(lambda: not any(lives(pid) for pid in below))
    [run] = dagster_instance.get_runs()
    # More memory is for a person to give, and not for the next attempt to hope for.
    assert len([line for line in lines(dagster_instance) if "starting a server" in line]) == 1
    assert batch_project.made(TRAINING, run.run_id) == {"raw_data", "train_set", "test_set"}
    assert batch_project.mlflow_runs() == []
    nothing_tracked(batch_project)

    limited = {"max_models": 1, "nfolds": 0, "max_runtime_secs": 60}
    batch_project.change(TRAINING, training__model_training__config={**H2O["config"], **limited})
    batch_project.change_target(h2o__url="{{ secret('H2O_URL') }}")
    elsewhere = batch_project.with_variables(H2O_URL=shared_server().url)
    again = elsewhere.run(TRAINING, dagster_instance, again=run.run_id)
    assert again.success, reasons(again)
    assert steps_run(again) == ["train_model", "evaluate", "log_run"]
    address = shared_server().url.rpartition("@")[2]
    assert f"H2O AutoML: on the server at http://{address}" in lines(dagster_instance)
    assert batch_project.made(TRAINING, run.run_id) == TRAINS["load_data"] | TRAINS["split_data"]
    check = outcomes(again)["reproducible"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "A time limit ended the training" in check.description


@pytest.mark.parametrize(("pipeline", "step"), [(TRAINING, "evaluate"), (SERVING, "load_model")])
def test_a_lost_mlflow_is_named(batch_project, tables, monkeypatch, pipeline, step):
    monkeypatch.setattr(mlflow_connection, "PATIENCE_SECONDS", 0.1)
    batch_project.change_target(mlflow__tracking_uri="http://127.0.0.1:9")
    result = batch_project.run(pipeline)
    refused(result, step, "MLflow at http://127.0.0.1:9", "does the server run?")
    made = batch_project.made(pipeline, result.run_id)
    assert made.isdisjoint(TRAINS["evaluate"] | TRAINS["log_run"] | {"model_metadata", "output"})
    assert tables.count() == 0


# Scoring


def test_an_empty_table_is_scored(serving_project, tables):
    """A day without new customers is no failure; a table that is gone is one."""
    tables.execute(f"DELETE FROM {SCORED}")
    result = serving_project.run(SERVING)
    assert result.success, reasons(result)
    assert tables.count() == 0
    tables.execute(f"DROP TABLE {SCORED}")
    result = serving_project.run(SERVING)
    refused(result, "load_scoring_data", f"no table {tables.schema}.{SCORED}")


def test_a_column_that_is_gone_since_training_is_named(serving_project, tables):
    tables.fill(SCORED, to_score().drop(columns="tenure"), anew=True)
    result = serving_project.run(SERVING)
    refused(result, "apply_transforms", SCORED, "tenure", "put it back, or train")
    assert serving_project.made(SERVING, result.run_id) == {"scoring_data", "model", "model_metadata"}
    assert tables.count() == 0


def test_a_key_column_that_is_gone_is_named(serving_project, tables):
    tables.fill(SCORED, to_score().rename(columns={"customer_id": "client"}), anew=True)
    result = serving_project.run(SERVING)
    refused(result, "load_scoring_data", "customer_id")
    assert tables.count() == 0


def test_repeated_keys_are_not_scored(serving_project, tables):
    frame = to_score()
    tables.fill(SCORED, pd.concat([frame, frame[:2]]), anew=True)
    result = serving_project.run(SERVING)
    refused(result, "load_scoring_data", "keys", "C1-00000", "C1-00001")
    assert tables.count() == 0


def test_rows_that_cannot_be_scored_go_to_quarantine_with_their_reason(serving_project, tables):
    frame = to_score().astype({"customer_id": object, "tenure": float})
    frame.loc[0, "customer_id"] = None
    frame.loc[1, "customer_id"] = None
    frame.loc[2, "monthly_charges"] = np.inf
    frame.loc[3, "monthly_charges"] = -np.inf
    tables.fill(SCORED, frame.replace({np.inf: "Infinity", -np.inf: "-Infinity"}).astype(object), anew=True)
    for name in ("tenure", "monthly_charges", "total_charges"):
        tables.execute(f"ALTER TABLE {SCORED} ALTER {name} TYPE FLOAT USING {name}::FLOAT")
    tables.execute(f"UPDATE {SCORED} SET total_charges = 'NaN' WHERE customer_id = 'C1-00004'")
    result = serving_project.run(SERVING)
    assert result.success, reasons(result)
    refused_rows = quarantine(serving_project, result)
    bad = dict(zip(refused_rows["customer_id"], refused_rows["reason"], strict=True))
    assert refused_rows["customer_id"].isna().sum() == 2
    assert "customer_id is missing" in set(refused_rows["reason"])
    assert {"C1-00002", "C1-00003"} <= bad.keys()
    assert "monthly_charges" in bad["C1-00002"]
    check = outcomes(result)["refused"]
    assert not check.passed
    assert check.metadata["refused_rows"].value == len(refused_rows)
    assert tables.count() + len(refused_rows) == 60


def test_a_table_of_which_no_row_can_be_scored_ends_the_run_with_the_reason(serving_project, tables):
    """A few bad rows are for the quarantine; a table of nothing else is a broken one."""
    tables.execute(f"UPDATE {SCORED} SET monthly_charges = 'Infinity'")
    result = serving_project.run(SERVING)
    found = "check refused of refused_rows: 60 of 60 rows cannot be scored: 60 because "
    refused(result, "apply_transforms", f"{found}monthly_charges")
    assert outcomes(result)["refused"].severity == dg.AssetCheckSeverity.ERROR
    assert len(quarantine(serving_project, result)) == 60
    assert tables.count() == 0


def test_a_column_that_has_become_text_is_named(serving_project, tables):
    """Were its rows refused one by one, it could be all of them, and the run succeed with no score."""
    frame = to_score().astype({"tenure": object})
    frame.loc[7, "tenure"] = "long"
    tables.fill(SCORED, frame, anew=True)
    result = serving_project.run(SERVING)
    refused(result, "apply_transforms", "tenure is of type string, and was a number in training")
    assert tables.count() == 0


def test_categories_that_training_has_not_seen_are_scored_and_counted(batch_project, tables):
    contracts = ["monthly", "yearly"]
    frame = customers(300)
    tables.fill("customers", frame.assign(contract=[contracts[n % 2] for n in range(300)]), anew=True)
    new = to_score().assign(contract=["monthly"] * 57 + ["lifetime"] * 3)
    tables.fill(SCORED, new, anew=True)
    trained = batch_project.run(TRAINING)
    assert trained.success, reasons(trained)
    result = batch_project.run(SERVING)
    assert result.success, reasons(result)
    assert tables.count() == 60
    assert "contract has 3 values that training has not seen" in str(outcomes(result)["drift"].description)


# Models


def test_a_run_that_is_not_there_is_named_with_those_that_are(serving_project, tables):
    [known] = serving_project.mlflow_runs()
    serving_project.change(SERVING, serving__model_source__run_id="0" * 32)
    result = serving_project.run(SERVING)
    refused(result, "load_model", f"there is no run '{'0' * 32}'", known.info.run_id, "run_id: champion")
    assert tables.count() == 0


def test_without_a_champion_the_remedy_is_to_train(batch_project, tables):
    result = batch_project.run(SERVING)
    refused(result, "load_model", f"the model {batch_project.model_name} has no champion", "train one")
    assert tables.count() == 0


def test_the_fallback_scores_instead_and_says_so(serving_project, tables):
    [known] = serving_project.mlflow_runs()
    source = {"run_id": "0" * 32, "fallback_run_id": known.info.run_id}
    serving_project.change(SERVING, serving__model_source=source)
    result = serving_project.run(SERVING)
    assert result.success, reasons(result)
    [rows] = tables.scores().values()
    assert {row["model_run_id"] for row in rows} == {known.info.run_id}
    check = outcomes(result)["asked_for"]
    assert not check.passed
    assert f"{known.info.run_id} scores instead of {'0' * 32}" in check.description


def test_a_fallback_that_is_not_there_either_is_named(serving_project, tables):
    source = {"run_id": "0" * 32, "fallback_run_id": "1" * 32}
    serving_project.change(SERVING, serving__model_source=source)
    result = serving_project.run(SERVING)
    refused(result, "load_model", f"there is no run '{'1' * 32}'")
    assert tables.count() == 0


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_snapshot_keeps_the_model_with_the_run(batch_project, tables, dagster_instance, snapshot):
    """With one, a run can be executed again when MLflow has lost the model; else it cannot."""
    trained = batch_project.run(TRAINING)
    assert trained.success, reasons(trained)
    batch_project.change(SERVING, serving__model_source__artifact_snapshot=snapshot)
    batch_project.change(SERVING, serving__output__columns=["tenur"])
    failed = batch_project.run(SERVING, dagster_instance)
    refused(failed, "apply_transforms", "serving.output.columns", "tenur")
    storage = plugin("storages", "local")(
        {"base_path": "artifacts"}, batch_project.settings, batch_project.root
    )
    model = Artifacts(storage, [f"{failed.run_id}/{SERVING}"]).load("model")
    assert isinstance(model, PackedModel) == snapshot
    [known] = batch_project.mlflow_runs()
    if not snapshot:
        assert model["run_id"] == known.info.run_id

    shutil.rmtree(urlsplit(known.info.artifact_uri).path)
    batch_project.change(SERVING, serving__output__columns=None)
    again = batch_project.run(SERVING, dagster_instance, again=failed.run_id)
    if snapshot:
        assert again.success, reasons(again)
        assert steps_run(again) == ["apply_transforms", "predict", "publish"]
        [(serving_run_id, rows)] = tables.scores().items()
        assert (serving_run_id, len(rows)) == (failed.run_id, 60)
        assert {row["model_run_id"] for row in rows} == {known.info.run_id}
    else:
        refused(again, "apply_transforms", "is gone from MLflow at ", "name another run")
        assert tables.count() == 0


def test_a_model_that_was_signed_with_another_key_is_refused(serving_project, tables):
    elsewhere = serving_project.with_variables(MLPLATFORM_SNAPSHOT_KEY="another key " * 4)
    result = elsewhere.run(SERVING)
    refused(result, "load_model", "signature", "MLPLATFORM_SNAPSHOT_KEY")
    assert tables.count() == 0


def test_a_model_of_another_scikit_learn_is_refused(serving_project, tables, monkeypatch):
    """G11."""
    installed = model_bundle.version
    monkeypatch.setattr(
        model_bundle, "version", lambda name: "99.0.0" if name == "scikit-learn" else installed(name)
    )
    result = serving_project.run(SERVING)
    refused(result, "load_model", "was trained with scikit-learn", "99.0.0", "pip install")
    assert tables.count() == 0


def test_no_one_wins_against_a_champion_that_cannot_be_read(batch_project):
    """Of the wrong key, say: what it would have said of the test set is not known."""
    assert batch_project.run(TRAINING).success
    registry, name = batch_project.registry(), batch_project.model_name
    champion = registry.champion(name)
    elsewhere = batch_project.with_variables(MLPLATFORM_SNAPSHOT_KEY="another key " * 4)
    result = elsewhere.run(TRAINING)
    refused(result, "evaluate", "the signature of", "MLPLATFORM_SNAPSHOT_KEY")
    assert elsewhere.made(TRAINING, result.run_id).isdisjoint(TRAINS["evaluate"] | TRAINS["log_run"])
    assert len(batch_project.mlflow_runs()) == 1
    assert registry.champion(name) == champion


def test_half_a_publication_is_none(serving_project, tables: Warehouse):
    tables.execute("ALTER TABLE churn_predictions ADD CONSTRAINT sure CHECK (customer_id <> 'C1-00059')")
    result = serving_project.run(SERVING)
    refused(result, "publish", f"table {tables.schema}.churn_predictions", "sure", "C1-00059")
    assert "output" not in serving_project.made(SERVING, result.run_id)
    assert tables.count() == 0
