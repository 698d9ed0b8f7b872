"""`mlplatform up`, `status`, `down`: the embedded servers of this machine."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from urllib.parse import urlsplit

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.local import stack
from mlplatform.settings import Settings

NOT_READY = 1
NOT_RUNNING = 3


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="").geturl()


def print_status(status: stack.Status) -> None:
    for service in status.services:
        url = service.address.get("url")
        where = _without_password(url) if url else "no address"
        state = "ready" if service.ready else f"NOT READY: {service.problem}"
        kept = service.data if service.ready else f"log: {service.log}"
        if not service.embedded:
            kept = "named by the environment"
        elif not service.wanted:
            kept = "the rest does without it"
        click.echo(f"{service.name:<11} {where:<50} {state}  ({kept})")


_port = click.IntRange(1, 65535)


@click.command()
@click.option("--s3-port", type=_port, help="Port of S3; else 18333 or a free one.")
@click.option("--redis-port", type=_port, help="Port of Redis; else 16379 or a free one.")
@click.option("--postgresql-port", type=_port, help="Port of PostgreSQL; else 15432 or a free one.")
@click.option("--mlflow-port", type=_port, help="Port of MLflow; else 15000 or a free one.")
@click.option("--foreground", is_flag=True, help="Keep running, and stop the servers on Ctrl-C.")
def up(
    s3_port: int | None,
    redis_port: int | None,
    postgresql_port: int | None,
    mlflow_port: int | None,
    foreground: bool,
) -> None:
    """Start S3, Redis, PostgreSQL and MLflow on this machine, for one data directory.

    Returns when all of them answer. Their data is kept in .mlplatform (or MLPLATFORM_DATA_DIRECTORY) from
    one start to the next. A service that an environment variable names (MLPLATFORM_S3_ENDPOINT_URL,
    MLPLATFORM_REDIS_URL, MLPLATFORM_DATABASE_URL, MLFLOW_TRACKING_URI) is not started; nor is one that
    MLPLATFORM_STACK_SERVICES leaves out.

    \b
    Examples:
      mlplatform up
      mlplatform up --redis-port 6379
      MLPLATFORM_STACK_SERVICES=s3,redis,postgresql mlplatform up
      MLPLATFORM_DATA_DIRECTORY=/tmp/other mlplatform up --foreground
    """
    chosen = {"s3": s3_port, "redis": redis_port, "postgresql": postgresql_port, "mlflow": mlflow_port}
    ports = {name: port for name, port in chosen.items() if port is not None}
    with readable_errors():
        settings = Settings.load()
        embedded = stack.embedded_services(settings)
        if not embedded:
            click.echo("Nothing to start: the environment names every service it needs.")
            return
        click.echo(f"Starting {', '.join(embedded)} in {settings.data_directory} ...", err=True)
        began = time.monotonic()
        if foreground:
            with stack.running_stack(settings, ports):
                print_status(stack.status(settings))
                _stay(settings)
            return
        started = stack.start(settings, ports)
        seconds = time.monotonic() - began
        print_status(stack.status(settings))
        click.echo(f"Up in {seconds:.1f} s." if started else "It ran already.", err=True)


def _stay(settings: Settings) -> None:
    """Return on a signal to end, or fail when the stack has ended."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    click.echo("Running until Ctrl-C.", err=True)
    while not over.wait(1):
        stack.check(settings)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Everything, with passwords, for programs.")
def status(as_json: bool) -> None:
    """Ask every service whether it does its work.

    Exit code 0: all are ready. 1: one is not. 3: the stack does not run.

    \b
    Examples:
      mlplatform status
      psql "$(mlplatform status --json | jq -r .services.postgresql.url | sed s/+psycopg2//)"
    """
    with readable_errors():
        found = stack.status(Settings.load())
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    elif not found.running and not found.ready:
        click.echo(f"Not running for {found.data_directory}: start it with `mlplatform up`.")
    else:
        print_status(found)
    if not found.ready:
        sys.exit(NOT_READY if found.running else NOT_RUNNING)


def _as_json(found: stack.Status) -> dict[str, object]:
    return {
        "data_directory": str(found.data_directory),
        "running": found.running,
        "ready": found.ready,
        "supervisor": found.supervisor,
        "log": str(found.log),
        "services": {
            service.name: {
                **service.address,
                "embedded": service.embedded,
                "ready": service.ready,
                "problem": service.problem,
                "data": str(service.data) if service.data else None,
                "log": str(service.log) if service.log else None,
            }
            for service in found.services
        },
    }


@click.command()
def down() -> None:
    """Stop the servers of the data directory; their data stays.

    \b
    Example:
      mlplatform down
    """
    with readable_errors():
        settings = Settings.load()
        stopped = stack.stop(settings.data_directory)
    click.echo("Stopped." if stopped else f"Nothing runs for {settings.data_directory}.", err=True)
