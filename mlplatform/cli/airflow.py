"""`mlplatform generate-dags`: compiled pipelines as DAG files of Airflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.pipelines import write_whole

if TYPE_CHECKING:
    from mlplatform.domain.batch.manifest import Manifest


@click.command("generate-dags")
@click.option("--target", required=True, help="The target for which the pipelines were compiled.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the DAG files; it is made if it is not there.",
)
@click.option(
    "--project-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="The project's folder; else this one.",
)
@click.option(
    "--worker-dir",
    help="The project's folder on Airflow's worker, for the executor local; else the same as here.",
)
def generate_dags(target: str, output: Path, project_dir: Path, worker_dir: str | None) -> None:
    """Write <pipeline>_dag.py for each target/<pipeline>/manifest.json.

    A DAG has one task a step, each of which calls `mlplatform step execute`. The operator is that of the
    profile's executor: local is Bash, docker a container, kubernetes a pod. Dagster needs none of this.

    \b
    Examples:
      mlplatform compile all --target prod
      mlplatform generate-dags --target prod --output generated_dags
    """
    from mlplatform.domain.batch.airflow import dag_file

    with readable_errors():
        root = project_dir.resolve()
        files = {}
        for manifest in _manifests(root, target):
            secrets = _needed(manifest)
            files[manifest.name] = dag_file(manifest, worker_dir or str(root), secrets)
            config = manifest.target.executor.config
            if (
                secrets
                and manifest.target.executor.type == "kubernetes"
                and not config.get("env_from_secrets")
            ):
                click.secho(
                    f"warning: {manifest.name}: its pods need {', '.join(secrets)}: name the secret of "
                    f"Kubernetes that has them in outputs.{target}.executor.config.env_from_secrets",
                    fg="yellow",
                    err=True,
                )
        if not files:
            click.echo("No pipelines to write DAGs for.")
        # All or none: a broken profile leaves the DAGs that run as they are.
        for name, text in files.items():
            path = output / f"{name}_dag.py"
            write_whole(path, text)
            click.echo(f"DAG saved to {path}")


def _manifests(root: Path, target: str) -> list[Manifest]:
    from pydantic import ValidationError

    from mlplatform.domain.batch.manifest import Manifest

    remedy = f"run `mlplatform compile all --target {target}`"
    found = []
    for path in sorted(root.glob("target/*/manifest.json")):
        shown = path.relative_to(root)
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise click.ClickException(f"{shown} cannot be read ({first}): {remedy}") from error
        if not (root / "pipelines" / f"{manifest.name}.yaml").exists():
            click.secho(
                f"warning: {shown} is of a pipeline that is gone, and left out: remove it",
                fg="yellow",
                err=True,
            )
        elif manifest.metadata.target != target:
            compiled_for = manifest.metadata.target
            raise click.ClickException(f"{shown} is compiled for target {compiled_for}: {remedy}")
        else:
            found.append(manifest)
    if not found and any(root.glob("pipelines/[!_]*.yaml")):
        raise click.ClickException(f"there is no manifest in {root / 'target'}: {remedy}")
    return found


def _needed(manifest: Manifest) -> list[str]:
    """Variables from which the tasks take their secrets."""
    from mlplatform.io.pipelines.secrets import names_in

    chosen = manifest.target
    if chosen.secrets.provider != "env":
        return []
    return sorted(names_in(chosen.model_dump(mode="json")))
