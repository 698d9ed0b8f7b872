"""What runs a pipeline: a job of its name, and a schedule of its cadence."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from mlplatform.domain.batch.manifest import Manifest

PIPELINE_TAG = "mlplatform/pipeline"
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
    deployment = manifest.pipeline.deployment
    if deployment.cron is None:
        return None
    return dg.ScheduleDefinition(
        name=f"{manifest.name}_{deployment.cadence}",
        job_name=manifest.name,
        cron_schedule=deployment.cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Runs {manifest.name} {deployment.cadence}.",
    )
