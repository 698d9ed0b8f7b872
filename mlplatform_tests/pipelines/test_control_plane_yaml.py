"""A pipeline of the batch platform that is only a text in the control plane's database."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from mlplatform.control_plane_definitions import definitions_of
from mlplatform.domain.jobs.specs import PipelineSpec
from mlplatform.io.control_plane import pipelines
from mlplatform.io.control_plane.database import Database
from mlplatform.settings import Settings
from mlplatform_tests.batch_projects import TRAINING, BatchProject
from mlplatform_tests.control_planes import fresh_database


@pytest.fixture
def database(stack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database


def declare(database: Database, name: str, text: str) -> str:
    with database.transaction() as connection:
        spec = PipelineSpec.model_validate({"name": name, "yaml": text})
        return pipelines.create(connection, spec)["slug"]


def test_it_is_assets_and_a_job_which_runs(
    database: Database, batch_project: BatchProject, dagster_instance: dg.DagsterInstance
) -> None:
    path = batch_project.root / "pipelines" / f"{TRAINING}.yaml"
    text = path.read_text().replace(f"name: {TRAINING}", "name: training_declared_v1")
    settings = Settings({**batch_project.variables, "MLPLATFORM_PROJECT_DIRECTORY": str(batch_project.root)})
    slug = declare(database, "training_declared_v1", text)
    # What is wrong by now keeps nothing else away.
    declare(database, "broken", "project: {}")

    definitions = definitions_of(database, settings=settings)
    assert {job.name for job in definitions.jobs or ()} == {"command", slug}
    result = definitions.resolve_job_def(slug).execute_in_process(instance=dagster_instance)
    assert result.success
    made = {event.asset_key for event in result.get_asset_materialization_events()}
    assert dg.AssetKey(["training_declared_v1", "eval_metrics"]) in made
