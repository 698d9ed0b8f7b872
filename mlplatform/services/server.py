"""Serves one or several applications in one process, until a signal asks for the end."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import uvicorn
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from mlplatform.errors import PlatformError

# What is being answered when the end is asked for may take so long.
SHUTDOWN_SECONDS = 20


class PortTaken(PlatformError):
    """Another process listens there."""


class Application(Protocol):
    """What FastAPI makes, or stands before it."""

    state: State

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


@dataclass(frozen=True)
class Service:
    """An application and the port on which it listens (0: any that is free)."""

    name: str
    app: Application
    port: int


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was made until now stays: to look through it for garbage stops the loop for 80 ms each time.
        gc.collect()
        gc.freeze()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # One server would hear them, and the others go on.
        yield


@contextmanager
def listening(services: Sequence[Service], host: str) -> Iterator[dict[str, socket.socket]]:
    """The socket of each service, by its name.

    Raises:
        PortTaken: one of the ports is not free; then none is listened on.
    """
    sockets: dict[str, socket.socket] = {}
    try:
        for service in services:
            sockets[service.name] = _bound(host, service)
        yield sockets
    finally:
        for each in sockets.values():
            each.close()


def serve(services: Sequence[Service], sockets: dict[str, socket.socket]) -> bool:
    """Returns when SIGINT or SIGTERM was heard and all is answered, drained and flushed.

    Returns:
        Whether all of them started.
    """
    servers = {
        service.name: _Server(
            uvicorn.Config(
                service.app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        for service in services
    }

    async def run() -> None:
        def end() -> None:
            for server in servers.values():
                server.should_exit = True
            for service in services:
                # Replies without an end of their own would be waited for.
                getattr(service.app.state, "end_streams", lambda: None)()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)

        async def one(name: str, server: _Server) -> None:
            # So uvicorn says that the application could not start; its log has said why.
            with suppress(SystemExit):
                await server.serve(sockets=[sockets[name]])
            # The others would go on, and nobody would notice.
            end()

        await asyncio.gather(*(one(name, server) for name, server in servers.items()))

    [some, *_] = servers.values()
    with asyncio.Runner(loop_factory=some.config.get_loop_factory()) as runner:
        runner.run(run())
    return all(server.started for server in servers.values())


def _bound(host: str, service: Service) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, service.port))
        # Until then another process could bind it too; who calls now waits until the service has started.
        bound.listen()
    except OSError as error:
        bound.close()
        raise PortTaken(
            f"{service.name} cannot listen on {host}:{service.port} ({error.strerror}): end what does, or"
            " give another port (`--port`; `serve all --any-port` takes one that is free)"
        ) from None
    return bound
