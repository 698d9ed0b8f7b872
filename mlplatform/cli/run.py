"""`mlplatform run`: pipelines of a project, executed as the assets that Dagit shows."""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.job_runs import NOT_RUN, reason
from mlplatform.cli.pipelines import write_whole
from mlplatform.cli.projects import load_project, project_options

if TYPE_CHECKING:
    import dagster as dg

    from mlplatform.io.pipelines.project import Project


LOGGER = "progress"


@click.command()
@click.option("--select", "names", multiple=True, required=True, help="A pipeline; may be given again.")
@project_options
def run(names: tuple[str, ...], project_dir: Path, target: str | None, variables: Mapping[str, str]) -> None:
    """Run all steps of a pipeline here, and write target/<pipeline>/run_results.json.

    Exit code 0: every step passed with its blocking checks. 1: one failed; the later ones did not run.

    \b
    Examples:
      mlplatform run --select training_churn_model_v1
      mlplatform run --select serving_churn_model_v1 --target prod
    """
    with readable_errors():
        project = load_project(project_dir, target, variables)
        for name in names:
            project.pipeline(name)
        succeeded = True
        for name in names:
            succeeded = succeeded and _run(project, name)
    if not succeeded:
        sys.exit(1)


def _run(project: Project, name: str) -> bool:
    import dagster as dg

    from mlplatform.components.batch.component import definitions_of

    id_ = str(uuid.uuid4())
    began = datetime.now(UTC)
    # Second, and then what makes it unique: the beginning of Dagster's run id.
    run_id = f"run_{began:%Y%m%d_%H%M%S}_{id_[:8]}"
    manifest = project.compile(name)
    click.echo(f"Run {run_id} of {name}, target {manifest.metadata.target}")
    progress = Progress(list(manifest.steps))

    def tell(status: str, **more: Any) -> None:
        about = {"run_id": run_id, "dagster_run_id": id_, "pipeline_name": name}
        content = {
            **about,
            "target": manifest.metadata.target,
            "started_at": began.isoformat(),
            "status": status,
            **more,
        }
        path = project.root / "target" / name / "run_results.json"
        write_whole(path, json.dumps(content, indent=2) + "\n")

    # A run that is killed must not leave the results of the one before.
    tell("running")
    definitions = dg.Definitions.merge(
        definitions_of(project, project.root.name, [], pipelines=[name], folders={name: run_id}),
        dg.Definitions(executor=dg.in_process_executor, loggers={LOGGER: progress.logger()}),
    )
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def(name).execute_in_process(
            instance=instance,
            run_id=id_,
            raise_on_error=False,
            # Instead of Dagster's own, which tells every event.
            run_config={"loggers": {LOGGER: {}}},
        )
    status = "success" if result.success else "failed"
    tell(status, completed_at=datetime.now(UTC).isoformat(), steps=progress.steps)
    seconds = (datetime.now(UTC) - began).total_seconds()
    passed = sum(step["status"] == "success" for step in progress.steps.values())
    click.echo(f"{passed} of {len(manifest.steps)} steps passed in {seconds:.1f} s: run {run_id} {status}.")
    return result.success


class Progress:
    """Prints what a run does as it does it, and keeps how each step ended."""

    def __init__(self, steps: list[str]) -> None:
        self.steps: dict[str, dict[str, Any]] = {name: {"status": "skipped"} for name in steps}
        self._began: dict[str, float] = {}

    def logger(self) -> dg.LoggerDefinition:
        """The logger to which Dagster gives the run's events."""
        import dagster as dg

        progress = self

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                progress.take(record)

        def make(_: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("mlplatform.run", logging.DEBUG)
            logger.addHandler(Handler())
            return logger

        return dg.LoggerDefinition(make)

    def take(self, record: logging.LogRecord) -> None:
        """One record of Dagster's log: an event of the run, or a line that a step logged."""
        import dagster as dg

        meta = getattr(record, "dagster_meta", {})
        event, step = meta.get("dagster_event"), str(meta.get("step_key") or "").partition("__")[2]
        if event is None:
            said = str(meta.get("orig_message", record.getMessage()))
            if step and not said.startswith(NOT_RUN):
                click.echo(f"           {said}")
        elif event.event_type == dg.DagsterEventType.STEP_START:
            self._began[step] = time.monotonic()
            click.echo(f"  [{list(self.steps).index(step) + 1}/{len(self.steps)}] {step}")
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            self._end(step, "success")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            self._end(step, "failed", error=reason(event))
        elif event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            click.echo(click.style(f"           tried again soon: {_why_again(event)}", fg="yellow"))
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            _tell_check(event.asset_check_evaluation_data)
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            _tell_materialization(event.step_materialization_data.materialization)

    def _end(self, step: str, status: str, **more: str) -> None:
        seconds = round(time.monotonic() - self._began[step], 3)
        self.steps[step] = {"status": status, "duration_seconds": seconds, **more}
        if status == "success":
            click.echo(f"           passed in {seconds:.1f} s")
        else:
            click.echo(
                click.style(f"           FAILED after {seconds:.1f} s: {more['error']}", fg="red"), err=True
            )


def _why_again(event: dg.DagsterEvent) -> str:
    error = event.step_retry_data.error
    # Dagster writes the class before the sentence.
    return error.message.strip().rpartition("Failure: ")[2] if error else "unknown"


def _tell_check(check: dg.AssetCheckEvaluation) -> None:
    if not check.passed:
        word = "check failed" if check.blocking else "warning"
        click.echo(click.style(f"           {word}: {check.check_name}: {check.description}", fg="yellow"))


def _tell_materialization(materialization: dg.AssetMaterialization) -> None:
    rows = materialization.metadata.get("dagster/row_count")
    if rows is not None:
        click.echo(f"           {materialization.asset_key.path[-1]}: {rows.value:,} rows")
