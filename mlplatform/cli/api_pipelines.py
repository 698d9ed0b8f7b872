"""`mlplatform pipelines`: pipelines of the control plane, from the command line.

Those of a project's YAML on this machine are in `mlplatform.cli.pipelines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlplatform.cli.api import API, AS_JSON, NotDone, ago, control_plane, find, print_json, print_table

if TYPE_CHECKING:
    from mlplatform.client import Client
    from mlplatform.client.models import Pipeline, Problem

PIPELINE = click.argument("pipeline")


@click.group()
def pipelines() -> None:
    """Keep pipelines in the control plane, where everybody finds them, and run them there.

    Pipelines of a project on this machine are checked and run by `mlplatform validate` and `mlplatform run`.

    \b
    Examples:
      mlplatform pipelines create nightly.yaml
      mlplatform pipelines run nightly
    """


@pipelines.command(name="list")
@AS_JSON
@API
def list_(as_json: bool, url: str) -> None:
    """Show the pipelines, the newest first.

    \b
    Examples:
      mlplatform pipelines list
    """
    with control_plane(url) as client:
        found = list(client.pipelines.list())
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "version", "stages", "changed", "by"),
        (
            (
                each.id,
                each.name,
                each.version,
                "batch" if each.yaml else " ".join(stage.name for stage in each.stages),
                ago(each.updated_at),
                each.created_by,
            )
            for each in found
        ),
    )


@pipelines.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@AS_JSON
@API
def create(file: Path, as_json: bool, url: str) -> None:
    """Keep the pipeline in FILE: stages in YAML or JSON, or the YAML of a batch pipeline. Prints its id.

    \b
    Examples:
      mlplatform pipelines create nightly.yaml
      mlplatform pipelines create pipelines/churn_small_v1.yaml
    """
    declared = _declared(file)
    with control_plane(url) as client:
        verdict = client.pipelines.validate(declared)
        if not verdict.valid:
            raise NotDone("\n".join(_said(file, problem, "yaml" in declared) for problem in verdict.problems))
        made = client.pipelines.create(declared)
    print_json(made) if as_json else click.echo(made.id)


@pipelines.command()
@PIPELINE
@click.option("--name", help="What its job is called in lists; else as the pipeline.")
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, help="Higher ones come first.")
@AS_JSON
@API
def run(pipeline: str, name: str | None, priority: int, as_json: bool, url: str) -> None:
    """Make a job of PIPELINE (name or id), and print its id. `jobs submit --pipeline` can do more.

    \b
    Examples:
      mlplatform pipelines run nightly
    """
    with control_plane(url) as client:
        job = client.pipelines.run(_find(client, pipeline).id, name=name, priority=priority)
    print_json(job) if as_json else click.echo(job.id)


@pipelines.command()
@PIPELINE
@API
def delete(pipeline: str, url: str) -> None:
    """Take PIPELINE (name or id) away with its schedules; the jobs that it had stay.

    \b
    Examples:
      mlplatform pipelines delete nightly
    """
    with control_plane(url) as client:
        found = _find(client, pipeline)
        client.pipelines.delete(found.id)
    click.echo(f"{found.name} is gone.")


def _find(client: Client, given: str) -> Pipeline:
    return find("pipeline", given, client.pipelines.get, client.pipelines.list)


def _declared(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = file.read_text()
        read = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.ClickException(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if isinstance(read, dict) and "project" in read:
        # A batch pipeline, whose name is that of its project.
        return {"name": file.stem, "yaml": text}
    if not isinstance(read, dict):
        raise click.ClickException(f"{file} is no pipeline: it has neither `name` nor `project`")
    return read


def _said(file: Path, problem: Problem, as_written: bool) -> str:
    # What is wrong with stages has its place in the JSON that was sent.
    places = (file, problem.line, problem.column) if as_written else (file,)
    where = f" {problem.path}" if problem.path else ""
    remedy = f" ({problem.suggestion})" if problem.suggestion else ""
    return f"{':'.join(str(each) for each in places if each)}:{where} {problem.message}{remedy}"
