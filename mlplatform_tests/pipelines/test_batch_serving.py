"""What a serving pipeline does with rows, on their way from the tables to the scores."""

# Names of tables that are put into statements are constants.
# ruff: noqa: S608

from __future__ import annotations

import dagster as dg
import pandas as pd
import pytest

from mlplatform.io.artifacts import Artifacts
from mlplatform.io.plugins import plugin
from mlplatform_tests.batch_projects import (
    SERVING,
    TRAINING,
    BatchProject,
    Result,
    Warehouse,
    customers,
    outcomes,
    reasons,
)

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

SCORED = "customers_to_score"
OUTPUT = {"destination": "database", "table": "scores"}


def to_score() -> pd.DataFrame:
    return customers(60, seed=1).drop(columns="churned")


def probabilities(tables: Warehouse, result: Result) -> dict[str, float]:
    """Of a run's customers."""
    assert result.success, reasons(result)
    return {row["customer_id"]: row["prediction_probability"] for row in tables.scores()[result.run_id]}


def quarantine(project: BatchProject, result: Result) -> dict[str, str]:
    """Why customers are not scored."""
    storage = plugin("storages", "local")({"base_path": "artifacts"}, project.settings, project.root)
    refused = Artifacts(storage, [f"{result.run_id}/{SERVING}"]).load("refused_rows").to_pandas()
    return dict(zip(refused["customer_id"], refused["reason"], strict=True))


# Joined tables


def test_what_a_model_knows_of_a_joined_table_is_joined_to_what_it_scores(batch_project, tables):
    """Scores are those of a table that has the column itself, whatever the order of the joined one."""
    labelled, new = customers(300), to_score()
    calls = pd.concat(
        # Who called often is gone.
        [
            pd.DataFrame({"customer_id": labelled["customer_id"], "calls": 5 * labelled["churned"]}),
            pd.DataFrame({"customer_id": new["customer_id"], "calls": [n % 6 for n in range(60)]}),
        ]
    )
    calls["calls"] += calls["customer_id"].str[-1].astype(int) % 2
    # The last customer has no row there, and is scored all the same.
    tables.fill("contacts", calls[:-1].sample(frac=1, random_state=3), anew=True)
    join = {"feature_tables": [{"table": "contacts", "join_key": ["customer_id"]}]}
    imputed = {"imputation": {"strategy": "median"}}
    batch_project.change(
        TRAINING,
        training__data_source={"label_table": "customers", **join},
        training__preprocessing=imputed,
    )
    batch_project.change(SERVING, serving__data_source={"scoring_table": SCORED, **join})
    trained = batch_project.run(TRAINING)
    assert trained.success, reasons(trained)
    [model] = batch_project.mlflow_runs()
    assert '"calls"' in model.data.params["features"]
    joined = probabilities(tables, batch_project.run(SERVING))
    assert len(joined) == 60

    with_calls = new.merge(calls[:-1], how="left", on="customer_id").astype({"calls": "Int64"})
    tables.execute(f"ALTER TABLE {SCORED} ADD COLUMN calls INT; DELETE FROM {SCORED}")
    tables.fill(SCORED, with_calls)
    batch_project.change(SERVING, serving__data_source={"scoring_table": SCORED})
    assert probabilities(tables, batch_project.run(SERVING)) == joined
    # And the joined column decides much of them.
    tables.execute(f"UPDATE {SCORED} SET calls = 0")
    without = probabilities(tables, batch_project.run(SERVING))
    assert max(joined[key] - without[key] for key in joined) > 0.2


# Drift


def test_a_feature_that_has_moved_is_a_warning_and_one_that_has_not_is_none(serving_project, tables):
    """The population stability index of each, against the training data."""
    alike = serving_project.run(SERVING)
    assert len(probabilities(tables, alike)) == 60
    check = outcomes(alike)["drift"]
    assert check.passed
    assert check.description == "No feature has moved."
    assert {"psi tenure", "psi monthly_charges", "psi total_charges"} == set(check.metadata)

    tables.execute(f"UPDATE {SCORED} SET tenure = tenure + 100")
    moved = serving_project.run(SERVING)
    assert len(probabilities(tables, moved)) == 60
    check = outcomes(moved)["drift"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    psi = {name.removeprefix("psi "): value.value for name, value in check.metadata.items()}
    assert check.description == f"tenure has moved (PSI {psi['tenure']:.3f})."
    assert psi["tenure"] > 2
    before = outcomes(alike)["drift"].metadata
    assert psi["monthly_charges"] == before["psi monthly_charges"].value


# Rows that the pipeline's own checks keep back


def test_rows_that_fail_a_check_are_skipped_with_the_reason_and_the_others_are_scored(
    serving_project, tables
):
    checks = [
        {"name": "value_range", "columns": ["tenure"], "min": 10, "on_failure": "skip_row"},
        {"name": "value_range", "columns": ["monthly_charges"], "max": 110, "on_failure": "skip_row"},
    ]
    serving_project.change(SERVING, serving__data_checks=checks)
    tables.execute(f"UPDATE {SCORED} SET total_charges = 'Infinity' WHERE customer_id = 'C1-00000'")
    tables.execute(f"UPDATE {SCORED} SET tenure = 1, monthly_charges = 111 WHERE customer_id = 'C1-00000'")
    rows = {
        key: (tenure, charges)
        for key, tenure, charges in tables.execute(
            f"SELECT customer_id, tenure, monthly_charges FROM {SCORED}"
        )
    }
    new = {key for key, (tenure, _) in rows.items() if tenure < 10}
    dear = {key for key, (_, charges) in rows.items() if charges > 110}
    assert new - dear
    assert dear - new
    result = serving_project.run(SERVING)
    assert set(probabilities(tables, result)) == rows.keys() - new - dear
    why = quarantine(serving_project, result)
    assert why.keys() == new | dear
    short, costly = "tenure must be at least 10", "monthly_charges must be at most 110"
    assert {why[key] for key in new - dear} == {short}
    assert {why[key] for key in dear - new} == {costly}
    for part in ("total_charges", short, costly):
        assert part in why["C1-00000"]
    found = outcomes(result)
    for name, failing in (("value_range", new), ("value_range_2", dear)):
        assert not found[name].passed
        assert found[name].severity == dg.AssetCheckSeverity.WARN
        assert found[name].metadata["failing_rows"].value == len(failing)
    assert found["refused"].metadata["refused_rows"].value == len(new | dear)
    assert found["refused"].severity == dg.AssetCheckSeverity.WARN


# What is published


@pytest.mark.parametrize("included", [True, False])
def test_probabilities_are_published_if_they_are_asked_for(serving_project, tables, included):
    output = {**OUTPUT, "include_probabilities": included}
    result = serving_project.change(SERVING, serving__output=output).run(SERVING)
    assert result.success, reasons(result)
    columns = {
        name
        for (name,) in tables.execute(
            "SELECT column_name FROM information_schema.columns "
            f"WHERE table_schema = '{tables.schema}' AND table_name = 'scores'"
        )
    }
    always = {"customer_id", "prediction", "execution_date", "model_run_id", "serving_run_id"}
    assert columns == always | ({"prediction_probability"} if included else set())
    assert {class_ for (class_,) in tables.execute("SELECT DISTINCT prediction FROM scores")} == {0, 1}
    assert tables.count("scores") == 60


def test_a_file_is_written_beside_a_database_too(serving_project, tables):
    result = serving_project.change(SERVING, serving__output={"destination": "local_file"}).run(SERVING)
    assert result.success, reasons(result)
    written = pd.read_csv(serving_project.root / "predictions.csv")
    assert set(written["customer_id"]) == set(to_score()["customer_id"])
    assert set(written["serving_run_id"]) == {result.run_id}
    assert tables.count() == 0
