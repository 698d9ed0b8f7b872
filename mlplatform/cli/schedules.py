"""`mlplatform schedules`: schedules of the control plane, from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlplatform.cli.api import API, AS_JSON, control_plane, find, print_json, print_table

if TYPE_CHECKING:
    from mlplatform.client import Client
    from mlplatform.client.models import Schedule

SCHEDULE = click.argument("schedule")


@click.group()
def schedules() -> None:
    """See what the control plane runs by itself, and stop it.

    A pipeline brings its schedules as triggers; POST /api/v1/schedules makes others.

    \b
    Examples:
      mlplatform schedules list
      mlplatform schedules pause nightly
    """


@schedules.command(name="list")
@AS_JSON
@API
def list_(as_json: bool, url: str) -> None:
    """Show the schedules, the newest first.

    \b
    Examples:
      mlplatform schedules list
    """
    with control_plane(url) as client:
        found = list(client.schedules.list())
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "status", "runs", "when", "next"),
        (
            (
                each.id,
                each.name,
                each.status,
                "a pipeline" if each.pipeline_id else "a command",
                f"{each.cron} {each.timezone}" if each.cron else each.due_at,
                each.next_times[0] if each.next_times else None,
            )
            for each in found
        ),
    )


@schedules.command()
@SCHEDULE
@AS_JSON
@API
def pause(schedule: str, as_json: bool, url: str) -> None:
    """Let SCHEDULE (name or id) make no jobs until it is resumed.

    \b
    Examples:
      mlplatform schedules pause nightly
    """
    with control_plane(url) as client:
        paused = client.schedules.pause(_find(client, schedule).id)
    print_json(paused) if as_json else click.echo(f"{paused.name} is {paused.status}.")


@schedules.command()
@SCHEDULE
@AS_JSON
@API
def resume(schedule: str, as_json: bool, url: str) -> None:
    """Let SCHEDULE (name or id) make jobs again.

    \b
    Examples:
      mlplatform schedules resume nightly
    """
    with control_plane(url) as client:
        resumed = client.schedules.resume(_find(client, schedule).id)
    print_json(resumed) if as_json else click.echo(f"{resumed.name} is {resumed.status}.")


@schedules.command()
@SCHEDULE
@API
def delete(schedule: str, url: str) -> None:
    """Take SCHEDULE (name or id) away; the jobs that it made stay.

    \b
    Examples:
      mlplatform schedules delete nightly
    """
    with control_plane(url) as client:
        found = _find(client, schedule)
        client.schedules.delete(found.id)
    click.echo(f"{found.name} is gone.")


def _find(client: Client, given: str) -> Schedule:
    return find("schedule", given, client.schedules.get, client.schedules.list)
