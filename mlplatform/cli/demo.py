"""`mlplatform demo`: what the platform does, from start to end."""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid

import click

from mlplatform.cli.churn import show_churn
from mlplatform.cli.errors import readable_errors
from mlplatform.cli.job_runs import run_job
from mlplatform.cli.processes import alone
from mlplatform.cli.results import show
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.results import Frames
from mlplatform.local import stack
from mlplatform.settings import Settings

# In this order: a model must be trained before it can serve.
JOBS = ("online_learning", "training_churn_model_v1", "serving_churn_model_v1")


@click.command()
def demo() -> None:
    """Learn 744 months online, train the churn model, score customers, and show what came of it.

    Starts the embedded stack in a fresh data directory (.mlplatform/demo), runs the jobs with their
    progress, prints the results and stops what it started. Exit code 0: every asset was materialised
    and every blocking check passed.

    \b
    Examples:
      mlplatform demo
      MLPLATFORM_SOURCES=employment_by_series mlplatform demo
    """
    directory = Settings.load().data_directory / "demo"
    began = time.monotonic()
    variables = {
        **os.environ,
        "MLPLATFORM_DATA_DIRECTORY": str(directory),
        "MLPLATFORM_S3_PREFIX": f"demo-{uuid.uuid4().hex[:8]}",
    }
    settings = Settings(variables)
    with readable_errors(), alone(directory.with_suffix(".lock"), "mlplatform demo"):
        if directory.exists():
            shutil.rmtree(directory)
        click.echo("Starting S3, Redis, PostgreSQL and MLflow ...")
        with stack.running_stack(settings):
            for job in JOBS:
                click.echo(f"Running the job {job} in Dagster ...")
                if problems := run_job(job, directory, variables):
                    click.echo("\n".join(problems), err=True)
                    click.echo(f"The run's log: {directory / f'{job}.log'}", err=True)
                    sys.exit(1)
            show(Frames(ObjectStore(settings.s3)))
            show_churn(settings)
    click.echo(f"Done in {time.monotonic() - began:.0f} s; everything that was started has stopped.")
    click.echo("Next: `make run` keeps it alive, with Dagit and one observation a minute.")
