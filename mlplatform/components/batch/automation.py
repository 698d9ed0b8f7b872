"""What runs a pipeline: a job of its name, and a schedule of its cadence."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from mlplatform.domain.batch.manifest import Manifest

PIPELINE_TAG = "mlplatform/pipeline"
# As Airflow has them, to which the same pipeline may be given.
CRON = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
PERIODS = {
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(weeks=1),
    "monthly": timedelta(days=31),
}


def job_of(manifest: Manifest):
    """The job that runs all steps of the pipeline."""
    name = manifest.name
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.tag(PIPELINE_TAG, name),
        description=f"All steps of the {manifest.pipeline.kind} pipeline {name}.",
        tags={PIPELINE_TAG: name},
    )


def schedule_of(manifest: Manifest) -> dg.ScheduleDefinition | None:
    """The schedule of the pipeline's cadence, in UTC; none without a cadence."""
    cadence = manifest.pipeline.deployment.cadence
    if cadence is None:
        return None
    return dg.ScheduleDefinition(
        name=f"{manifest.name}_{cadence}",
        job_name=manifest.name,
        cron_schedule=CRON[cadence],
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs {manifest.name} {cadence}.",
    )
