"""`mlplatform worker`: runs the commands of jobs on this machine."""

from __future__ import annotations

import socket

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.settings import Settings


@click.group()
def worker() -> None:
    """Run the commands of jobs on this machine.

    \b
    Examples:
      mlplatform worker start
      mlplatform worker start --name gpu-1 --gpu 1 --feature cuda-12
    """


@worker.command()
@click.option("--name", help="What it is called in lists; else the name of this machine.")
@click.option(
    "--cpu-m", type=click.IntRange(0), help="Thousandths of a core to give to commands; else all there are."
)
@click.option(
    "--memory-mb", type=click.IntRange(0), help="Mebibytes to give to commands; else all there are."
)
@click.option("--gpu", type=click.IntRange(0), default=0, show_default=True, help="GPUs to give to commands.")
@click.option(
    "--feature", "features", multiple=True, help="What jobs may ask for besides; may be given again."
)
@click.option("--slots", type=click.IntRange(1, 256), help="Commands at once; else one for each core.")
@click.option(
    "--timeout-seconds",
    type=click.IntRange(1, 3600),
    default=30,
    show_default=True,
    help="Not heard of for so long, it loses what it runs to other workers.",
)
@click.option(
    "--grace-seconds",
    type=click.FloatRange(0),
    default=300,
    show_default=True,
    help="How long it waits for what runs when it is told to end.",
)
def start(
    name: str | None,
    cpu_m: int | None,
    memory_mb: int | None,
    gpu: int,
    features: tuple[str, ...],
    slots: int | None,
    timeout_seconds: int,
    grace_seconds: float,
) -> None:
    """Take jobs that fit, and run their commands, until SIGTERM or Ctrl-C.

    Then it takes nothing more and waits for what runs; the second time it ends at once. A command has
    the rights of whoever starts the worker, and none of its environment variables. Secrets that jobs name
    are variables of the worker, MLPLATFORM_SECRET_<NAME>, or files in MLPLATFORM_SECRETS_DIRECTORY.

    \b
    Examples:
      mlplatform worker start
      mlplatform worker start --slots 2 --cpu-m 2000 --memory-mb 4096
      MLPLATFORM_DATABASE_URL=postgresql://… mlplatform worker start --name gpu-1 --gpu 1 --feature cuda-12
    """
    import asyncio
    import logging

    from pydantic import ValidationError

    from mlplatform.domain.jobs.specs import Capabilities
    from mlplatform.io import logs, tracing
    from mlplatform.io.control_plane.database import Database
    from mlplatform.worker import machine
    from mlplatform.worker.agent import Options, Worker

    settings = Settings.load()
    cores = machine.cores()
    try:
        capabilities = Capabilities(
            cpu_m=int(1000 * cores) if cpu_m is None else cpu_m,
            memory_mb=machine.memory_mb() if memory_mb is None else memory_mb,
            gpu=gpu,
            features=frozenset(features),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise click.UsageError(f"{problem['loc'][0]}: {problem['msg']}") from None
    options = Options(
        name or socket.gethostname(),
        capabilities,
        slots or max(1, int(cores)),
        timeout_seconds,
        grace_seconds,
    )
    logs.configure("worker")
    tracing.configure("worker", settings.traces_endpoint)
    # It tells of each entry, with its lease.
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    with readable_errors():
        database = Database(settings.database_url, settings.control_plane_schema, pool_size=5)
        try:
            asyncio.run(Worker(settings, database, options).run())
        finally:
            database.close()
