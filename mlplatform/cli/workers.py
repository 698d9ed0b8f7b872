"""`mlplatform workers`: the workers of the control plane, from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlplatform.cli.api import API, AS_JSON, ago, control_plane, find, print_json, print_table
from mlplatform.domain.jobs.states import ENDED

if TYPE_CHECKING:
    from mlplatform.client import Client
    from mlplatform.client.models import Worker

WORKER = click.argument("worker")


@click.group()
def workers() -> None:
    """See the workers, wherever they are, and end them. `mlplatform worker start` makes one here.

    \b
    Examples:
      mlplatform workers list
      mlplatform workers drain gpu-1
    """


@workers.command(name="list")
@click.option("--all", "with_ended", is_flag=True, help="Also those that have ended.")
@AS_JSON
@API
def list_(with_ended: bool, as_json: bool, url: str) -> None:
    """Show the workers, the newest first.

    \b
    Examples:
      mlplatform workers list
      mlplatform workers list --all --json
    """
    with control_plane(url) as client:
        found = [each for each in client.workers.list() if with_ended or each.status not in ENDED]
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "status", "busy", "cores", "MiB", "GPUs", "features", "host", "heard of"),
        (
            (
                each.id,
                each.name,
                each.status.value,
                f"{each.executions}/{each.slots}" if each.listens else "takes no work",
                f"{each.capabilities.cpu_m / 1000:g}",
                each.capabilities.memory_mb,
                each.capabilities.gpu or None,
                " ".join(sorted(each.capabilities.features)),
                each.host,
                ago(each.last_heartbeat),
            )
            for each in found
        ),
    )


@workers.command()
@WORKER
@AS_JSON
@API
def drain(worker: str, as_json: bool, url: str) -> None:
    """Let WORKER (name or id) end what it has, and then end.

    \b
    Examples:
      mlplatform workers drain gpu-1
    """
    with control_plane(url) as client:
        drained = client.workers.drain(_find(client, worker).id)
    print_json(drained) if as_json else click.echo(f"{drained.name} is {drained.status}.")


@workers.command()
@WORKER
@AS_JSON
@API
def stop(worker: str, as_json: bool, url: str) -> None:
    """End WORKER (name or id) at once; what it has is given to others.

    \b
    Examples:
      mlplatform workers stop gpu-1
    """
    with control_plane(url) as client:
        stopped = client.workers.stop(_find(client, worker).id)
    print_json(stopped) if as_json else click.echo(f"{stopped.name} is {stopped.status}.")


def _find(client: Client, given: str) -> Worker:
    return find(
        "worker",
        given,
        client.workers.get,
        lambda: (each for each in client.workers.list() if each.status not in ENDED),
    )
