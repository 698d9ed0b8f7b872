"""Joins in a training pipeline, from the tables to the split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.domain.batch.joins import JoinError
from mlplatform.io.artifacts import Artifacts, Frame
from mlplatform.io.pipelines.target_plugins import TargetPlugins
from mlplatform.steps.context import StepContext, StepFailed
from mlplatform.steps.execute import run_step
from mlplatform_tests.batch_projects import TRAINING, BatchProject, Warehouse, customers, make, warehouse


@pytest.fixture
def tables(stack) -> Iterator[Warehouse]:
    from mlplatform.settings import Settings

    with warehouse(Settings(stack.variables)) as made:
        yield made


@pytest.fixture
def project(stack, tables: Warehouse, tmp_path: Path) -> BatchProject:
    """Each tenth customer has two rows in the table `contacts`."""
    keys = customers(300)["customer_id"]
    contacts = pd.DataFrame({"customer_id": [*keys, *keys[::10]]})
    contacts["calls"] = range(len(contacts))
    tables.fill("contacts", contacts, anew=True)
    return make(tmp_path, stack.variables, tables, "sqlite:///unused.db")


def loaded_and_split(project: BatchProject, **join: object) -> dict[str, pd.DataFrame]:
    spec = {"table": "contacts", "join_key": ["customer_id"], **join}
    project.change(TRAINING, training__data_source__feature_tables=[spec])
    manifest = project.load().compile(TRAINING)
    plugins = TargetPlugins(manifest.target, project.settings, project.root)
    artifacts = Artifacts(plugins.storage, ["run"])
    for step in ("load_data", "split_data"):
        with StepContext(manifest, plugins, "run", lambda _: None) as context:
            run_step(context, step, artifacts)
    frames = {}
    for name in ("raw_data", "train_set", "test_set"):
        frame = artifacts.load(name)
        assert isinstance(frame, Frame)
        frames[name] = frame.to_pandas()
    return frames


def test_rows_that_a_join_has_multiplied_stay_on_one_side(project):
    frames = loaded_and_split(project, fan_out_check=False)
    assert len(frames["raw_data"]) == 330
    train, test = set(frames["train_set"]["customer_id"]), set(frames["test_set"]["customer_id"])
    assert len(train | test) == 300
    assert not train & test


def test_a_few_more_rows_are_within_the_tolerance(project, tables):
    tables.execute("DELETE FROM contacts WHERE calls >= 320")
    assert len(loaded_and_split(project)["raw_data"]) == 320


def test_many_more_rows_name_the_table(project, tables):
    tables.execute("INSERT INTO contacts SELECT * FROM contacts")
    with pytest.raises(JoinError, match="contacts"):
        loaded_and_split(project)


def test_a_label_that_stands_twice_is_refused_whatever_the_join_does(project, tables):
    tables.execute("ALTER TABLE customers DROP CONSTRAINT customers_pkey")
    tables.execute("DELETE FROM contacts WHERE calls >= 300")
    tables.execute("INSERT INTO customers SELECT * FROM customers LIMIT 1")
    with pytest.raises(StepFailed, match="customer_id must be unique"):
        loaded_and_split(project)
