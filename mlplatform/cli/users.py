"""`mlplatform users`: who may log in to the control plane, for those who have its database."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.io.control_plane.audit import Actor
    from mlplatform.io.control_plane.users import Users

PAGE = 1000


@click.group()
def users() -> None:
    """Make, list and change those who may log in to the control plane.

    Works on its database, without the API: there must be a user before that starts anywhere but locally.

    \b
    Examples:
      mlplatform users create ada --all-scopes
      mlplatform users create ci --scope jobs:read --scope jobs:write --password-stdin < password.txt
      mlplatform users disable ada
    """


_name = click.argument("name")
_password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin, and ask nobody."
)


@users.command()
@_name
@click.option("--scope", "scopes", multiple=True, help="What the user may do; may be given again.")
@click.option("--all-scopes", is_flag=True, help="The user may do everything.")
@_password_stdin
def create(name: str, scopes: tuple[str, ...], all_scopes: bool, password_stdin: bool) -> None:
    """Make the user NAME; the password is asked for.

    \b
    Examples:
      mlplatform users create ada --all-scopes
    """
    from mlplatform.io.control_plane.users import SCOPES

    if not scopes and not all_scopes:
        raise click.UsageError(f"say what {name} may do: --all-scopes, or --scope of {', '.join(SCOPES)}")
    with _users() as (known, actor):
        known.create(name, _password(password_stdin), list(SCOPES) if all_scopes else scopes, actor)
    click.echo(f"{name} can log in.")


@users.command(name="list")
def list_() -> None:
    """Name, state and scopes of each user, one a line.

    \b
    Examples:
      mlplatform users list
    """
    with _users() as (known, _):
        after = ""
        while page := known.page(PAGE, after):
            for user in page:
                state = "disabled" if user.disabled else "enabled"
                click.echo(f"{user.name:<20} {state:<8} {' '.join(user.scopes)}")
            after = page[-1].name


@users.command()
@_name
@click.option("--undo", is_flag=True, help="Let the user log in again.")
def disable(name: str, undo: bool) -> None:
    """Keep the user NAME out, and end all their sessions.

    \b
    Examples:
      mlplatform users disable ada
      mlplatform users disable --undo ada
    """
    with _users() as (known, actor):
        known.change(name, actor, disabled=not undo)
    click.echo(f"{name} can log in again." if undo else f"{name} is kept out.")


@users.command()
@_name
@_password_stdin
def password(name: str, password_stdin: bool) -> None:
    """Give the user NAME another password, and end all their sessions.

    \b
    Examples:
      mlplatform users password admin
    """
    with _users() as (known, actor):
        known.change(name, actor, password=_password(password_stdin))
    click.echo(f"{name} has another password.")


@contextmanager
def _users() -> Iterator[tuple[Users, Actor]]:
    from mlplatform.io.control_plane.audit import Actor
    from mlplatform.io.control_plane.database import Database
    from mlplatform.io.control_plane.users import Users

    with readable_errors():
        settings = Settings.load()
        database = Database(settings.database_url, settings.control_plane_schema, pool_size=1)
        try:
            # Users are made before the API, which would do it, starts for the first time.
            database.migrate()
            yield Users(database), Actor("", f"{_operator()} (operator)")
        finally:
            database.close()


def _operator() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Containers run as users that have no name.
        return str(os.getuid())


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return click.prompt("Password", hide_input=True, confirmation_prompt=True)
