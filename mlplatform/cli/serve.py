"""`mlplatform serve`: the HTTP services."""

from __future__ import annotations

import ipaddress
import sys
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

PORTS = {
    "api": 8080,
    "ingestion": 8002,
    "features": 8001,
    "linear_regression": 8010,
    "bagging_regressor": 8011,
    "knn_regressor": 8012,
    "amf_regressor": 8013,
    "ridge_regression": 8014,
}
MODELS_PORT = 8010
# The seed's four.
DEFAULT_MODELS = ("linear_regression", "bagging_regressor", "knn_regressor", "amf_regressor")


HOST = click.option(
    "--host", help="Address to listen on; else the loopback interface in local, and any elsewhere."
)
PORT = click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes any that is free.")


@click.group()
def serve() -> None:
    """Serve observations, features and models over HTTP, until Ctrl-C.

    \b
    Examples:
      mlplatform serve all
      mlplatform serve models --model knn_regressor
      curl -s localhost:8010/model_metrics
    """


@serve.command()
@HOST
@PORT
def api(host: str | None, port: int | None) -> None:
    """The control plane: pipelines, jobs, schedules and workers over Dagster. Port 8080.

    Dagit is looked for where MLPLATFORM_DAGIT_URL says, else on port 3000 of this machine.

    \b
    Examples:
      mlplatform serve api
      MLPLATFORM_AUTHENTICATION=required mlplatform serve api --port 9080
    """
    _serve({"api": port if port is not None else PORTS["api"]}, host)


@serve.command()
@HOST
@PORT
def ingestion(host: str | None, port: int | None) -> None:
    """The next observation of a replay, or a live price. Port 8002.

    \b
    Examples:
      mlplatform serve ingestion
    """
    _serve({"ingestion": port if port is not None else PORTS["ingestion"]}, host)


@serve.command()
@HOST
@PORT
def features(host: str | None, port: int | None) -> None:
    """Lag features of any series. Port 8001.

    \b
    Examples:
      mlplatform serve features
      N_LAGS=10 mlplatform serve features --port 9001
    """
    _serve({"features": port if port is not None else PORTS["features"]}, host)


@serve.command()
@click.option(
    "--model", "names", multiple=True, help="Name of a model; may be given again. Else MODEL_NAME, else all."
)
@HOST
@PORT
def models(names: tuple[str, ...], host: str | None, port: int | None) -> None:
    """Models that predict and learn: one at the root of its own port, several below /models/NAME.

    \b
    Examples:
      MODEL_NAME=knn_regressor mlplatform serve models
      mlplatform serve models --model linear_regression --model amf_regressor
    """
    chosen = names or tuple(filter(None, [Settings.load().model_name])) or DEFAULT_MODELS
    default = PORTS.get(chosen[0], MODELS_PORT) if len(chosen) == 1 else MODELS_PORT
    _serve({",".join(chosen): port if port is not None else default}, host)


@serve.command(name="all")
@HOST
@click.option("--any-port", is_flag=True, help="Take another port where the usual one is not free.")
def all_(host: str | None, any_port: bool) -> None:
    """Ingestion, features and the four models, each on its own port, in one process.

    \b
    Examples:
      mlplatform serve all
      mlplatform serve all --any-port
    """
    from mlplatform.local import ports

    chosen = ("ingestion", "features", *DEFAULT_MODELS)
    taken = {name for name in chosen if any_port and not ports.is_free(PORTS[name])}
    _serve({name: 0 if name in taken else PORTS[name] for name in chosen}, host)


def _serve(ports: dict[str, int], host: str | None) -> None:
    from mlplatform.services import logs
    from mlplatform.services.server import Service, listening
    from mlplatform.services.server import serve as run

    settings = Settings.load()
    with readable_errors():
        local = settings.environment == "local"
        host = host or ("127.0.0.1" if local else "0.0.0.0")  # noqa: S104 - outside local, tokens are needed
        guarded = settings.api_tokens or (set(ports) == {"api"} and settings.authentication_required)
        if local and not guarded and not _is_loopback(host):
            raise click.ClickException(
                f"{host} can be reached from other machines, and nobody would need a token: set"
                " MLPLATFORM_API_TOKENS (of the control plane alone: MLPLATFORM_AUTHENTICATION=required),"
                " or listen on 127.0.0.1"
            )
        services = [Service(name, _application(name, settings), port) for name, port in ports.items()]
        logs.configure(services[0].name if len(services) == 1 else "services")
        with listening(services, host) as sockets:
            for name, bound in sockets.items():
                click.echo(f"{name:<20} http://{host}:{bound.getsockname()[1]}", err=True)
            if not run(services, sockets):
                sys.exit(1)


def _application(name: str, settings: Settings) -> FastAPI:
    if name == "api":
        from mlplatform.services.control_plane.app import application

        return application(settings)
    if name == "ingestion":
        from mlplatform.services.ingestion import application

        return application(settings)
    if name == "features":
        from mlplatform.services.features import application

        return application(settings)
    from mlplatform.services.models import application

    return application(settings, name.split(","))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
