"""`mlplatform serve`: the HTTP services."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mlplatform.services.server import Application

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
# Faces of the control plane, which is all of these.
SEED_PORTS = {"scheduler": 8081, "worker-manager": 8082}
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
@click.option(
    "--seed-ports",
    is_flag=True,
    help="Answer as the scheduler on 8081 and as the worker manager on 8082 too, unless SCHEDULER_PORT and"
    " WORKER_MANAGER_PORT name others.",
)
def api(host: str | None, port: int | None, seed_ports: bool) -> None:
    """The control plane: pipelines, jobs, schedules and workers over Dagster. Port 8080.

    Dagit is looked for where MLPLATFORM_DAGIT_URL says, else on port 3000 of this machine.

    \b
    Examples:
      mlplatform serve api
      mlplatform serve api --seed-ports
      MLPLATFORM_AUTHENTICATION=required mlplatform serve api --port 9080
    """
    with readable_errors():
        named = Settings.load().control_plane_ports
    ports = {**(SEED_PORTS if seed_ports else {}), **named}
    api_port = ports.pop("orchestrator", PORTS["api"])
    _serve({"api": port if port is not None else api_port, **ports}, host)


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
        guarded = settings.api_tokens or ("api" in ports and settings.authentication_required)
        if local and not guarded and not _is_loopback(host):
            raise click.ClickException(
                f"{host} can be reached from other machines, and nobody would need a token: set"
                " MLPLATFORM_API_TOKENS (of the control plane alone: MLPLATFORM_AUTHENTICATION=required),"
                " or listen on 127.0.0.1"
            )
        services = [Service(name, app, ports[name]) for name, app in _applications(ports, settings).items()]
        logs.configure(services[0].name if len(services) == 1 else "services")
        with listening(services, host) as sockets:
            for name, bound in sockets.items():
                click.echo(f"{name:<20} http://{host}:{bound.getsockname()[1]}", err=True)
            if not run(services, sockets):
                sys.exit(1)


def _applications(names: Iterable[str], settings: Settings) -> dict[str, Application]:
    if "api" not in names:
        return {name: _application(name, settings) for name in names}
    from mlplatform.services.control_plane.app import application
    from mlplatform.services.control_plane.faces import OnItsPort

    app = application(settings)
    return {name: app if name == "api" else OnItsPort(app, name) for name in names}


def _application(name: str, settings: Settings) -> FastAPI:
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
