from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mlplatform.domain.batch.manifest import Manifest, compile_pipeline
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.profile import Profile
from mlplatform_tests.domain.batch.test_graph import SELECTION
from mlplatform_tests.domain.batch.test_pipeline import SERVING, changed

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
PROFILE = Profile.model_validate(
    {
        "target": "dev",
        "mlflow": {"experiment_name": "of_profile"},
        "outputs": {
            "dev": {"storage": {"type": "local"}, "data_connector": {"type": "local_file"}},
            "prod": {
                "storage": {"type": "s3", "config": {"secret_key": "{{ secret('S3') }}"}},
                "data_connector": {"type": "postgres"},
            },
        },
    }
)


def compiled(target: str = "dev", **changes: Any) -> Manifest:
    return compile_pipeline(Pipeline.model_validate(changed(**changes)), PROFILE, target, "1.2.3", NOW)


def test_metadata() -> None:
    assert compiled("prod").metadata.model_dump(mode="json") == {
        "mlplatform_version": "1.2.3",
        "schema_version": 1,
        "generated_at": "2026-03-01T10:00:00Z",
        "pipeline_name": "training_churn_v1",
        "pipeline_type": "training",
        "target": "prod",
        "problem_type": "binary_classification",
    }
    assert compiled().metadata.generated_at.tzinfo == UTC


def test_only_the_target_is_in_it() -> None:
    manifest = compiled("prod")
    assert list(manifest.profile_config.outputs) == ["prod"]
    assert manifest.target.storage.config == {"secret_key": "{{ secret('S3') }}"}
    assert list(PROFILE.outputs) == ["dev", "prod"]
    with pytest.raises(KeyError):
        compiled("test")


def test_a_step_has_the_blocks_that_it_reads() -> None:
    steps = compiled(training__model_training={"config": {"model": "SVC"}}).steps
    assert steps["load_data"].config["training"]["data_source"]["label_table"] == "customers"
    assert steps["train_model"].config["training"]["model_training"]["config"] == {"model": "SVC"}
    assert "model_training" not in steps["load_data"].config["training"]
    assert steps["split_data"].plugin == "mlplatform.steps:split_data"
    assert all(step.idempotent for step in steps.values())


@pytest.mark.parametrize("changes", [{}, {"serving": SERVING}, {"training__feature_selection": SELECTION}])
def test_it_reads_back_as_it_was_written(changes) -> None:
    manifest = compiled(**changes)
    text = manifest.model_dump_json(indent=2, by_alias=True)
    assert Manifest.model_validate_json(text) == manifest
    assert compiled(**changes).model_dump_json(indent=2, by_alias=True) == text
    assert '"schema_"' not in text


def test_resources_are_those_of_training() -> None:
    steps = compiled(training__model_training={"resources": {"cpu": 2}}).steps
    assert {name: step.resources for name, step in steps.items() if step.resources} == {
        "train_model": {"cpu": "2"}
    }


def test_the_experiment_is_the_pipelines_else_the_profiles() -> None:
    assert compiled().experiment_name == "of_profile"
    assert compiled(project__experiment_name="own").experiment_name == "own"
