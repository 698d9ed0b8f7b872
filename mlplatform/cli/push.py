"""`mlplatform push`: one observation into the inbox of the push source."""

from __future__ import annotations

import uuid
from datetime import datetime

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.sources.push import Pushed, PushSource
from mlplatform.io.sources.replay import parse_time, parse_value
from mlplatform.settings import Settings


@click.command()
@click.argument("series_id")
@click.argument("value")
@click.option("--id", "observation_id", help="The producer's id: the same id is learned once.")
@click.option("--time", "time_text", help="When it was observed (ISO 8601); now unless given.")
def push(series_id: str, value: str, observation_id: str | None, time_text: str | None) -> None:
    """Hand in one observation; the next run takes it into the log, or refuses it with a reason.

    \b
    Examples:
      mlplatform push room_temperature 21.5
      mlplatform push room_temperature 21.7 --id reading-4711 --time 2026-01-31T12:00:00+00:00
    """
    event_time: datetime | None = None
    if time_text is not None:
        event_time = parse_time(time_text)
        if event_time is None:
            raise click.BadParameter(f"{time_text!r} is not a time such as 2026-01-31T12:00:00+00:00")
    pushed = Pushed(series_id, parse_value(value), observation_id or uuid.uuid4().hex, event_time)
    with readable_errors():
        PushSource("pushed", ObjectStore(Settings.load().s3)).push([pushed])
    click.echo(pushed.observation_id)
