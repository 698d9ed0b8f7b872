"""The YAML type that turns a project of batch pipelines into assets, checks, jobs and schedules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from pydantic import Field

from mlplatform.components.batch.assets import Batch
from mlplatform.components.batch.automation import job_of, schedule_of
from mlplatform.io.pipelines.project import Project
from mlplatform.settings import Settings


class BatchPipelines(dg.Component, dg.Model, dg.Resolvable):
    """The pipelines of a project: a folder with `pipelines/*.yaml` and `profiles.yaml`.

    Each pipeline becomes a job of its name, with one op a step; one that has a cadence gets a schedule.
    """

    project: str = Field(default=".", description="The project's folder, relative to this file.")
    target: str | None = Field(default=None, description="A target of profiles.yaml; else the profile's own.")
    group: str | None = Field(default=None, description="Asset group; else the folder's name.")
    owners: list[str] = ["team:ml-platform"]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        root = (context.path / self.project).resolve()
        return definitions_of(
            Project.load(root, Settings.load(), target=self.target), self.group or root.name, self.owners
        )


def definitions_of(
    project: Project,
    group: str,
    owners: list[str],
    pipelines: list[str] | None = None,
    folders: Mapping[str, str] | None = None,
) -> dg.Definitions:
    """Assets, checks, jobs and schedules of a project's pipelines, or of those named.

    `folders` names the storage's folder of a run for a pipeline, instead of the run's id.

    Raises:
        InvalidProject: the YAML is wrong.
    """
    manifests = [project.compile(name) for name in (project.names() if pipelines is None else pipelines)]
    batch = Batch(project, manifests, re.sub(r"\W", "_", group), owners, folders or {})
    schedules = [schedule_of(manifest) for manifest in manifests]
    return dg.Definitions(
        assets=batch.assets(),
        jobs=[job_of(manifest) for manifest in manifests],
        schedules=[schedule for schedule in schedules if schedule],
        resources=batch.resources(),
    )


def project_definitions(root: Path, target: str | None = None) -> dg.Definitions:
    """A code location of one project: what its `definitions.py` gives to `dagster dev`."""
    project = Project.load(root, Settings.load(), target=target)
    return dg.Definitions.merge(
        definitions_of(project, project.root.name, ["team:ml-platform"]),
        dg.Definitions(executor=dg.in_process_executor),
    )
