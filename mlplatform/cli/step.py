"""`mlplatform step execute`: one step from object storage to object storage, for a foreign orchestrator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from mlplatform.cli.errors import readable_errors, redacted_errors
from mlplatform.cli.projects import load_project, project_options


@click.group()
def step() -> None:
    """Single steps of a pipeline, for orchestrators other than Dagster.

    \b
    Examples:
      mlplatform step execute --help
    """


@step.command()
@click.option("--pipeline", required=True, help="Name of the pipeline.")
@click.option("--step", "name", required=True, help="Name of the step.")
@click.option("--run-id", required=True, help="The same for all steps of a run, such as run_20260301_120000.")
@project_options
def execute(
    pipeline: str, name: str, run_id: str, project_dir: Path, target: str | None, variables: Mapping[str, str]
) -> None:
    """Execute one step: inputs from the profile's storage, outputs into it.

    The manifest is target/<pipeline>/manifest.json, or what `compile --upload` put into the storage. What the
    steps of a run have made stands in <run id>/.artifact_registry.json of the storage.

    \b
    Examples:
      mlplatform step execute --pipeline training_churn_model_v1 --step load_data \\
        --target prod --run-id run_20260301_120000
    """
    from mlplatform.io.artifacts import Artifacts
    from mlplatform.io.pipelines import manifests
    from mlplatform.io.pipelines.target_plugins import TargetPlugins
    from mlplatform.steps.context import StepContext
    from mlplatform.steps.execute import run_step

    began = time.monotonic()
    with readable_errors():
        project = load_project(project_dir, target, variables)
        with redacted_errors(project.plugins.redact):
            manifest = manifests.find(project, pipeline)
        if name not in manifest.steps:
            raise click.ClickException(f"{pipeline} has no step {name}: it has {', '.join(manifest.steps)}")
        # Those for which it was compiled, whatever profiles.yaml says now.
        plugins = TargetPlugins(manifest.target, project.settings, project.root)
        with redacted_errors(plugins.redact):
            artifacts = Artifacts(plugins.storage, [run_id])

            def log(line: str) -> None:
                click.echo(plugins.redact(line))

            with StepContext(manifest, plugins, run_id, log) as context:
                saved = run_step(context, name, artifacts)
    for artefact, place in saved.items():
        rows = "" if place.rows is None else f"  {place.rows:,} rows"
        click.echo(f"{artefact}: {place.uri}{rows}")
    click.echo(f"Step {name} of {pipeline} passed in {time.monotonic() - began:.1f} s.")
