"""The second code location: what was made over the API. It is loaded anew when that changes."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlplatform.components.control_plane.schedules import one_off_sensor, schedule_of
from mlplatform.components.control_plane.stages import command_job, pipeline_definitions
from mlplatform.domain.jobs.specs import PipelineSpec
from mlplatform.io.control_plane import declared
from mlplatform.io.control_plane.database import Database
from mlplatform.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from mlplatform.components.control_plane.following import Runner

for _category in (dg.BetaWarning, dg.PreviewWarning, dg.SupersessionWarning):
    warnings.filterwarnings("ignore", category=_category)

# Each process has a few steps, which wait.
CONNECTIONS = 2
log = logging.getLogger(__name__)


@dg.definitions
def defs() -> dg.Definitions:
    """
    Raises:
        DatabaseUnreachable: there is a database, and it does not answer: Dagit shows the sentence.
    """
    settings = Settings.load()
    try:
        database = Database(settings.database_url, settings.control_plane_schema, CONNECTIONS)
    except ConfigurationError as error:
        # So that definitions can be validated where nothing runs.
        log.warning("there is nothing of the control plane: %s", error)
        return dg.Definitions()
    return definitions_of(database, _runner(settings, database), settings)


def definitions_of(
    database: Database, runner: Runner | None = None, settings: Settings | None = None
) -> dg.Definitions:
    """Everything that the database declares.

    Args:
        runner: runs the commands instead of workers.
        settings: those of the process, unless given.
    """
    with database.transaction() as connection:
        if not declared.has_tables(connection):
            log.warning("%s has no control plane yet: `mlplatform serve api` makes it", database.where)
            return dg.Definitions()
        pipelines = declared.pipelines(connection)
        schedules = declared.cron_schedules(connection)
    assets: list[dg.AssetsDefinition] = []
    jobs: list[Any] = [command_job(database, runner)]
    batch: list[dg.Definitions] = []
    for pipeline in pipelines:
        spec = PipelineSpec.model_validate(pipeline["spec"])
        if spec.stages:
            stages, job = pipeline_definitions(database, pipeline, spec, runner)
            assets += stages
            jobs.append(job)
        elif spec.yaml is not None:
            steps = _batch(settings or Settings.load(), pipeline, spec.yaml)
            batch += [steps] if steps else []
    runnable = [*jobs, *(job for steps in batch for job in steps.jobs or ())]
    named = {job.name for job in runnable}
    commands = dg.Definitions(
        assets=assets,
        jobs=jobs,
        schedules=[
            schedule_of(database, schedule)
            for schedule in schedules
            if schedule["job_name"] is None or schedule["job_name"] in named
        ],
        sensors=[one_off_sensor(database, runnable)],
    )
    return dg.Definitions.merge(commands, *batch) if batch else commands


def _batch(settings: Settings, pipeline: RowMapping, text: str) -> dg.Definitions | None:
    # Most have none, and need not wait for what these import.
    from mlplatform.components.control_plane.yaml_pipelines import batch_definitions
    from mlplatform.resources.executors import executor_for

    return batch_definitions(settings, pipeline, text, executor_for(settings.executor))


def _runner(settings: Settings, database: Database) -> Runner | None:
    if settings.environment != "kubernetes":
        return None
    from mlplatform.components.control_plane.pods import Pods

    return Pods(database)
