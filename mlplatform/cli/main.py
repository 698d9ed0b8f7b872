"""`mlplatform`: the command line, one module per group of commands."""

from __future__ import annotations

import click

from mlplatform.cli.lazy import LazyCommands

COMMANDS = LazyCommands(
    {
        "compile": "mlplatform.cli.pipelines:compile_",
        "dag": "mlplatform.cli.pipelines:dag",
        "debug": "mlplatform.cli.debug:debug",
        "demo": "mlplatform.cli.demo:demo",
        "dev": "mlplatform.cli.dev:dev",
        "down": "mlplatform.cli.stack:down",
        "e2e": "mlplatform.cli.e2e:e2e",
        "generate-dags": "mlplatform.cli.airflow:generate_dags",
        "init": "mlplatform.cli.init:init",
        "jobs": "mlplatform.cli.jobs:jobs",
        "login": "mlplatform.cli.login:login",
        "logout": "mlplatform.cli.login:logout",
        "pipelines": "mlplatform.cli.api_pipelines:pipelines",
        "openapi": "mlplatform.cli.openapi:openapi",
        "push": "mlplatform.cli.push:push",
        "results": "mlplatform.cli.results:results",
        "run": "mlplatform.cli.run:run",
        "schedules": "mlplatform.cli.schedules:schedules",
        "serve": "mlplatform.cli.serve:serve",
        "status": "mlplatform.cli.stack:status",
        "step": "mlplatform.cli.step:step",
        "test": "mlplatform.cli.assertions:test",
        "up": "mlplatform.cli.stack:up",
        "users": "mlplatform.cli.users:users",
        "validate": "mlplatform.cli.pipelines:validate",
        "worker": "mlplatform.cli.worker:worker",
        "workers": "mlplatform.cli.workers:workers",
    }
)


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlplatform", prog_name="mlplatform")
def main() -> None:
    """Online learning, batch ML and training jobs as one Dagster asset graph."""
