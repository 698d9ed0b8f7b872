"""Runs of batch pipelines beside and after each other: again, in part, two at once."""

from __future__ import annotations

import dagster as dg
import pytest

from mlplatform_tests.batch_projects import (
    SCORES,
    SERVING,
    SERVING_STEPS,
    TRAINING,
    Warehouse,
    customers,
    failed_steps,
    reasons,
    steps_run,
)
from mlplatform_tests.faults.batch_harness import start
from mlplatform_tests.faults.harness import processes

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def refuse(tables: Warehouse) -> None:
    """The last of the customers cannot be published."""
    tables.execute(
        "ALTER TABLE churn_predictions ADD CONSTRAINT sure CHECK (customer_id <> 'C1-00059') NOT VALID"
    )


def allow(tables: Warehouse) -> None:
    tables.execute("ALTER TABLE churn_predictions DROP CONSTRAINT sure")


PREDICTIONS, OUTPUT = dg.AssetKey([SERVING, "predictions"]), dg.AssetKey(SCORES)


def test_a_new_run_adds_its_scores_to_those_of_others(serving_project, tables, dagster_instance):
    first, second = (serving_project.run(SERVING, dagster_instance) for _ in range(2))
    assert first.success, reasons(first)
    assert second.success, reasons(second)
    scores = tables.scores()
    assert {run: len(rows) for run, rows in scores.items()} == {first.run_id: 60, second.run_id: 60}


def test_a_run_that_is_executed_again_keeps_its_serving_run_id(serving_project, tables, dagster_instance):
    """G14: publishing failed half-way; what is executed again is the same serving run."""
    refuse(tables)
    failed = serving_project.run(SERVING, dagster_instance)
    assert failed_steps(failed) == ["publish"]
    assert "sure" in reasons(failed)
    assert tables.count() == 0
    allow(tables)
    again = serving_project.run(SERVING, dagster_instance, again=failed.run_id)
    assert again.success, reasons(again)
    assert steps_run(again) == ["publish"]
    assert {run: len(rows) for run, rows in tables.scores().items()} == {failed.run_id: 60}


def test_scores_are_published_again_in_place_of_those_before(serving_project, tables, dagster_instance):
    """G14: the run had published, and was lost afterwards."""
    first = serving_project.run(SERVING, dagster_instance)
    assert first.success, reasons(first)
    dagster_instance.report_run_failed(dagster_instance.get_run_by_id(first.run_id))
    again = serving_project.run(SERVING, dagster_instance, again=first.run_id, whole=True)
    assert again.success, reasons(again)
    assert sorted(steps_run(again)) == sorted(SERVING_STEPS)
    assert {run: len(rows) for run, rows in tables.scores().items()} == {first.run_id: 60}


def test_each_attempt_takes_what_any_attempt_before_it_made(serving_project, tables, dagster_instance):
    """And nothing of another run, however new that is."""
    refuse(tables)
    elsewhere = serving_project.with_variables(MLPLATFORM_SNAPSHOT_KEY="another key " * 4)
    first = elsewhere.run(SERVING, dagster_instance)
    assert failed_steps(first) == ["load_model"]
    second = serving_project.run(SERVING, dagster_instance, again=first.run_id)
    assert "predict" in steps_run(second)
    third = serving_project.run(SERVING, dagster_instance, again=second.run_id)
    assert steps_run(third) == failed_steps(third) == ["publish"]
    allow(tables)
    # Another run on more customers makes newer artefacts of the same names.
    tables.fill("customers_to_score", customers(7, seed=2).drop(columns="churned"))
    other = serving_project.run(SERVING, dagster_instance)
    assert other.success, reasons(other)
    last = serving_project.run(SERVING, dagster_instance, again=third.run_id)
    assert last.success, reasons(last)
    assert steps_run(last) == ["publish"]
    rows = {run: len(rows) for run, rows in tables.scores().items()}
    assert rows == {other.run_id: 67, first.run_id: 60}


def test_what_is_not_made_is_taken_from_the_newest_run(serving_project, tables, dagster_instance):
    whole = serving_project.run(SERVING, dagster_instance)
    assert whole.success, reasons(whole)
    part = serving_project.run(SERVING, dagster_instance, only=[PREDICTIONS, OUTPUT])
    assert part.success, reasons(part)
    assert steps_run(part) == ["predict", "publish"]
    before, after = tables.scores()[whole.run_id], tables.scores()[part.run_id]
    assert [row["prediction_probability"] for row in before] == [
        row["prediction_probability"] for row in after
    ]


def test_what_was_never_made_is_named(serving_project, tables, dagster_instance):
    result = serving_project.run(SERVING, dagster_instance, only=[OUTPUT])
    assert failed_steps(result) == ["publish"]
    assert reasons(result).startswith(f"{SERVING}__publish: artifact not found: no step of run ")
    assert "has made 'model_metadata'; run the step that makes it first" in reasons(result)
    assert tables.count() == 0


def test_an_artefact_that_was_deleted_is_not_replaced_by_that_of_another_run(
    serving_project, tables, dagster_instance
):
    other = serving_project.run(SERVING, dagster_instance)
    assert other.success, reasons(other)
    refuse(tables)
    failed = serving_project.run(SERVING, dagster_instance)
    allow(tables)
    (serving_project.root / "artifacts" / failed.run_id / SERVING / "predict" / "predictions").unlink()
    again = serving_project.run(SERVING, dagster_instance, again=failed.run_id)
    assert failed_steps(again) == ["publish"]
    assert "artifact not found" in reasons(again)
    assert list(tables.scores()) == [other.run_id]


def test_two_runs_at_once_do_not_mix(batch_project, tables, dagster_instance, tmp_path):
    """Of one pipeline, in two processes that publish at the same moment, each with a model of its own."""
    trained = batch_project.run(TRAINING, dagster_instance)
    assert trained.success, reasons(trained)
    tree = {"model": "DecisionTreeClassifier", "max_depth": 2}
    batch_project.change(TRAINING, training__model_training__config=tree)
    # It may lose against the champion, and can be served all the same.
    batch_project.run(TRAINING, dagster_instance)
    models = [run.info.run_id for run in batch_project.mlflow_runs()]
    assert len(models) == 2
    meet = processes.Barrier(2)
    children = []
    for number, model in enumerate(models):
        pinned = batch_project.copy(tmp_path / str(number), tables)
        # One storage for both, as in production.
        pinned.change(SERVING, serving__model_source__run_id=model)
        pinned.change_target(storage__config={"base_path": str(tmp_path / "shared")})
        children.append(start(pinned, SERVING, dagster_instance, meet=meet))
    for child in children:
        outcome = child.outcome()
        assert outcome.success, outcome.reasons
    runs = tables.scores()
    assert [len(rows) for rows in runs.values()] == [60, 60]
    of_models = {frozenset(row["model_run_id"] for row in rows) for rows in runs.values()}
    assert of_models == {frozenset([model]) for model in models}
    first, second = ([row["prediction_probability"] for row in rows] for rows in runs.values())
    assert first != second
