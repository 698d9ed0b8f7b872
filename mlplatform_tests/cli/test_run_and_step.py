"""`mlplatform run` and `mlplatform step execute`, as processes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from mlplatform.io.artifacts import REGISTRY
from mlplatform_tests.batch_projects import (
    SERVING,
    SERVING_STEPS,
    TRAINING,
    TRAINING_STEPS,
    BatchProject,
)
from mlplatform_tests.cli.projects import call
from mlplatform_tests.faults.batch_harness import command
from mlplatform_tests.local.processes import COMMAND, environment

# MLflow's own use of what SQLAlchemy 2.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def mlplatform(project: BatchProject, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=project.root,
        env=environment(Path(project.variables["MLPLATFORM_DATA_DIRECTORY"])),
        capture_output=True,
        text=True,
        timeout=120,
    )


def tried(project: BatchProject, pipeline: str, name: str, run_id: str, monkeypatch):
    for variable, value in project.variables.items():
        monkeypatch.setenv(variable, value)
    arguments = ["--pipeline", pipeline, "--step", name, "--run-id", run_id]
    return call("step", "execute", *arguments, "--project-dir", str(project.root))


def results(project: BatchProject, pipeline: str) -> dict:
    return json.loads((project.root / "target" / pipeline / "run_results.json").read_text())


def test_both_pipelines_run_one_after_the_other(batch_project, tables):
    ended = mlplatform(batch_project, "run", "--select", TRAINING, "--select", SERVING)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for pipeline, steps in ((TRAINING, TRAINING_STEPS), (SERVING, SERVING_STEPS)):
        found = results(batch_project, pipeline)
        assert found["status"] == "success"
        assert list(found["steps"]) == steps
        assert {each["status"] for each in found["steps"].values()} == {"success"}
        assert re.fullmatch(r"run_\d{8}_\d{6}_[0-9a-f]{8}", found["run_id"])
        assert f"Run {found['run_id']} of {pipeline}, target here" in ended.stdout
        assert (batch_project.root / "artifacts" / found["run_id"] / REGISTRY).is_file()
    assert "5 of 5 steps passed" in ended.stdout
    assert "[3/5] train_model" in ended.stdout
    assert {run: len(rows) for run, rows in tables.scores().items()} == {
        results(batch_project, SERVING)["dagster_run_id"]: 60
    }


def test_a_run_that_fails_says_why_and_skips_the_rest(batch_project, tables):
    tables.execute("UPDATE customers SET churned = 0")
    ended = mlplatform(batch_project, "run", "--select", TRAINING, "--select", SERVING)
    assert ended.returncode == 1
    found = results(batch_project, TRAINING)
    assert found["status"] == "failed"
    states = {name: each["status"] for name, each in found["steps"].items()}
    assert states == {**dict.fromkeys(TRAINING_STEPS, "skipped"), "load_data": "failed"}
    assert "check classes of raw_data" in found["steps"]["load_data"]["error"]
    assert "check classes of raw_data" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (batch_project.root / "target" / SERVING / "run_results.json").exists()


def test_an_unknown_pipeline_runs_none(batch_project):
    ended = mlplatform(batch_project, "run", "--select", TRAINING, "--select", "serving_chrn_v1")
    assert ended.returncode == 1
    assert f"did you mean {SERVING}?" in ended.stderr
    assert not (batch_project.root / "artifacts").exists()


def test_steps_one_by_one_give_what_a_run_gives(batch_project, tables):
    """Each in a process of its own."""
    assert call("compile", "all", "--project-dir", str(batch_project.root)).exit_code == 0
    runs = [
        (TRAINING, TRAINING_STEPS, "run_20260301_120000"),
        (SERVING, SERVING_STEPS, "run_20260302_030000"),
    ]
    for pipeline, steps, run_id in runs:
        for name in steps:
            arguments = ("--pipeline", pipeline, "--step", name, "--run-id", run_id)
            code, said = command(batch_project, "step", "execute", *arguments)
            assert code == 0, said
            assert f"Step {name} of {pipeline} passed" in said
    [run] = batch_project.mlflow_runs()
    assert run.data.tags["run"] == "run_20260301_120000"
    registry = json.loads((batch_project.root / "artifacts" / "run_20260302_030000" / REGISTRY).read_text())
    base = batch_project.root / "artifacts" / "run_20260302_030000"
    assert registry["predictions"] == str(base / "predict" / "predictions")
    assert set(registry) == {
        *("scoring_data", "model", "model_metadata", "transformed_data", "refused_rows", "predictions"),
        "output",
    }
    again = batch_project.run(SERVING)
    assert again.success
    by_run = tables.scores()
    first, second = by_run["run_20260302_030000"], by_run[again.run_id]
    for column in ("customer_id", "prediction", "prediction_probability", "model_run_id"):
        assert [row[column] for row in first] == [row[column] for row in second]


def test_a_step_without_its_inputs_is_told_which(serving_project, tables, monkeypatch):
    assert call("compile", "all", "--project-dir", str(serving_project.root)).exit_code == 0
    result = tried(serving_project, SERVING, "predict", "run_1", monkeypatch)
    assert result.exit_code == 1
    assert "artifact not found: no step of run run_1 has made 'model'" in result.output
    assert "run the step that makes it first" in result.output


def test_an_unknown_step_is_answered_with_those_there_are(serving_project, monkeypatch):
    assert call("compile", "all", "--project-dir", str(serving_project.root)).exit_code == 0
    result = tried(serving_project, SERVING, "predct", "run_1", monkeypatch)
    assert result.exit_code == 1
    assert f"{SERVING} has no step predct: it has {', '.join(SERVING_STEPS)}" in result.output


def test_a_step_whose_check_fails_says_so(serving_project, tables, monkeypatch):
    assert call("compile", "all", "--project-dir", str(serving_project.root)).exit_code == 0
    tables.execute("ALTER TABLE customers_to_score DROP CONSTRAINT customers_to_score_pkey")
    tables.execute("INSERT INTO customers_to_score SELECT * FROM customers_to_score LIMIT 1")
    result = tried(serving_project, SERVING, "load_scoring_data", "run_1", monkeypatch)
    assert result.exit_code == 1
    assert "check keys of scoring_data" in result.output
    assert "C1-00000" in result.output


def test_a_wrong_template_names_file_and_line(serving_project, monkeypatch):
    path = serving_project.root / "profiles.yaml"
    path.write_text(path.read_text().replace("type: postgres", "type: postgress"))
    result = tried(serving_project, SERVING, "publish", "run_1", monkeypatch)
    assert result.exit_code == 1
    assert re.search(r"profiles\.yaml:\d+: .*postgress.*did you mean postgres\?", result.output)
