"""Pipelines of the batch platform that were made over the API: their steps are Dagster's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg

from mlplatform.components.batch.assets import Batch
from mlplatform.components.batch.automation import PIPELINE_TAG as NAME_TAG
from mlplatform.components.control_plane.stages import OWNER, PIPELINE_TAG
from mlplatform.domain.batch.problems import InvalidProject
from mlplatform.io.pipelines.project import Project
from mlplatform.settings import Settings

log = logging.getLogger(__name__)


def batch_definitions(
    settings: Settings, pipeline: Mapping[Any, Any], text: str, executor: dg.ExecutorDefinition
) -> dg.Definitions | None:
    """Assets, checks and the job of one pipeline; None if it is wrong by now: its project may have changed.

    Args:
        pipeline: its row.
        text: the YAML.
    """
    try:
        project = Project.load(settings.project_directory, settings)
        manifest = project.compile(project.declare(text))
    except InvalidProject as error:
        # The others are there all the same; whoever launches this one is told that there is no such job.
        log.warning("pipeline %s cannot be shown: %s", pipeline["slug"], error)
        return None
    batch = Batch(project, [manifest], pipeline["slug"], [OWNER], {})
    job = dg.define_asset_job(
        pipeline["slug"],
        selection=dg.AssetSelection.tag(NAME_TAG, manifest.name),
        description=f"All steps of the {manifest.pipeline.kind} pipeline {manifest.name}.",
        tags={PIPELINE_TAG: str(pipeline["id"]), NAME_TAG: manifest.name},
        executor_def=executor,
    )
    return dg.Definitions(assets=batch.assets(), jobs=[job], resources=batch.resources())
