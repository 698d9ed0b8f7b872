"""`mlplatform openapi`: what the interfaces take and answer, without serving them."""

from __future__ import annotations

import json

import click

from mlplatform.settings import Settings

# Nothing is opened: of an application, only the routes are looked at.
NOWHERE = {
    "MLPLATFORM_AUTHENTICATION": "required",
    "MLPLATFORM_JWT_KEY": "0" * 32,
    "MLPLATFORM_DATABASE_URL": "postgresql://nobody@localhost/nothing",
    "MLPLATFORM_S3_ENDPOINT_URL": "http://localhost",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
}


@click.group()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of a service, for generators and gateways.

    \b
    Examples:
      mlplatform openapi api > openapi.json
    """


@openapi.command()
def api() -> None:
    """Of the control plane.

    \b
    Examples:
      mlplatform openapi api > openapi.json
    """
    from mlplatform.services.control_plane.app import application

    click.echo(json.dumps(application(Settings(NOWHERE)).openapi(), indent=2))
