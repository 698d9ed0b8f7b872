"""`mlplatform login` and `mlplatform logout`: who the commands of the control plane are for the API."""

from __future__ import annotations

import sys

import click

from mlplatform.cli.api import API, NotDone, control_plane
from mlplatform.cli.logins import LoginFile
from mlplatform.settings import Settings


@click.command()
@click.argument("user", required=False)
@click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin, and ask nobody."
)
@API
def login(user: str | None, password_stdin: bool, url: str) -> None:
    """Log in to the control plane as USER; name and password are asked for.

    The login is kept for this address in a file that only you can read, and ends after a week in which it
    was not used, or with `mlplatform logout`. Where MLPLATFORM_TOKEN is set, that is shown instead.

    \b
    Examples:
      mlplatform login
      mlplatform login ada --api https://mlplatform.example.org
      mlplatform login ada --password-stdin < password.txt
    """
    if Settings.load().api_token:
        raise click.UsageError("MLPLATFORM_TOKEN is set, and would be shown instead: unset it")
    name = user or click.prompt("User")
    password = (
        sys.stdin.readline().rstrip("\r\n") if password_stdin else click.prompt("Password", hide_input=True)
    )
    with control_plane(url) as client:
        client.login(name, password)
    click.echo(f"{name} has logged in at {client.url}.")


@click.command()
@API
def logout(url: str) -> None:
    """End the login: its tokens are good no more, also where they were copied to.

    \b
    Examples:
      mlplatform logout
    """
    from mlplatform.client import ApiError, Client

    store = LoginFile.of(url)
    with control_plane(url):
        if store.load() is None:
            raise NotDone(f"nobody has logged in at {url}")
        try:
            # Not MLPLATFORM_TOKEN: that is no login.
            with Client(url, token="", store=store) as client:
                client.logout()
        except ApiError as error:
            if error.status != 401:
                raise
            # It has ended already.
            store.save(None)
    click.echo(f"Logged out at {url}.")
