"""How pipelines of one project become assets, when they share what they are known by."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster_k8s.job import get_user_defined_k8s_config

from mlplatform.components.batch.component import project_definitions
from mlplatform_tests.graphs import environment

CHURN = Path("mlplatform/defs/churn").absolute()
TRAINING, SERVING = "training_churn_model_v1", "serving_churn_model_v1"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(CHURN / "pipelines", tmp_path / "pipelines")
    shutil.copy(CHURN / "profiles.yaml", tmp_path)
    return tmp_path


def another(project: Path, pipeline: str, name: str, **changes: str) -> None:
    text = (
        (project / "pipelines" / f"{pipeline}.yaml").read_text().replace(f"name: {pipeline}", f"name: {name}")
    )
    for old, new in changes.items():
        text = text.replace(old, new)
    (project / "pipelines" / f"{name}.yaml").write_text(text)


def parents(definitions: dg.Definitions, asset: str) -> set[str]:
    graph = definitions.resolve_asset_graph()
    return {key.to_user_string() for key in graph.get(dg.AssetKey(asset.split("/"))).parent_keys}


def assets(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def load(project: Path) -> dg.Definitions:
    with environment({"MLPLATFORM_ENV": "local"}):
        return project_definitions(project)


def test_a_model_and_a_table_have_the_names_by_which_people_know_them(project):
    definitions = load(project)
    assert {"churn_model", "churn_predictions"} <= assets(definitions)
    assert "churn_model" in parents(definitions, f"{SERVING}/model")
    assert parents(definitions, f"{TRAINING}/raw_data") == {"customers"}


def test_two_trainings_of_one_model_are_two_assets_which_serving_waits_for(project):
    another(project, TRAINING, "training_churn_model_v2")
    definitions = load(project)
    trained = {f"{TRAINING}/run_id", "training_churn_model_v2/run_id"}
    assert trained <= assets(definitions)
    assert "churn_model" not in assets(definitions)
    assert trained <= parents(definitions, f"{SERVING}/model")


def test_two_servings_into_one_table_are_two_assets(project):
    another(project, SERVING, "serving_churn_model_v2")
    found = assets(load(project))
    assert {f"{SERVING}/output", "serving_churn_model_v2/output"} <= found
    assert "churn_predictions" not in found


def test_a_table_that_is_read_and_written_makes_no_circle(project):
    another(project, SERVING, "serving_churn_model_v2", churn_predictions="customers_to_score")
    assert "serving_churn_model_v2/output" in assets(load(project))


def test_each_pipeline_with_a_cadence_has_a_job_and_a_schedule(project):
    definitions = load(project)
    schedules = {each.name: each.cron_schedule for each in definitions.schedules or []}
    assert schedules == {f"{TRAINING}_monthly": "0 0 1 * *", f"{SERVING}_daily": "0 0 * * *"}
    assert {TRAINING, SERVING} <= {job.name for job in definitions.resolve_all_job_defs()}


def test_what_training_asks_of_kubernetes_its_pod_gets(project):
    """As Dagster's own executor for Kubernetes reads it: the pods of the other steps have nothing of it."""
    text = (project / "pipelines" / f"{TRAINING}.yaml").read_text()
    asked = '    resources: {cpu: "2", memory: 4Gi}\n  evaluation:'
    (project / "pipelines" / f"{TRAINING}.yaml").write_text(text.replace("  evaluation:", asked))
    steps = load(project).resolve_job_def(TRAINING).graph.nodes
    configs = {node.name: get_user_defined_k8s_config(node.definition.tags) for node in steps}
    pod = configs.pop(f"{TRAINING}__train_model").container_config
    both = {"cpu": "2", "memory": "4Gi"}
    assert pod == {"resources": {"requests": both, "limits": both}}
    assert len(configs) == 4
    assert not any(config.container_config for config in configs.values())
