"""`mlplatform validate`, `compile` and `dag`: what a project's YAML says, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import ProblemsFound, echo_warning, readable_errors, redacted_errors
from mlplatform.cli.projects import load_project, project_options

if TYPE_CHECKING:
    from mlplatform.domain.batch.manifest import Manifest
    from mlplatform.io.pipelines.project import Project


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@project_options
def validate(
    names: tuple[str, ...], project_dir: Path, target: str | None, variables: Mapping[str, str]
) -> None:
    """Check pipelines, or all of them, and profiles.yaml; nothing is run or connected to.

    Every problem is told with its file and line. Exit code 0: there is none. 1: there are some.

    \b
    Examples:
      mlplatform validate
      mlplatform validate training_churn_model_v1 --target prod
    """
    with readable_errors():
        project = load_project(project_dir, target, variables)
        chosen = list(names) or project.names()
        problems = project.validate(list(names) or None)
        for warning in project.warnings(chosen):
            echo_warning(warning)
        for name in _valid(project, chosen):
            click.echo(f"Pipeline '{name}' is valid.")
        if problems:
            raise ProblemsFound(problems)
        if not chosen:
            require_project(project)
            click.echo("No pipelines to validate.")


def _valid(project: Project, names: list[str]) -> list[str]:
    from mlplatform.domain.batch.problems import InvalidProject

    valid = []
    for name in names:
        try:
            project.pipeline(name)
        except InvalidProject:
            # Its problems are among those of `project.validate`.
            continue
        valid.append(name)
    return valid


def require_project(project: Project) -> None:
    """A folder without pipelines may be a new project, or simply the wrong folder."""
    if not (project.root / "profiles.yaml").exists() and not (project.root / "pipelines").exists():
        raise click.ClickException(
            f"{project.root} has neither profiles.yaml nor pipelines/: name a project with --project-dir, "
            "or make one with `mlplatform init`"
        )


@click.command("compile")
@click.argument("names", nargs=-1, metavar="[NAME|all]...")
@click.option("--upload", is_flag=True, help="Also put it into the target's storage, for `step execute`.")
@project_options
def compile_(
    names: tuple[str, ...], upload: bool, project_dir: Path, target: str | None, variables: Mapping[str, str]
) -> None:
    """Write target/<pipeline>/manifest.json: the pipeline with its profile, as steps to run.

    Secrets stay placeholders. A pipeline with a problem gets no manifest; the others do.

    \b
    Examples:
      mlplatform compile training_churn_model_v1
      mlplatform compile all --target prod
    """
    from mlplatform.domain.batch.problems import InvalidProject
    from mlplatform.io.pipelines import manifests

    with readable_errors():
        project = load_project(project_dir, target, variables)
        problems = []
        chosen = project.names() if not names or names == ("all",) else list(names)
        for name in chosen:
            try:
                manifest = project.compile(name)
            except InvalidProject as error:
                problems += error.problems
                continue
            path = manifests.manifest_path(project, name)
            write_whole(path, manifests.to_json(manifest))
            click.echo(f"Manifest saved to {path.relative_to(project.root)}")
            if upload:
                with redacted_errors(project.plugins.redact):
                    click.echo(f"Manifest uploaded to {manifests.upload(project, manifest)}")
        if problems:
            raise ProblemsFound(list(dict.fromkeys(problems)))
        if not chosen:
            require_project(project)
            click.echo("No pipelines to compile.")


def write_whole(path: Path, text: str) -> None:
    """The file with this text, or as it was: never a half of it."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error


@click.command()
@click.argument("name")
@click.option("--mermaid", is_flag=True, help="As a Mermaid flowchart, for Markdown.")
@project_options
def dag(
    name: str, mermaid: bool, project_dir: Path, target: str | None, variables: Mapping[str, str]
) -> None:
    """Show the steps of a pipeline, what each takes and makes, and which can run side by side.

    \b
    Examples:
      mlplatform dag training_churn_model_v1
      mlplatform dag serving_churn_model_v1 --mermaid > serving.mmd
    """
    with readable_errors():
        manifest = load_project(project_dir, target, variables).compile(name)
        click.echo(mermaid_of(manifest) if mermaid else text_of(manifest))


def text_of(manifest: Manifest) -> str:
    """The steps in batches; those of one batch can run side by side."""
    cadence = manifest.pipeline.deployment.cadence or "when asked for"
    lines = [f"{manifest.name} ({len(manifest.steps)} steps, target {manifest.metadata.target}, {cadence})"]
    width = max(map(len, manifest.steps))
    for number, batch in enumerate(manifest.dag.execution_batches, 1):
        for index, step in enumerate(batch):
            compiled = manifest.steps[step]
            taken = f"{', '.join(compiled.inputs)} -> " if compiled.inputs else "-> "
            mark = f"{number:>2}" if index == 0 else "  "
            lines.append(f"{mark}  {step:<{width}}  {taken}{', '.join(compiled.outputs)}")
    return "\n".join(lines)


def mermaid_of(manifest: Manifest) -> str:
    """The steps as a flowchart, its arrows being the artefacts that pass between them."""
    lines = ["flowchart LR"]
    for step, compiled in manifest.steps.items():
        lines.append(f"    {step}")
        for parent in compiled.depends_on:
            passed = [name for name in manifest.steps[parent].outputs if name in compiled.inputs]
            lines.append(f'    {parent} -- "{", ".join(passed)}" --> {step}')
    return "\n".join(lines)
