"""Rows that go no further are kept with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.io.artifacts import Artifacts, Frame, PackedModel
from mlplatform.io.pipelines.target_plugins import TargetPlugins
from mlplatform.settings import Settings
from mlplatform.steps.context import StepContext, StepFailed
from mlplatform.steps.execute import run_step
from mlplatform_tests.batch_projects import (
    SERVING,
    TRAINING,
    BatchProject,
    Warehouse,
    customers,
    make,
    warehouse,
)

CHECK = {"name": "value_range", "columns": ["tenure"], "min": 0, "on_failure": "skip_row"}


@pytest.fixture
def tables(stack) -> Iterator[Warehouse]:
    with warehouse(Settings(stack.variables)) as made:
        yield made


@pytest.fixture
def project(stack, tables: Warehouse, tmp_path: Path) -> BatchProject:
    frame = customers(100)
    frame.loc[:4, "tenure"] = -1
    tables.fill("customers", frame, anew=True)
    return make(tmp_path, stack.variables, tables, "sqlite:///unused.db")


def steps_of(project: BatchProject, pipeline: str, steps: list[str]) -> Artifacts:
    manifest = project.load().compile(pipeline)
    plugins = TargetPlugins(manifest.target, project.settings, project.root)
    artifacts = Artifacts(plugins.storage, ["run"])
    for step in steps:
        with StepContext(manifest, plugins, "run", lambda _: None) as context:
            run_step(context, step, artifacts)
    return artifacts


def loaded(project: BatchProject, check: dict) -> Artifacts:
    project.change(TRAINING, training__data_checks=[check])
    return steps_of(project, TRAINING, ["load_data"])


def test_rows_that_training_leaves_out_are_in_quarantine(project):
    artifacts = loaded(project, CHECK)
    kept, refused = artifacts.load("raw_data"), artifacts.load("refused_rows")
    assert isinstance(kept, Frame)
    assert isinstance(refused, Frame)
    assert kept.count == 95
    rows = refused.to_pandas()
    assert list(rows["tenure"]) == [-1] * 5
    assert set(rows["reason"]) == {"tenure must be at least 0"}
    assert set(rows["customer_id"]).isdisjoint(kept.to_pandas()["customer_id"])


def test_a_check_that_fails_names_the_table_and_the_remedy(project):
    with pytest.raises(StepFailed) as failed:
        loaded(project, {**CHECK, "on_failure": "fail"})
    assert "table customers: tenure must be at least 0: 5 of 100 rows fail" in str(failed.value)
    assert "repair its rows, and run again, or change the check in data_checks" in str(failed.value)


def test_customers_without_features_that_an_inner_join_asks_for_are_in_quarantine(project, tables):
    """What is to be scored does not get lost: as many rows come out as went in."""
    keys = customers(100)["customer_id"]
    tables.fill("contacts", pd.DataFrame({"customer_id": keys[3:], "calls": range(97)}), anew=True)
    tables.fill("customers_to_score", customers(100).drop(columns="churned"), anew=True)
    join = {"table": "contacts", "join_key": ["customer_id"], "join_type": "inner"}
    project.change(TRAINING, training__data_source__feature_tables=[join])
    project.change(
        SERVING,
        serving__data_source__feature_tables=[join],
        training__data_source__feature_tables=[join],
    )
    artifacts = steps_of(project, TRAINING, ["load_data", "split_data", "train_model"])
    model = artifacts.load("model")
    assert isinstance(model, PackedModel)
    with model.unpacked() as bundle:
        artifacts.save("load_model", "model", bundle)
    artifacts = steps_of(project, SERVING, ["load_scoring_data", "apply_transforms", "predict"])
    predictions, refused = artifacts.load("predictions"), artifacts.load("refused_rows")
    assert isinstance(predictions, Frame)
    assert isinstance(refused, Frame)
    assert predictions.count == 97
    rows = refused.to_pandas()
    assert list(rows["customer_id"]) == list(keys[:3])
    assert set(rows["reason"]) == {"table contacts has no row for it"}
    assert not [name for name in rows if name.startswith("found:")]
