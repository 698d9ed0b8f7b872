"""G14: batch pipelines that are killed at any write, and executed again, leave what one whole run leaves."""

from __future__ import annotations

import dagster as dg
import pytest

from mlplatform_tests.batch_projects import (
    SERVING,
    SERVING_STEPS,
    TRAINING,
    TRAINING_STEPS,
    BatchProject,
)
from mlplatform_tests.faults.batch_harness import start, start_step

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

IN_MLFLOW = ["log_values", "log_files", "register", "log", "promote"]
IN_POSTGRES = ["send rows", "sent all rows", "publish"]
# Calls of others among them end after these.
OUTER = {"mlflow register": "mlflow log", "sent all rows": "publish"}


def killed_at_every_write(project: BatchProject, pipeline: str, steps: list[str], run_id: str) -> set[str]:
    """Each step is killed right before its first write and after each, until it ends; returns the points."""
    passed = {step: points_of(project, pipeline, step, f"{run_id}_whole") for step in steps}
    for step, points in passed.items():
        before = start_step(project, pipeline, step, run_id, kill_before=f"{points[0]}#0")
        assert before.outcome().killed
        for point in points:
            after = start_step(project, pipeline, step, run_id, kill_after=f"{point}#0").outcome()
            assert after.killed, (step, point)
        assert start_step(project, pipeline, step, run_id).outcome().success
    return set().union(*passed.values())


def points_of(project: BatchProject, pipeline: str, step: str, run_id: str) -> list[str]:
    """The points that the step passes when it is let alone, each once, in the order in which they end."""
    whole = start_step(project, pipeline, step, run_id).outcome()
    assert whole.success
    points = list(dict.fromkeys(point.partition("#")[0] for point in whole.passed))
    for inner, outer in OUTER.items():
        if outer in points:
            points.remove(outer)
            points.insert(points.index(inner) + 1, outer)
    return points


def test_training_steps_that_are_killed_at_every_write_track_one_model(batch_project):
    """As a foreign orchestrator executes them: the same step again under the same run id."""
    points = killed_at_every_write(batch_project, TRAINING, TRAINING_STEPS, "run_1")
    assert {f"mlflow {name}" for name in IN_MLFLOW} <= points
    assert {"write train_model/model", "write log_run/run_id", "update .artifact_registry.json"} <= points
    one_model(batch_project, "run_1")


def test_serving_steps_that_are_killed_at_every_write_publish_once(serving_project, tables):
    points = killed_at_every_write(serving_project, SERVING, SERVING_STEPS, "run_1")
    assert set(IN_POSTGRES) <= points
    scores = tables.scores()
    assert set(scores) == {"run_1", "run_1_whole"}
    assert columns(scores["run_1"]) == columns(scores["run_1_whole"])
    assert len(scores["run_1"]) == 60


def one_model(project: BatchProject, run_id: str) -> None:
    """Of the run, beside that of the run that was let alone: finished, registered and champion."""
    runs = project.mlflow_runs()
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED"}
    finished = {run.data.tags["run"]: run for run in runs if run.info.status == "FINISHED"}
    assert len(finished) == len([run for run in runs if run.info.status == "FINISHED"]) == 2
    [whole] = [run for name, run in finished.items() if name != run_id]
    assert finished[run_id].data.metrics == whole.data.metrics
    registry, name = project.registry(), project.model_name
    assert registry.champion(name).run_id == finished[run_id].info.run_id
    versions = registry._client.search_model_versions(f"name = '{name}'")
    assert {version.run_id for version in versions} == {run.info.run_id for run in finished.values()}


def crash(project: BatchProject, pipeline: str, instance: dg.DagsterInstance, points: list[str]) -> str:
    """Runs that are killed, each right after the next point, until one ends; returns the first one's id."""
    runs: list[str] = []
    for point in points:
        again = runs[-1] if runs else None
        outcome = start(project, pipeline, instance, again=again, kill_after=f"{point}#0").outcome()
        assert outcome.killed, (point, outcome)
        [lost] = instance.get_runs(limit=1)
        assert not lost.is_finished
        # What Dagster's daemon does when it hears no more of a run.
        instance.report_run_failed(lost)
        runs.append(lost.run_id)
    assert len(set(runs)) == len(points)
    outcome = start(project, pipeline, instance, again=runs[-1]).outcome()
    assert outcome.success, outcome.reasons
    return runs[0]


def test_a_killed_training_that_dagster_executes_again_tracks_one_model(batch_project, dagster_instance):
    assert batch_project.run(TRAINING).success
    points = ["write split_data/test_set", "write train_model/model", "mlflow log", "write log_run/run_id"]
    one_model(batch_project, crash(batch_project, TRAINING, dagster_instance, points))


def test_a_killed_serving_that_dagster_executes_again_publishes_once(
    serving_project, tables, dagster_instance
):
    points = ["write predict/predictions", "sent all rows", "publish"]
    first = crash(serving_project, SERVING, dagster_instance, points)
    assert {run: len(rows) for run, rows in tables.scores().items()} == {first: 60}


def test_nobody_sees_scores_that_are_not_all_there(serving_project, tables):
    for step in SERVING_STEPS[:-1]:
        assert start_step(serving_project, SERVING, step, "run_1").outcome().success
    for point in ("send rows#0", "sent all rows#0"):
        assert start_step(serving_project, SERVING, "publish", "run_1", kill_after=point).outcome().killed
        assert tables.count() == 0


def columns(rows: list[dict]) -> list[tuple]:
    return [(row["customer_id"], row["prediction"], row["prediction_probability"]) for row in rows]
